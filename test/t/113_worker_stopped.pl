# While the worker, or the reader of the policies, is stopped, ended or held up,
# sessions start and work as ever, and have their policies once it is back.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(policy_of kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
max_prepared_transactions = 1
restart_after_crash = on
END
$node->policy(name => 'everybody', tcp_keepalives_idle => '21s');
$node->wait_for_policies;
my $early = $node->session;
my $admin = $node->unix_session;

# The worker or the reader: its pid, 0 if it is not there.
sub process
{
	my ($name) = @_;
	return $admin->value("SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'keepalive_guard $name'");
}

# Waits until a condition holds.
sub wait_until
{
	my ($condition) = @_;
	my $until = time + 20;
	usleep(20_000) until $condition->() || time > $until;
	return $condition->();
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

# --- a worker that does not run ---------------------------------------------------

ok(wait_until(sub { !process('policy reader') }), 'the reader has left');
my $worker = process('worker');
kill 'STOP', $worker;
set_idle(22);
my $late = $node->session;
kernel_has($early, { idle => 21 }, 'while the worker is stopped, a session keeps what it has');
kernel_has($late, { idle => 21 }, 'and a new one has the policies as they were');
is($node->status($late->pid)->{policy_state}, 'pending', 'which its status tells');
is($late->value('SELECT 1'), 1, 'it works');
kill 'CONT', $worker;
reaches($early, 22, 'once the worker is back, the old session has the change');
reaches($late, 22, 'and so has the one that started meanwhile');

# --- a worker that is ended -------------------------------------------------------

$admin->query("SELECT pg_terminate_backend($worker)");
ok(wait_until(sub { !-d "/proc/$worker" }), 'the worker is ended');
set_idle(23);
$late = $node->session;
reaches($late, 23, 'a session that starts while it is gone has its policy once it is back');
reaches($early, 23, 'the old one too');
my $second = process('worker');
isnt($second, $worker, 'it is another worker');
foreach (1 .. 2)
{
	$admin->query("SELECT pg_terminate_backend(@{[process('worker')]})");
	ok(wait_until(sub { my $pid = process('worker'); $pid && $pid != $second }), 'and again another');
	$second = process('worker');
}
set_idle(24);
reaches($early, 24, 'the last of them is as good as the first');

# --- a reader that is ended or held up -------------------------------------------

my $reader = process('policy reader');
cmp_ok($reader, '>', 0, 'the reader waits for more');
$admin->query("SELECT pg_terminate_backend($reader)");
set_idle(25);
reaches($early, 25, 'another takes its place');

my $locker = $node->unix_session;
$locker->query('BEGIN; LOCK TABLE keepalive_policy');
$admin->query('CREATE DATABASE unrelated'); # to have the table read
ok(wait_until(sub {
		$reader = $admin->value("SELECT coalesce(max(pid), 0) FROM pg_locks WHERE NOT granted AND relation = 'keepalive_policy'::regclass");
	}), 'a lock on the table holds up the reader');
$late = $node->session;
kernel_has($late, { idle => 25 }, 'but no session');
$admin->query("SELECT pg_terminate_backend($reader)");
ok(wait_until(sub { !-d "/proc/$reader" }), 'it can be ended in its wait');
$locker->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '26s'; COMMIT");
reaches($late, 26, 'after the lock all is read');

# --- sessions from before the first reading -----------------------------------------

# The lock of a prepared transaction outlives the restart.
$locker->query("BEGIN; LOCK TABLE keepalive_policy; PREPARE TRANSACTION 'lock'");
$node->restart;
$admin = $node->unix_session;
my $first = $node->session;
kernel_has($first, { idle => 7200 }, 'before the policies have ever been read there is none');
is(policy_of($node, $first), undef, 'as its status tells');
$admin->query("COMMIT PREPARED 'lock'");
reaches($first, 26, 'once they are read the session has its own');
is($node->status($first->pid)->{policy_state}, 'applied', 'as its status tells');

# --- a crash ----------------------------------------------------------------------

$worker = process('worker');
kill 'KILL', $first->pid;
ok(wait_until(sub { !-d "/proc/$worker" }), 'a crash ends the worker too');
ok(wait_until(sub { $admin = eval { $node->unix_session } }), 'the server is up again');
reaches($node->session, 26, 'and a new session has its policy');
set_idle(27);
reaches($node->session, 27, 'changes are heard');
my $third = process('worker');
kill 'KILL', $third;
ok(wait_until(sub { !-d "/proc/$third" }), 'the worker itself crashes');
ok(wait_until(sub { $admin = eval { $node->unix_session } }), 'the server is up again');
reaches($node->session, 27, 'and a new session has its policy');

done_testing();
