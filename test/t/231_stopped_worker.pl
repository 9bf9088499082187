# The worker is stopped between its look at a session's slot and the update signal.
# Meanwhile the session ends, and another process takes over its pid: it must get no signal.
# And updates that the kernel has no room for arrive all the same.
use strict;
use warnings;

use Errno 'ENOENT';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Seccomp 'refuse_socket_option';
use KeepaliveGuard::Settings qw(kernel_has seconds_until wait_for_kernel);
use KeepaliveGuard::Signals qw(caught_signals fork_with_pid pending_signals session_with_pid use_up_descriptors);
use KeepaliveGuard::SlotMemory;
use KeepaliveGuard::Tracer;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_KEEPIDLE);
use Test::More;

# The same on every architecture.
use constant { SYS_pidfd_open => 434, SYS_pidfd_send_signal => 424 };

use constant INSTRUCTIONS => 80; # from a system call to what is done after an error

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
max_connections = 8
superuser_reserved_connections = 0
max_wal_senders = 0
autovacuum = off
END
my $admin = $node->unix_session;
$admin->query('CREATE ROLE app SUPERUSER LOGIN');
$node->policy(name => 'app', role => 'app', tcp_keepalives_idle => '100s');
$node->wait_for_policies;
my $worker = $node->worker_pid;
my $idle = 100;

# Changes the policy.  No other session than those of app has another value then.
sub edit
{
	$idle++;
	$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s'");
	return;
}

sub wait_for_policies
{
	is($admin->value(q{SELECT pending FROM keepalive_apply('30 s')}), 0, 'all sessions have their policy');
	return;
}

# A new session with its policy, and no other one that is still to get it.
sub app_session
{
	my $new = $node->session(user => 'app');
	wait_for_policies();
	return $new;
}

my $first = app_session();
my $signal = caught_signals($first->pid);
$first->terminate;
$node->wait_for_exit($first->pid, 10);

# Conditions for the worker's system calls.  The last one holds for each of those that send a
# signal by a pid, too.
sub opens
{
	my ($pid) = @_;
	return sub { my ($number, @arguments) = @_; $number == SYS_pidfd_open && $arguments[0] == $pid };
}

sub sends
{
	my ($pid) = @_;
	return sub {
		my ($number, @arguments) = @_;
		return $number == SYS_pidfd_send_signal && $arguments[1] == $signal
		  || $arguments[0] == $pid && grep { $_ == $signal } @arguments[ 1, 2 ];
	};
}

# Edits the policy, and stops the worker when it is about to do this for the session.
sub stop_worker
{
	my ($session, $condition) = @_;
	my $tracer = KeepaliveGuard::Tracer->new($worker);
	edit();
	$tracer->stop_before($condition->($session->pid));
	return $tracer;
}

# --- another process has the pid ---------------------------------------------------------

foreach my $case (
	[ \&opens, 'after its look at the slot' ],
	[ \&sends, 'about to send the signal' ])
{
	my ($condition, $where) = @$case;
	my $session = app_session();
	my $pid = $session->pid;
	my $tracer = stop_worker($session, $condition);
	$session->vanish;
	ok(defined $node->wait_for_exit($pid, 10), "the worker is stopped, $where: the session exits");

	# Its mask keeps a signal pending.
	my $took = fork_with_pid(
		$pid, 200,
		sub {
			POSIX::sigprocmask(POSIX::SIG_BLOCK, POSIX::SigSet->new($signal)) or die "sigprocmask: $!";
			exec 'sleep', 'infinity';
		});
	ok($took, 'a process takes over its pid');
	seconds_until(10, sub { readlink("/proc/$pid/exe") =~ /sleep/ });
	$tracer->detach;
	wait_for_policies();
	is(pending_signals($pid), '', "it gets no signal from the worker that was stopped, $where");
	kill $signal, $pid;
	is(pending_signals($pid), $signal, 'it would be seen');
	kill 'KILL', $pid;
	waitpid $pid, 0;
}

# --- another session has the pid and the slot ------------------------------------------------

