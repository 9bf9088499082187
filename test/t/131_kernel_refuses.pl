# When the kernel refuses a system call of the guard, connections work, and the log and
# keepalive_status() show what is not in force.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has seconds_until);
use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets qw(socket_options wait_until_acknowledged);
use KeepaliveGuard::Seccomp qw(refuse_socket_option refuse_system_call);
use Socket qw(IPPROTO_TCP TCP_KEEPIDLE);
use Test::More;
use Time::HiRes qw(time usleep);

require 'syscall.ph';

my $node = KeepaliveGuard::Cluster->start_new('primary');
$node->safe_psql('postgres', 'CREATE ROLE modest LOGIN');
$node->policy(name => 'everybody', tcp_keepalives_idle => '21s', tcp_keepalives_count => 4);
$node->policy(name => 'modest', final => 'true', role => 'modest', tcp_user_timeout => '21s');

# The same on every architecture; Perl does not define them.
use constant { AF_NETLINK => 16, SYS_pidfd_send_signal => 424 };

# Restarts the server in a process in which the given code has set up a refusal.
sub restart_refused
{
	my ($refuse) = @_;
	$node->stop;
	is($node->start_after($refuse), 0, 'the server starts under seccomp');
	# Until new sessions get the policies, and these are distributed.
	my $state;
	seconds_until(20, sub {
			my $session = $node->session;
			$state = $node->status($session->pid)->{policy_state} // '';
			$session->terminate;
			$node->wait_for_exit($session->pid, 20);
			return $state eq 'applied' || $state eq 'failed';
		}) // die "the policies are not in force: $state\n";
	return;
}

# Waits for a new session that has this tcp_keepalives_idle.
sub new_session_with
{
	my ($idle) = @_;
	my $until = time + 10;
	while (time < $until)
	{
		my $new = $node->session;
		return $new if socket_options($new->pid)->{idle} == $idle;
		$new->terminate;
		usleep(20_000);
	}
	return;
}

# --- a setting --------------------------------------------------------------------

restart_refused(sub { refuse_socket_option(IPPROTO_TCP, TCP_KEEPIDLE) });
my $log = $node->log_end;
my $session = $node->session;
is($session->value('SELECT 1'), 1, 'a session works although the kernel refuses a setting');
kernel_has($session, { idle => 7200, count => 4 }, 'the other settings of the policy are in the kernel');
is($node->log_count(qr/LOG:  setsockopt\(TCP_KEEPIDLE\) failed: Operation not permitted/, $log), 1,
	'PostgreSQL logs the refused setting');
my $status = $node->status($session->pid);
is_deeply(
	[ @$status{qw(policy policy_state tcp_keepalives_idle tcp_keepalives_count)} ],
	[ 'everybody', 'failed', '02:00:00', 4 ],
	'keepalive_status() shows the values in force and policy_state failed');

my $modest = $node->session(user => 'modest');
is($node->status($modest->pid)->{policy_state}, 'applied', 'policy_state of another policy is applied');

my $pid = $session->pid;
$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_count = 5, tcp_keepalives_idle = '22s'");
$node->wait_for_policies;
kernel_has($session, { idle => 7200, count => 5 }, 'a change of the policy is applied except the refused setting');
is($node->status($pid)->{policy_state}, 'failed', 'policy_state stays failed after a change of the policy');
is($session->value('SELECT 2'), 2, 'the session works after a change of the policy');
$node->safe_psql('postgres', 'UPDATE keepalive_policy SET tcp_keepalives_idle = NULL');
$node->wait_for_policies;
is($node->status($pid)->{policy_state}, 'applied', 'policy_state is applied once the policy leaves the refused setting NULL');

# --- signals through a pidfd ----------------------------------------------------------

$log = $node->log_end;
restart_refused(sub { refuse_system_call(SYS_pidfd_send_signal) });
$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '30 s'");
ok(defined new_session_with(30), 'a new session has its policy when signals are refused');
my $first = $node->session;
foreach my $idle (31, 32)
{
	$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s'");
	ok(defined new_session_with($idle), 'a new session has a changed policy when signals are refused');
}
kernel_has($first, { idle => 30 }, 'a connected session keeps its settings when signals are refused');
is($first->value('SELECT 1'), 1, 'a connected session works when signals are refused');
is($node->status($first->pid)->{policy_state}, 'pending', 'policy_state is pending when signals are refused');
is($node->log_count(qr/LOG:  keepalive_guard: could not signal a session: Operation not permitted/, $log),
	1, 'the worker logs once that signals are refused');

# --- netlink ----------------------------------------------------------------------

restart_refused(sub { refuse_system_call(SYS_socket(), 0 => AF_NETLINK) });
$session = $node->session;
kernel_has($session, { idle => 32 }, 'a session has its policy without netlink');
wait_until_acknowledged($session->port);
$status = $node->status($session->pid);
is_deeply(
	[ @$status{qw(policy_state tcp_state timer unanswered_probes)} ],
	[ 'applied', 'ESTABLISHED', 'keepalive', 0 ],
	'keepalive_status() shows what /proc has without netlink');

done_testing();
