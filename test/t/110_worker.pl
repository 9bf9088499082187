# The worker is running under its own backend_type, and sleeps while nothing changes.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;
use Time::HiRes 'sleep';

my $node = KeepaliveGuard::Cluster->start_new('primary');

is($node->safe_psql('postgres', <<'END'), 'keepalive_guard worker|Extension', 'pg_stat_activity shows the worker by its backend_type, and that it waits');
SELECT backend_type, wait_event_type FROM pg_stat_activity WHERE backend_type ~ 'guard worker'
END

sub processes
{
	my ($type) = @_;
	return $node->safe_psql('postgres',
		"SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = '$type'");
}
my $worker = processes('keepalive_guard worker');

$node->policy(name => 'everybody', tcp_keepalives_idle => '60s');
my $session = $node->session;
ok(defined wait_for_kernel($session, { idle => 60 }, 10), 'a new policy is in force');

# The policy reader stays for a second, to read further changes.
like(processes('keepalive_guard policy reader'), qr/^\d+$/, 'pg_stat_activity shows the policy reader by its backend_type');
ok($node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ 'policy reader'"),
	'the policy reader exits when it has nothing to do');

# The number of times that a process went to sleep.
sub sleeps
{
	my ($pid) = @_;
	open my $status, '<', "/proc/$pid/status" or die "/proc/$pid/status: $!";
	my ($count) = map { /^voluntary_ctxt_switches:\s+(\d+)/ } <$status>;
	return $count;
}

sleep 0.2; # the worker is told that the reader has exited
my $before = sleeps($worker);
foreach my $i (1 .. 10)
{
	my $other = $node->session;
	kernel_has($other, { idle => 60 }, "session $i has its policy") if $i == 1 || $i == 10;
	$other->query('CREATE TEMP TABLE t (); SET tcp_keepalives_idle = 7; SELECT count(*) FROM pg_class');
	$other->terminate;
	sleep 0.25;
}
is(sleeps($worker) - $before, 0, 'the worker does not wake while sessions start, work and end');

$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '61s'");
ok(defined wait_for_kernel($session, { idle => 61 }, 10), 'a changed policy is in force');
cmp_ok(sleeps($worker), '>', $before, 'a change of policy wakes the worker');

# --- the end of the processes -----------------------------------------------------------

$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
ok($node->poll_query_until('postgres',
		"SELECT pid <> $worker FROM pg_stat_activity WHERE backend_type = 'keepalive_guard worker'"),
	'a terminated worker is started again');

# An edit, so that the policy reader runs.
$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '62s'");
ok(defined wait_for_kernel($session, { idle => 62 }, 10), 'the new worker distributes policies');
isnt(processes('keepalive_guard policy reader'), '', 'the policy reader runs');
$session->terminate;
$node->stop('fast');
is($node->log_count(qr/FATAL|ERROR|PANIC/), 0, 'the server log of a fast shutdown has no errors');

done_testing();
