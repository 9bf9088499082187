# keepalive_events(): its columns compared with the kernel, its order and size, its
# privileges, and the log line for each lost connection.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::ExpectedEvents;
use KeepaliveGuard::KernelSockets 'socket_line';
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = KeepaliveGuard::Cluster->start_new('primary',
	conf => "autovacuum = off\nkeepalive_guard.max_events = 50\n");
$node->safe_psql('postgres', <<'END');
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
CREATE ROLE monitor LOGIN;
GRANT pg_read_all_stats TO monitor;
CREATE ROLE member LOGIN;
GRANT app TO member;
CREATE DATABASE shop;
END
$node->policy(name => 'A "quoted" name', role => 'app', tcp_keepalives_idle => '60s');
$node->wait_for_policies;
my $admin = $node->unix_session;

# Waits for the event of a backend.
sub event
{
	my ($pid) = @_;
	my $until = time + 20;
	while (time < $until)
	{
		my $row = KeepaliveGuard::ExpectedEvents::events_of($node, $pid)->{$pid};
		return $row if $row;
		sleep 0.05;
	}
	die "no event\n";
}

# --- columns --------------------------------------------------------------------------

my $session = $node->session(user => 'app', dbname => 'shop', application_name => 'till');
my $begun = time;
$session->query(q{SELECT repeat('x', 10000)});
$session->query('BEGIN; SELECT 1');
sleep 1.2;
my ($ss) = socket_line($session->port)->{text};
my ($sent) = $ss =~ /\bbytes_sent:(\d+)/;
my ($received) = $ss =~ /\bbytes_received:(\d+)/;
my ($rtt) = $ss =~ m{\brtt:([\d.]+)/};
my $log = $node->log_end;
$session->vanish;
my $event = event($session->pid);
is_deeply(
	{ map { ($_ => $event->{$_}) } qw(pid cause policy datname usename application_name backend_type
		  client_addr client_port state unanswered_probes retransmits bytes_sent) },
	{
		pid => $session->pid,
		cause => 'client_vanished',
		policy => 'A "quoted" name',
		datname => 'shop',
		usename => 'app',
		application_name => 'till',
		backend_type => 'client backend',
		client_addr => '127.0.0.1',
		client_port => $session->port,
		state => 'idle in transaction',
		unanswered_probes => 0,
		retransmits => 0,
		bytes_sent => $sent,
	},
	'the event has the session, its state, and the figures that ss shows');
cmp_ok($sent, '>', 10_000, 'bytes_sent counts what the server sent');
cmp_ok(abs($event->{bytes_received} - $received), '<=', 1, 'bytes_received agrees with ss, plus 1 for the FIN');
cmp_ok(abs($event->{rtt_ms} - $rtt), '<', 5, 'rtt_ms agrees with ss');
my $age = time - $begun;
cmp_ok($event->{connected_for}, '>=', 1.2, 'connected_for is not shorter than the connection');
cmp_ok($event->{connected_for}, '<=', $age + 5, 'connected_for is not longer than the connection');
cmp_ok($event->{transaction_age}, '>=', 1.2, 'transaction_age is not shorter than the transaction');
cmp_ok($event->{transaction_age}, '<=', $event->{connected_for}, 'transaction_age is at most connected_for');
cmp_ok($event->{silent_for}, '<', 1, 'silent_for counts from the FIN');
like($event->{detail}, qr/^no error in state CLOSE_WAIT, 0 unanswered probes/, 'detail has the state of the socket');

# --- the log line ---------------------------------------------------------------------

sub lost_lines
{
	return grep { /lost connection/ } split /\n/,
	  PostgreSQL::Test::Utils::slurp_file($node->logfile, $log);
}

my $port = $session->port;
like(join("\n", lost_lines()),
	qr/^[^\n]*LOG:  lost connection to client 127\.0\.0\.1:$port: client_vanished, policy "A "quoted" name", silent for 0\.\d{3} s, transaction open for \d\.\d{3} s$/,
	'the log has one line with cause, policy, silence and transaction');