{
	my $session = app_session();
	my $pid = $session->pid;
	my $address = KeepaliveGuard::SlotMemory->new($pid, 'app')->address;
	# All other slots are in use.
	my @others;
	eval { push @others, $node->session while 1 };
	like($@, qr/^FATAL: 53300/, 'all connections are in use');
	my $tracer = stop_worker($session, \&opens);
	$session->vanish;
	ok(defined $node->wait_for_exit($pid, 10), 'the worker is stopped, after its look at the slot: the session exits');
	my $new = session_with_pid($node, $pid, 200, sub { $node->session(user => 'app') });
	is($new->pid, $pid, 'a new session has its pid');
	my $slot = KeepaliveGuard::SlotMemory->new($pid, 'app');
	is($slot->address, $address, 'the new session has its slot');
	kernel_has($new, { idle => $idle }, 'the new session has the changed policy');
	my $before = $slot->sequence;
	$tracer->detach;
	wait_for_policies();
	is($slot->sequence, $before, 'the new session gets no signal that was meant for the other one');
	edit();
	ok(defined wait_for_kernel($new, { idle => $idle }, 10), 'it gets the next change');
	cmp_ok($slot->sequence, '>', $before, 'a signal would be seen');
	$_->terminate foreach @others, $new;
	$node->wait_for_exit($_->pid, 10) foreach @others, $new;
}

# --- the kernel has no room --------------------------------------------------------------

# No descriptor for the worker.
{
	my $session = app_session();
	my $log = $node->log_end;
	my $tracer = stop_worker($session, \&opens);
	my $restore = use_up_descriptors($worker);
	$tracer->stop_before(opens($session->pid));
	$restore->();
	kernel_has($session, { idle => $idle - 1 }, 'a worker that can open no descriptor cannot signal a session');
	$tracer->detach;
	ok(defined wait_for_kernel($session, { idle => $idle }, 10), 'it tries again: the change arrives without another one');
	is($node->log_count(qr/LOG:  keepalive_guard: could not signal a session: Too many open files/, $log), 1,
		'the log has the error once');
	$session->terminate;
}

# No room for the signal in the session's queue.
{
	my $session = app_session();
	system('prlimit', '--sigpending=0', '--pid', $session->pid) == 0 or die 'prlimit';
	kill 'STOP', $session->pid;
	edit() foreach 1 .. 3;
	$admin->query(q{SELECT keepalive_apply('0.5 s')});
	kill 'CONT', $session->pid;
	ok(defined wait_for_kernel($session, { idle => $idle }, 10), 'the last of three changes reaches a session without room in its signal queue');
	is($session->value('SHOW tcp_keepalives_idle'), $idle, 'SHOW agrees');
	$session->terminate;
}

# --- errno ---------------------------------------------------------------------------------

# The handler's setsockopt() fails.  The signal arrives at each of the instructions that
# follow a system call of the session which fails with another error: pg_stat_file() raises
# an error unless that is ENOENT.
$admin->terminate;
$node->stop;
is($node->start_after(sub { refuse_socket_option(IPPROTO_TCP, TCP_KEEPIDLE) }), 0, 'the server starts under seccomp');
$admin = $node->unix_session;
my $session = app_session();
is($node->status($session->pid)->{policy_state}, 'failed', 'the kernel refuses the policy of a session');
my $stat = q{SELECT pg_stat_file('missing', true)};
is($session->value($stat), undef, 'the session executes a system call that fails with ENOENT');
my $slot = KeepaliveGuard::SlotMemory->new($session->pid, 'app');
my $before = $slot->sequence;
my @errors;
foreach my $instructions (1 .. INSTRUCTIONS)
{
	my $tracer = KeepaliveGuard::Tracer->new($session->pid);
	$session->send($stat);
	$tracer->stop_after(sub { $_[0] == -ENOENT });
	$tracer->step($instructions);
	kill $signal, $session->pid;
	$tracer->detach;
	my $error = $session->result->{error};
	push @errors, "after $instructions instructions: $error->{message}" if $error;
}
is_deeply(\@errors, [], 'the signal does not change the errno that the session sees');
cmp_ok($slot->sequence - $before, '>=', 2 * INSTRUCTIONS, 'each signal was handled');

done_testing();
