# The messages that doc/troubleshooting.md begins with: they appear as it says, and the
# events have the causes that it names.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets 'wait_until_acknowledged';
use KeepaliveGuard::Network;
use KeepaliveGuard::Settings 'seconds_until';
use PostgreSQL::Test::Utils 'slurp_file';
use Test::More;
use Time::HiRes 'sleep';

my $network = KeepaliveGuard::Network->new;
my ($host, $failing, $away) = map { $network->add_host } 1 .. 3;
my $node = KeepaliveGuard::Cluster->start_new('primary', conf => "keepalive_guard.watch_interval = 200ms\nrestart_after_crash = on\n");
my $admin = $node->unix_session;
$node->policy(
	name => 'failing', client => $failing->address . '/32', tcp_keepalives_idle => '1s', tcp_keepalives_interval => '1s',
	tcp_keepalives_count => 2);
$node->policy(
	name => 'away', client => $away->address . '/32', tcp_keepalives_idle => '1s', tcp_keepalives_interval => '1s',
	tcp_keepalives_count => 100, dead_after => '1s');
$node->wait_for_policies;
my ($text) = slurp_file('doc/troubleshooting.md');

# Tests that the document has the message, that the log has it and then the line of the
# guard with this cause, and that the event has this cause.
sub symptom
{
	my ($session, $message, $cause) = @_;
	like($text, qr/^## .*\Q$message\E/m, "troubleshooting has \"$message\"");
	my $pid = $session->pid;
	my $log = qr/\[$pid\][^\n]*\Q$message\E.*?\[$pid\][^\n]*lost connection to client [^\n]*: $cause,/s;
	ok(defined seconds_until(15, sub { slurp_file($node->logfile) =~ $log }), "the log has it, and then the cause $cause")
	  or diag(join "\n", grep { /\[$pid\]/ } split /\n/, slurp_file($node->logfile));
	$node->wait_for_exit($pid, 15);
	is($admin->value("SELECT cause FROM keepalive_events() WHERE pid = $pid"), $cause, 'and the event has the same');
	return;
}

# --- lost connections ---------------------------------------------------------------------------

my $dead = $node->session(host => $failing);
my $sleeping = $node->session(host => $away);
wait_until_acknowledged($_->port) foreach $dead, $sleeping;
$_->drop foreach $failing, $away;

my $resetting = $node->session(host => $host);
$resetting->reset;
symptom($resetting, 'could not receive data from client: Connection reset by peer', 'reset');

my $killed = $node->session(host => $host);
$killed->query('BEGIN');
$killed->vanish;
symptom($killed, 'unexpected EOF on client connection with an open transaction', 'client_vanished');

symptom($dead, 'could not receive data from client: Connection timed out', 'keepalive_timeout');

# --- terminating connection due to administrator command -------------------------------------------

my $told = $node->session(host => $host);
$admin->query("SELECT pg_terminate_backend(@{[$told->pid]})");
is($told->result->{error}{message}, 'terminating connection due to administrator command', 'the message of pg_terminate_backend()');
$node->wait_for_exit($told->pid, 15); # the event comes after the message
is($admin->value("SELECT cause FROM keepalive_events() WHERE pid = @{[$told->pid]}"), 'terminated', 'its cause');

ok(defined $node->wait_for_exit($sleeping->pid, 15), 'dead_after ends the session of a client that cannot be reached');
is($admin->value("SELECT cause FROM keepalive_events() WHERE pid = @{[$sleeping->pid]}"), 'dead_after', 'its cause');
$away->restore;
is($sleeping->result->{error}{message}, 'terminating connection due to administrator command', 'a client that comes back soon gets the same message');

# --- a crash ------------------------------------------------------------------------------------------

my $crashing = $node->session(host => $host);
kill 'KILL', $crashing->pid;
ok(!eval { $crashing->query('SELECT 1'); 1 }, 'a client of a killed backend gets no message');
ok(defined seconds_until(20, sub { slurp_file($node->logfile) =~ /\(PID @{[$crashing->pid]}\) was terminated by signal 9/ }), 'the log says so');
ok(defined seconds_until(20, sub { eval { $admin = $node->unix_session; 1 } }), 'the server is up again');
is($admin->value('SELECT count(*) FROM keepalive_events()'), 0, 'and has no events');

done_testing();