$log = $node->log_end;
my @unix = ((map { $node->unix_session(user => 'other') } 1 .. 2), $node->unix_session);
$unix[0]->vanish;
event($unix[0]->pid);
like(join("\n", lost_lines()),
	qr/^[^\n]*LOG:  lost connection to client \[local\]: client_vanished, policy none, no transaction open$/,
	'the log line for a Unix socket without policy and transaction');
$log = $node->log_end;
$unix[2]->query('SET track_activities = off');
$unix[2]->query('BEGIN');
$unix[2]->vanish;
event($unix[2]->pid);
like(join("
", lost_lines()),
	qr/^[^
]*LOG:  lost connection to client \[local\]: client_vanished, policy none$/,
	'the log line does not mention a transaction with track_activities = off');
$log = $node->log_end;
$unix[1]->terminate;
event($unix[1]->pid);
my $terminated = $node->session;
$admin->query('SELECT pg_terminate_backend(' . $terminated->pid . ')');
event($terminated->pid);
is(scalar lost_lines(), 0, 'there is no log line for a Terminate message or a terminated session');

$node->append_conf('postgresql.conf', "keepalive_guard.log_lost_connections = off\n");
$node->reload;
sleep 0.5;
my $unlogged = $node->session;
$unlogged->reset;
is(event($unlogged->pid)->{cause}, 'reset', 'log_lost_connections = off: the event is recorded');
is(scalar lost_lines(), 0, 'log_lost_connections = off: there is no log line');

# --- privileges -----------------------------------------------------------------------

sub seen_by
{
	my ($role) = @_;
	my $s = $node->unix_session(user => $role);
	my $names = $s->query('SELECT DISTINCT usename FROM keepalive_events() ORDER BY 1');
	return join ' ', map { $_->[0] } @$names;
}

is(seen_by('app'), 'app', 'a role sees its own events');
like(seen_by('member'), qr/^app/, 'a role sees the events of roles whose member it is');
unlike(seen_by('member'), qr/postgres|other/, 'a role does not see other roles\' events');
like(seen_by('monitor'), qr/app .*other postgres/, 'pg_read_all_stats sees all events');

# --- order and size -------------------------------------------------------------------

foreach my $n (1 .. 60)
{
	my $s = $node->unix_session(application_name => "n$n");
	$s->terminate;
	$node->wait_for_exit($s->pid, 20);
}
my $names = $admin->query('SELECT application_name FROM keepalive_events()');
is_deeply([ map { $_->[0] } @$names ], [ map { "n$_" } reverse 11 .. 60 ], 'keepalive_events() has the newest max_events events, newest first');

# --- no torn rows ---------------------------------------------------------------------

# Every role connects with its own name for application and database.
$node->safe_psql('postgres', "CREATE ROLE r$_ LOGIN") foreach 1 .. 3;
$node->safe_psql('postgres', "CREATE DATABASE r$_") foreach 1 .. 3;
my $script = PostgreSQL::Test::Utils::tempdir . '/script';
PostgreSQL::Test::Utils::append_to_file($script, "SELECT 1;\n");
my @load = map {
	my $role = "r$_";
	local $ENV{PGAPPNAME} = $role;
	IPC::Run::start([ 'pgbench', '-n', '-C', '-c', 2, '-T', 4, '-f', $script, '-U', $role,
			'-h', '127.0.0.1', '-p', $node->port, $role ], '<', \undef, '>', \my $out, '2>', \my $err)
} 1 .. 3;
my ($rows_read, $torn) = (0, 0);
my $until = time + 4;
while (time < $until)
{
	my ($row) = @{ $admin->query(<<'END') };
SELECT count(*), count(*) FILTER (WHERE usename <> datname OR usename <> application_name
	OR cause <> 'client_closed' OR client_addr <> '127.0.0.1' OR bytes_sent <= 0 OR pid <= 0)
FROM keepalive_events() WHERE usename LIKE 'r_'
END
	$rows_read += $row->[0];
	$torn += $row->[1];
}
$_->finish foreach @load;
cmp_ok($rows_read, '>', 500, 'keepalive_events() returns rows under load');
is($torn, 0, 'no row is a mix of two events');

done_testing();
