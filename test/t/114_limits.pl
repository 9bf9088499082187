# With too many policies, or no background worker slot for the policy reader, the present
# policies stay in force and the log says why.  The change is applied once there is room.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has seconds_until wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;
use Time::HiRes qw(sleep usleep);

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
keepalive_guard.max_policies = 3
max_worker_processes = 2
max_logical_replication_workers = 0
END
my $admin = $node->unix_session;
my $session = $node->session;

sub reaches
{
	my ($idle, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(defined wait_for_kernel($session, { idle => $idle }, 10), $name);
}

sub logs
{
	my ($pattern, $from, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $left = 500;
	usleep(20_000) until $node->log_count($pattern, $from) || !$left--;
	return is($node->log_count($pattern, $from), 1, $name);
}

# --- keepalive_guard.max_policies -------------------------------------------------

my $insert = 'INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle) ';
$admin->query($insert . "SELECT 'p' || i, -i, (20 + i) * interval '1 s' FROM generate_series(1, 3) i");
reaches(23, 'as many policies as max_policies are in force');

my $log = $node->log_end;
my $too_many = qr/LOG:  keepalive_guard: 4 keepalive policies are more than keepalive_guard.max_policies \(3\)/;
$admin->query($insert . "VALUES ('p4', -4, '24 s')");
logs($too_many, $log, 'the worker logs that there are more policies than max_policies');
kernel_has($session, { idle => 23 }, 'a session keeps its settings when there are too many policies');
kernel_has($node->session, { idle => 23 }, 'a new session gets the previous policies when there are too many');
ok(defined seconds_until(10, sub { $node->status($session->pid)->{policy_state} eq 'applied' }),
	'policy_state is applied when there are too many policies');

$log = $node->log_end;
$admin->query("UPDATE keepalive_policy SET enabled = false WHERE name = 'p4'");
logs($too_many, $log, 'a disabled policy counts for max_policies, which is logged again');
$admin->query("DELETE FROM keepalive_policy WHERE priority < -2");
reaches(22, 'the policies are in force once there are few enough');

# --- max_worker_processes ---------------------------------------------------------

my $no_worker = qr/LOG:  keepalive_guard: could not start the policy reader, trying again/;
my $hog = $node->unix_session;
$hog->query(sprintf 'SET %s = on',
	$hog->value('SHOW server_version_num') < 160000 ? 'force_parallel_mode' : 'debug_parallel_query');
my $no_reader = "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ 'policy reader'";

# Starts a parallel worker in the only background worker slot that is left.
sub take_last_slot
{
	$node->poll_query_until('postgres', $no_reader) or die "the reader stays\n";
	# The postmaster may still have to notice that the reader has exited.
	foreach (1 .. 5)
	{
		$hog->send('SELECT pg_sleep(60)');
		return if defined seconds_until(3, sub { $admin->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'") });
		$admin->query("SELECT pg_cancel_backend(@{[$hog->pid]})");
		$hog->result;
	}
	die "no parallel worker\n";
}

sub release_slot
{
	$admin->query("SELECT pg_cancel_backend(@{[$hog->pid]})");
	is($hog->result->{error}{sqlstate}, '57014', 'the parallel worker\'s query is cancelled');
	return;
}

foreach my $idle (31, 32)
{
	take_last_slot();
	$log = $node->log_end;
	$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s'");
	logs($no_worker, $log, "the worker logs that it cannot start the policy reader ($idle s)");
	sleep 1.2; # time for two more attempts
	is($node->log_count($no_worker, $log), 1, "the worker logs that only once ($idle s)");
	my $other = $node->session;
	kernel_has($other, { idle => $idle == 31 ? 22 : 31 }, "a session starts with the previous policies ($idle s)");
	is($node->status($other->pid)->{policy_state}, 'pending', "policy_state is pending without a policy reader ($idle s)");
	release_slot();
	reaches($idle, "the change is in force once there is a slot ($idle s)");
}

# --- never a slot -----------------------------------------------------------------

$node->append_conf('postgresql.conf', 'max_worker_processes = 1');
$log = $node->log_end;
$node->restart;
$session = $node->session;
logs($no_worker, $log, 'the worker logs that max_worker_processes leaves no slot for the policy reader');
kernel_has($session, { idle => 7200 }, 'sessions have no policies without a policy reader');
is($session->value('SELECT 1'), 1, 'sessions work without a policy reader');

done_testing();
