# The worker is running under its own backend_type, and sleeps while nothing changes.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has seconds_until wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;
use Time::HiRes 'sleep';

my $node = KeepaliveGuard::Cluster->start_new('primary');

ok($node->poll_query_until('postgres', <<'END', 'keepalive_guard worker|Extension'), 'pg_stat_activity shows the worker by its backend_type, and that it waits');
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

my $admin = $node->unix_session;
$admin->query('BEGIN; LOCK TABLE keepalive_policy');
my $other = $node->unix_session;
$other->send(q{SELECT * FROM keepalive_apply('60s')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'keepalive_guard policy reader'}),
	'pg_stat_activity shows the policy reader by its backend_type');
$admin->query('COMMIT');
$other->result;
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

# The worker is told that the reader has exited.
my $before;
ok(defined seconds_until(20, sub { $before = sleeps($worker); sleep 1; sleeps($worker) == $before }), 'then the worker sleeps');
foreach my $i (1 .. 10)
{
	$other = $node->session;
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

# Edits, so that the policy reader runs.  It stays for a second.
$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '62s'");
ok(defined wait_for_kernel($session, { idle => 62 }, 10), 'the new worker distributes policies');
$session->terminate;
ok(defined seconds_until(20, sub {
		$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '63s'});
		$admin->value(<<'END') eq 't';
SELECT count(*) FILTER (WHERE backend_type = 'keepalive_guard policy reader') = 1
	AND count(*) FILTER (WHERE backend_type = 'client backend') = 1 FROM pg_stat_activity
END
	}), 'the policy reader runs, and no session but one');
$admin->terminate;
$node->wait_for_exit($admin->pid, 20);
$node->stop('fast');
is($node->log_count(qr/FATAL|ERROR|PANIC/), 0, 'the server log of a fast shutdown has no errors');
is($node->log_count(qr/not closed/), 0, 'no relation was left open');

done_testing();
