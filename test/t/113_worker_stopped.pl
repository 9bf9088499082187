# While the worker or the policy reader is stopped, terminated or blocked, sessions start
# and work, and get their policies once it runs again.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(policy_of kernel_has seconds_until wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
max_prepared_transactions = 1
restart_after_crash = on
END
$node->policy(name => 'everybody', tcp_keepalives_idle => '21s');
$node->wait_for_policies;
my $early = $node->session;
my $admin = $node->unix_session;

# The pid of the worker or the policy reader, 0 if it is not running.
sub process
{
	my ($name) = @_;
	return $admin->value("SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'keepalive_guard $name'");
}

# Waits until a condition holds.
sub wait_until
{
	my ($condition) = @_;
	return defined seconds_until(20, $condition);
}

sub set_idle
{
	my ($seconds) = @_;
	$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '$seconds s'");
	return;
}

sub reaches
{
	my ($session, $idle, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $seconds = wait_for_kernel($session, { idle => $idle }, 20);
	ok(defined $seconds, $name);
	return $seconds;
}

# --- a stopped worker --------------------------------------------------------------

ok(wait_until(sub { !process('policy reader') }), 'the policy reader has exited');
my $worker = process('worker');
kill 'STOP', $worker;
set_idle(22);
my $late = $node->session;
kernel_has($early, { idle => 21 }, 'a session keeps its settings while the worker is stopped');
kernel_has($late, { idle => 21 }, 'a new session gets the old policies while the worker is stopped');
is($node->status($late->pid)->{policy_state}, 'pending', 'policy_state of the new session is pending while the worker is stopped');
is($late->value('SELECT 1'), 1, 'the new session works while the worker is stopped');
kill 'CONT', $worker;
reaches($early, 22, 'an old session gets the change once the worker runs again');
reaches($late, 22, 'a session that started meanwhile gets the change once the worker runs again');

# --- a terminated worker -----------------------------------------------------------

$admin->query("SELECT pg_terminate_backend($worker)");
ok(wait_until(sub { !-d "/proc/$worker" }), 'pg_terminate_backend() ends the worker');
set_idle(23);
$late = $node->session;
reaches($late, 23, 'a session that starts without a worker gets the change from the next worker');
reaches($early, 23, 'an old session gets the change from the next worker');
my $second = process('worker');
isnt($second, $worker, 'the postmaster starts another worker');
foreach (1 .. 2)
{
	$admin->query("SELECT pg_terminate_backend(@{[process('worker')]})");
	ok(wait_until(sub { my $pid = process('worker'); $pid && $pid != $second }), 'the postmaster starts another worker after each termination');
	$second = process('worker');
}
set_idle(24);
reaches($early, 24, 'the last of these workers applies a change');

# --- a terminated or blocked policy reader ------------------------------------------

# It stays for a second after each change.
my $reader;
ok(wait_until(sub { set_idle(24); $reader = process('policy reader') }), 'the policy reader waits for further changes');
$admin->query("SELECT pg_terminate_backend($reader)");
set_idle(25);
reaches($early, 25, 'another policy reader takes over after pg_terminate_backend()');

my $locker = $node->unix_session;
$locker->query('BEGIN; LOCK TABLE keepalive_policy');
$admin->query('CREATE DATABASE unrelated'); # makes the reader read the table
ok(wait_until(sub {
		$reader = $admin->value("SELECT coalesce(max(pid), 0) FROM pg_locks WHERE NOT granted AND relation = 'keepalive_policy'::regclass");
	}), 'a lock on the table blocks the policy reader');
$late = $node->session;
kernel_has($late, { idle => 25 }, 'a session starts with its policy while the policy reader is blocked');
$admin->query("SELECT pg_terminate_backend($reader)");
ok(wait_until(sub { !-d "/proc/$reader" }), 'pg_terminate_backend() ends a blocked policy reader');
$locker->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '26s'; COMMIT");
reaches($late, 26, 'a session gets the change once the table is unlocked');

# --- sessions from before the first reading -----------------------------------------

# The lock of a prepared transaction outlives the restart.
$locker->query("BEGIN; LOCK TABLE keepalive_policy; PREPARE TRANSACTION 'lock'");
$node->restart;
$admin = $node->unix_session;
my $first = $node->session;
kernel_has($first, { idle => 7200 }, 'a session has no policy before the first reading');
is(policy_of($node, $first), undef, 'keepalive_status() shows no policy before the first reading');
$admin->query("COMMIT PREPARED 'lock'");
reaches($first, 26, 'a session gets its policy after the first reading');
$node->wait_for_policies;
is($node->status($first->pid)->{policy_state}, 'applied', 'policy_state is applied after the first reading');

# --- a crash ----------------------------------------------------------------------

$worker = process('worker');
kill 'KILL', $first->pid;
ok(wait_until(sub { !-d "/proc/$worker" }), 'a crash of a session ends the worker');
ok(wait_until(sub { $admin = eval { $node->unix_session } }), 'the server accepts connections after the crash of a session');
reaches($node->session, 26, 'a new session has its policy after the crash of a session');
set_idle(27);
reaches($node->session, 27, 'a new session gets a change after the crash of a session');
my $third = process('worker');
kill 'KILL', $third;
ok(wait_until(sub { !-d "/proc/$third" }), 'the worker is killed');
ok(wait_until(sub { $admin = eval { $node->unix_session } }), 'the server accepts connections after the crash of the worker');
reaches($node->session, 27, 'a new session has its policy after the crash of the worker');

done_testing();
