# keepalive_events(): its columns compared with the kernel, its order and size, its
# privileges, and the log line for each lost connection.
use strict;
use warnings;

use IO::Socket::INET ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::ExpectedEvents;
use KeepaliveGuard::KernelSockets 'socket_line';
use PostgreSQL::Test::Utils;
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;
use Time::HiRes qw(sleep time);

my $node = KeepaliveGuard::Cluster->start_new('primary',
	conf => "autovacuum = off\nrestart_after_crash = on\nkeepalive_guard.max_events = 50\n");
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
$node->policy(name => 'baseline', role => '+app', priority => 1000, tcp_keepalives_interval => '10s',
	tcp_keepalives_idle => '1 min');
$node->wait_for_policies;
my $admin = $node->unix_session;

# Waits until a backend has exited: the line in the server log comes after the event.
# Returns the event.
sub event
{
	my ($pid) = @_;
	$node->wait_for_exit($pid, 20);
	return KeepaliveGuard::ExpectedEvents::events_of($node, $pid)->{$pid} // die "no event\n";
}

# --- columns --------------------------------------------------------------------------

my $session = $node->session(user => 'app', dbname => 'shop', application_name => 'till');
my $begun = time;
$session->query(q{SELECT repeat('x', 10000)});
$session->query('BEGIN; SELECT 1');
sleep 3.2;
my ($ss) = socket_line($session->port)->{text};
my ($sent) = $ss =~ /\bbytes_sent:(\d+)/;
my ($received) = $ss =~ /\bbytes_received:(\d+)/;
my ($rtt) = $ss =~ m{\brtt:([\d.]+)/};
my $log = $node->log_end;
$session->vanish;
my $event = event($session->pid);
is_deeply(
	{ map { ($_ => $event->{$_}) } qw(pid cause policies datname usename application_name backend_type
		  client_addr client_port state unanswered_probes retransmits bytes_sent) },
	{
		pid => $session->pid,
		cause => 'client_vanished',
		policies => [ 'A "quoted" name', 'baseline' ],
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
cmp_ok($event->{connected_for}, '>=', 3.2, 'connected_for is not shorter than the connection');
cmp_ok($event->{connected_for}, '<=', $age + 5, 'connected_for is not longer than the connection');
cmp_ok($event->{transaction_age}, '>=', 3.2, 'transaction_age is not shorter than the transaction');
cmp_ok($event->{transaction_age}, '<=', $event->{connected_for}, 'transaction_age is at most connected_for');
cmp_ok($event->{silent_for}, '<', 3, 'silent_for counts from the FIN');
like($event->{detail}, qr/^no error in state CLOSE_WAIT, 0 unanswered probes/, 'detail has the state of the socket');

# --- the log line ---------------------------------------------------------------------

sub lost_lines
{
	return grep { /lost connection/ } split /\n/,
	  PostgreSQL::Test::Utils::slurp_file($node->logfile, $log);
}

my $port = $session->port;
like(join("\n", lost_lines()),
	qr/^[^\n]*LOG:  lost connection to client 127\.0\.0\.1:$port: client_vanished, user="app" database="shop" application="till" policies="A \\"quoted\\" name","baseline" state="idle in transaction" transaction=\d\.\d{3}s silent_for=[0-2]\.\d{3}s detail="no error in state CLOSE_WAIT, /,
	'the log has one line with the session, its state and the evidence');

$log = $node->log_end;
my @unix = ((map { $node->unix_session(user => 'other') } 1 .. 2), $node->unix_session);
$unix[0]->vanish;
event($unix[0]->pid);
like(join("\n", lost_lines()),
	qr/^[^\n]*LOG:  lost connection to client \[local\]: client_vanished, user="other" database="postgres" application="" policies=none state="idle" transaction=none detail="/,
	'the log line for a Unix socket without policy and transaction');
$log = $node->log_end;
$unix[2]->query('SET track_activities = off');
$unix[2]->query('BEGIN');
$unix[2]->vanish;
event($unix[2]->pid);
like(join("
", lost_lines()),
	qr/^[^
]*LOG:  lost connection to client \[local\]: client_vanished, user="postgres" database="postgres" application="" policies=none state="disabled" detail="/,
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

# Lost connections, and then more orderly ends and failed logins than there is room for.
foreach my $n (1 .. 60)
{
	my $s = $node->unix_session(application_name => "l$n");
	$s->vanish;
	$node->wait_for_exit($s->pid, 20);
}
foreach my $n (1 .. 60)
{
	my $s = $node->unix_session(application_name => "n$n");
	$s->terminate;
	$node->wait_for_exit($s->pid, 20);
	eval { $node->session(user => 'stranger') };
}
sleep 0.3;

sub names
{
	my ($condition) = @_;
	my $rows = $admin->query("SELECT application_name FROM keepalive_events() WHERE $condition");
	return [ map { $_->[0] } @$rows ];
}
is_deeply(names(q{cause = 'client_vanished'}), [ map { "l$_" } reverse 11 .. 60 ],
	'keepalive_events() has the newest max_events lost connections, newest first, after as many other ends');
is(scalar @{ names(q{cause <> 'client_vanished'}) }, 50, 'keepalive_events() has max_events other ends');
is($admin->value(<<'END'), 0, 'all events are in one order');
SELECT count(*) FROM (SELECT ended_at > lag(ended_at) OVER () AS wrong FROM keepalive_events()) AS e WHERE wrong
END

# --- the address of a connection that is reset at once --------------------------------

my $postmaster = (split /\n/, PostgreSQL::Test::Utils::slurp_file($node->data_dir . '/postmaster.pid'))[0];
kill 'STOP', $postmaster;
my $socket = IO::Socket::INET->new(PeerHost => '127.0.0.1', PeerPort => $node->port) or die $!;
my $early_port = $socket->sockport;
my $startup = pack('N', 3 << 16) . "user\0app\0database\0postgres\0\0";
syswrite $socket, pack('N', 4 + length $startup) . $startup;
setsockopt $socket, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);
close $socket;
kill 'CONT', $postmaster;
my $recorded = q{SELECT cause, host(client_addr), client_port FROM keepalive_events() WHERE usename = 'app' LIMIT 1};
my $row;
foreach (1 .. 100)
{
	$row = $admin->query($recorded)->[0];
	last if ($row->[2] // '') eq $early_port;
	sleep 0.05;
}
is_deeply($row, [ 'reset', '127.0.0.1', $early_port ], 'a client that resets at once has its address in the event');

# --- a restart ------------------------------------------------------------------------

$admin->terminate;
my $file = $node->data_dir . '/pg_stat/keepalive_guard.events';
my $saved = q{SELECT e::text FROM keepalive_events() e WHERE cause = 'client_vanished' OR application_name ~ '^n'};

# The lost connections, and the older ones of the others, before and after a restart.
sub before_and_after
{
	my ($between) = @_;
	$node->wait_for_exit($admin->pid, 20);
	$admin = $node->unix_session;
	my @before = map { $_->[0] } @{ $admin->query($saved) };
	$admin->terminate;
	$node->wait_for_exit($admin->pid, 20);
	$node->stop('fast');
	$between->();
	$log = $node->log_end;
	$node->start;
	$admin = $node->unix_session;
	my @after = map { $_->[0] } @{ $admin->query($saved) };
	$admin->terminate;
	return (\@before, \@after);
}

my ($before, $after) = before_and_after(sub { ok(-e $file, 'a clean shutdown saves the events') });
cmp_ok(scalar @$before, '>', 60, 'events before a restart');
sub lost { return grep { /client_vanished/ } @_ }
sub orderly { return grep { !/client_vanished/ } @_ }
is_deeply([ lost(@$after) ], [ lost(@$before) ], 'lost connections after a restart are those from before');
# The sessions that ended meanwhile have pushed out some of these, the oldest.
my @orderly = orderly(@$after);
is_deeply(\@orderly, [ (orderly(@$before))[ 0 .. $#orderly ] ], 'so are the other events');
cmp_ok(scalar @$after, '>', @$before - 10, 'all of them');
ok(!-e $file, 'a file that was loaded is removed');

my %damage = (
	'truncated' => sub { return substr $_[0], 0, -10 },
	'longer' => sub { return "$_[0]x" },
	'empty' => sub { return '' },
	'of an older format' => sub { my ($b) = @_; substr($b, 0, 1) ^= "\1"; return $b },
	'changed in one bit' => sub { my ($b) = @_; substr($b, 5000, 1) ^= "\1"; return $b });
foreach my $damage (sort keys %damage)
{
	$node->unix_session->vanish foreach 1 .. 10;
	sleep 0.3;
	my (undef, $rows) = before_and_after(
		sub {
			my $bytes = $damage{$damage}->(PostgreSQL::Test::Utils::slurp_file($file));
			open my $out, '>:raw', $file or die $!;
			print $out $bytes;
			close $out;
		});
	is(scalar @$rows, 0, "a file that is $damage is ignored");
	is($node->log_count(qr/LOG:  ignoring invalid data in file "pg_stat\/keepalive_guard.events"/, $log),
		1, "a file that is $damage is logged once");
}

$node->unix_session->vanish foreach 1 .. 10;
sleep 0.3;
my $victim = $node->unix_session;
kill 'KILL', $victim->pid;
$node->wait_for_exit($victim->pid, 20);
sleep 0.5;
$node->poll_query_until('postgres', 'SELECT true');
$admin = $node->unix_session;
is_deeply($admin->query($saved), [], 'after a crash there are no events');

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
