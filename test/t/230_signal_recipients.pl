# The worker signals only sessions that have installed the signal's handler.  The signal is
# a real-time signal: it ends each process that does not catch it.
use strict;
use warnings;

use IO::Socket::IP ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(kernel_values seconds_until);
use KeepaliveGuard::KernelSockets 'client_socket';
use KeepaliveGuard::Signals qw(caught_signals fork_with_pid);
use Test::More;
use Time::HiRes 'sleep';

my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 'logical', conf => <<'END');
autovacuum_naptime = 1s
autovacuum_max_workers = 3
max_worker_processes = 16
END
my $admin = $node->session;
my $edits = 0;

# Commits many changes, each of which reaches every session.
sub edit_policies
{
	my ($times) = @_;
	foreach (1 .. $times)
	{
		$edits++;
		my $idle = $edits % 30000 + 1;
		$admin->query(
			$edits % 100
			? "UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s'"
			: 'TRUNCATE keepalive_policy; INSERT INTO keepalive_policy (name, tcp_keepalives_idle)'
			  . " VALUES ('all', '$idle s')");
	}
	return;
}

sub applied
{
	my ($session) = @_;
	my $idle = $edits % 30000 + 1;
	return defined seconds_until(2, sub { kernel_values($session) eq "$idle/75/9/0" });
}

# { pid => "backend_type, backend_start" } of the server's processes.
sub processes
{
	my ($where) = @_;
	return map { $_->[0] => $_->[1] } @{ $admin->query(
			"SELECT pid, backend_type || ', ' || backend_start FROM pg_stat_activity WHERE $where") };
}

$node->policy(name => 'all', tcp_keepalives_idle => '60s');
my ($postmaster) = $node->safe_psql('postgres', q{SELECT pg_read_file('postmaster.pid')}) =~ /^(\d+)/;

# --- which processes catch the signal --------------------------------------------------

my $client = $node->session;
my $walsender = $node->session(replication => 'true');
like(caught_signals($_->pid), qr/^\d+$/, 'a session catches one real-time signal') foreach $client, $walsender;
my %others = processes(q{backend_type NOT IN ('client backend', 'walsender')});
cmp_ok(scalar keys %others, '>=', 5, 'the server has other processes') or diag explain \%others;
is_deeply([ map { "$others{$_}: " . caught_signals($_) } grep { caught_signals($_) } keys %others ], [],
	'no other process catches a real-time signal');
is(caught_signals($postmaster), '', 'the postmaster catches no real-time signal');

# --- processes that start and end -------------------------------------------------------

$admin->query('CREATE TABLE big AS SELECT i FROM generate_series(1, 50000) i');
$admin->query("CREATE TABLE churned_$_ (i int) WITH (autovacuum_vacuum_threshold = 0,"
	  . ' autovacuum_vacuum_scale_factor = 0)')
  foreach 1 .. 3;
my $parallel = $node->session;
$parallel->query('SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;'
	  . 'SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2');
my $vacuumed =
  q{SELECT sum(autovacuum_count) FROM pg_stat_user_tables WHERE relname LIKE 'churned%'};
my $launched = 0;
my (%right, @short);
my $before = $admin->value($vacuumed);
foreach my $round (1 .. 40)
{
	$admin->query("INSERT INTO churned_$_ SELECT generate_series(1, 100); DELETE FROM churned_$_") foreach 1 .. 3;
	$parallel->send('EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT count(*) FROM big;'
		  . 'SELECT count(*) FROM big');
	my $short = $node->session;
	edit_policies(50);
	$round % 2 ? $short->terminate : $short->vanish;
	push @short, $short->pid;
	my @lines = map { $_->[0] } @{ $parallel->result->{rows} };
	$launched += $_ foreach map { /Workers Launched: (\d)/ } @lines;
	$right{ $lines[-1] }++;
}
ok(!(grep { !defined $node->wait_for_exit($_, 10) } @short), 'sessions that ended meanwhile exit');
is_deeply(\%right, { 50000 => 40 }, 'parallel queries give their results');
cmp_ok($launched, '>=', 20, "parallel workers were launched ($launched)");
ok(defined seconds_until(30, sub { $admin->value($vacuumed) > $before }), 'autovacuum workers processed the tables');
ok(applied($client), "a session has the last of $edits changes");
my %later = processes(q{backend_type NOT IN ('client backend', 'walsender')});
my $may_go = qr/autovacuum worker|parallel|reader/;
is_deeply([ grep { !/$may_go/ } map { $others{$_} } grep { !$later{$_} } keys %others ],
	[], 'no process has ended');

# --- a backend that is starting -------------------------------------------------------------

# It waits for the startup packet.
my $silent = IO::Socket::IP->new(PeerHost => '127.0.0.1', PeerPort => $node->port) or die $@;
my $starting;
seconds_until(5,
	sub { ($starting) = grep { client_socket($_, $silent->sockport) } split ' ', `pgrep -P $postmaster` });
sleep 0.1;
is(caught_signals($starting), '', 'a backend that waits for the startup packet catches no real-time signal');
edit_policies(50);
ok(-d "/proc/$starting", 'a backend that waits for the startup packet is not signalled');
my $body = pack('N', 3 << 16) . "user\0postgres\0database\0postgres\0\0";
syswrite $silent, pack('N', 4 + length $body) . $body;
ok(defined seconds_until(5,
		sub { $admin->value("SELECT count(*) FROM keepalive_status() WHERE pid = $starting AND policies = '{all}'") }),
	'a backend gets the last policy once it has the startup packet');
close $silent;
ok(defined $node->wait_for_exit($starting, 5), 'it exits when its client closes');

# --- a pid that is used again ----------------------------------------------------------------

my $gone = $node->session;
my $sessions = 'SELECT sessions FROM keepalive_apply()';
my $count = $admin->value($sessions);
my $pid = $gone->pid;
$gone->terminate;
ok(defined $node->wait_for_exit($pid, 5), 'a session\'s backend exits');
is($admin->value($sessions), $count - 1, 'keepalive_apply() no longer counts the session that ended');

my $is_taken = fork_with_pid($pid, 200, sub { exec 'sleep', 'infinity' });
SKIP:
{
	skip 'the pid could not be taken', 1 unless $is_taken;
	edit_policies(100);
	$admin->query($sessions);
	is(waitpid($pid, 1), 0, 'a process with the pid of an ended session is not signalled'); # WNOHANG
	kill 'KILL', $pid;
	waitpid $pid, 0;
}

ok(applied($client), 'a session has the last change');
is($walsender->value('SHOW tcp_keepalives_idle'), $edits % 30000 + 1, 'a walsender has the last change');
is($node->log_count(qr/PANIC|was terminated by signal|TRAP|exited with exit code [^01]/), 0,
	'the server log has no crash');

done_testing();
