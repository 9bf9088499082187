# A kernel that refuses what the guard asks of it: connections work, the log and
# keepalive_status() tell what is not as it should be.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has);
use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets 'socket_options';
use KeepaliveGuard::Seccomp qw(refuse_socket_option refuse_system_call);
use Socket qw(IPPROTO_TCP TCP_KEEPIDLE);
use Test::More;
use Time::HiRes qw(time usleep);

require 'syscall.ph';

my $node = KeepaliveGuard::Cluster->start_new('primary');
$node->safe_psql('postgres', 'CREATE ROLE modest LOGIN');
$node->policy(name => 'everybody', tcp_keepalives_idle => '21s', tcp_keepalives_count => 4);
$node->policy(name => 'modest', role => 'modest', tcp_user_timeout => '21s');

# The same on every architecture, and not known to Perl.
use constant { AF_NETLINK => 16, SYS_pidfd_send_signal => 424 };

# Restarts the server where what the code refuses is refused.
sub restart_refused
{
	my ($refuse) = @_;
	$node->stop;
	my $child = fork // die "fork: $!";
	if (!$child)
	{
		$refuse->();
		open STDOUT, '>&', \*STDERR or die "dup: $!";
		exec 'pg_ctl', '--wait', '--pgdata', $node->data_dir, '--log', $node->logfile, 'start'
		  or die "pg_ctl: $!";
	}
	waitpid $child, 0;
	is($?, 0, 'the server starts');
	$node->_update_pid(1);
	my $session = $node->unix_session;
	my $until = time + 10;
	usleep(20_000) until $node->status($session->pid)->{policy} || time > $until;
	return;
}

# A new session with that tcp_keepalives_idle, as soon as there is one.
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
is($session->value('SELECT 1'), 1, 'a connection works whose setting is refused');
kernel_has($session, { idle => 7200, count => 4 }, 'the other settings of its policy are in the kernel');
is($node->log_count(qr/LOG:  setsockopt\(TCP_KEEPIDLE\) failed: Operation not permitted/, $log), 1,
	'the log tells');
my $status = $node->status($session->pid);
is_deeply(
	[ @$status{qw(policy policy_state tcp_keepalives_idle tcp_keepalives_count)} ],
	[ 'everybody', 'failed', '02:00:00', 4 ],
	'the status tells what is in force, and that it is not what should be');

my $modest = $node->session(user => 'modest');
is($node->status($modest->pid)->{policy_state}, 'applied', 'another policy is as it should be');

my $pid = $session->pid;
$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_count = 5, tcp_keepalives_idle = '22s'");
$node->wait_for_policies;
kernel_has($session, { idle => 7200, count => 5 }, 'so it is with a change');
is($node->status($pid)->{policy_state}, 'failed', 'as the status tells');
is($session->value('SELECT 2'), 2, 'and the session works on');
$node->safe_psql('postgres', 'UPDATE keepalive_policy SET tcp_keepalives_idle = NULL');
$node->wait_for_policies;
is($node->status($pid)->{policy_state}, 'applied', 'without the setting all is well');

# --- signals through a pidfd ----------------------------------------------------------

$log = $node->log_end;
restart_refused(sub { refuse_system_call(SYS_pidfd_send_signal) });
$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '30 s'");
ok(defined new_session_with(30), 'new sessions have their policy');
my $first = $node->session;
foreach my $idle (31, 32)
{
	$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s'");
	ok(defined new_session_with($idle), 'and its changes');
}
kernel_has($first, { idle => 30 }, 'those connected before are not reached');
is($first->value('SELECT 1'), 1, 'and work');
is($node->status($first->pid)->{policy_state}, 'pending', 'as their status tells');
is($node->log_count(qr/LOG:  keepalive_guard: could not signal a session: Operation not permitted/, $log),
	1, 'the log tells once');

# --- netlink ----------------------------------------------------------------------

restart_refused(sub { refuse_system_call(SYS_socket(), 0 => AF_NETLINK) });
$session = $node->session;
kernel_has($session, { idle => 32 }, 'without netlink a session has its policy');
$status = $node->status($session->pid);
is_deeply(
	[ @$status{qw(policy_state tcp_state timer unanswered_probes)} ],
	[ 'applied', 'ESTABLISHED', 'keepalive', 0 ],
	'and the status tells what /proc has');

done_testing();
