# A router reports late that the client is unreachable.  The kernel then sets its timer
# without regard to TCP_USER_TIMEOUT (tcp_ld_RTO_revert), which the model must allow for.
use strict;
use warnings;

use IPC::Run ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets 'wait_until_acknowledged';
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary');
my $superuser = $node->unix_session;

# The notification is retransmitted at about 0.2, 0.6, 1.4, 3, 6.2 and 12.6 s.
my @sessions;
foreach my $user_timeout (11, 12, 13, 13.5, 13.75, 14, 15)
{
	my $session = $node->session(host => $host);
	$session->query('SET tcp_user_timeout = ' . 1000 * $user_timeout);
	$session->query('LISTEN going');
	wait_until_acknowledged($session->port);
	push @sessions, { session => $session, user_timeout => $user_timeout };
}
$host->drop;
my $before = time;
$superuser->query('NOTIFY going');
my $gone = time;
sleep 8; # at any time before the last of these
$host->unreachable;
foreach my $s (@sessions)
{
	my $pid = $s->{session}->pid;
	$node->wait_for_exit($pid, 40) // next;
	$s->{at} = $node->ended_at($pid);
	$s->{end} = $s->{at} - $gone;
}

my $input = join '', map { "silent in_flight 1 7200 75 9 @{[ 1000 * $_->{user_timeout} ]} 0 0 0 1000 15 120000 0\n" }
  @sessions;
my $output;
IPC::Run::run([ 'make', '-s', 'build/predict', "PG_CONFIG=$ENV{PG_CONFIG}" ]) or die 'build/predict';
IPC::Run::run(['build/predict'], '<', \$input, '>', \$output) or die 'build/predict';
my @predicted = split /\n/, $output;
foreach my $s (@sessions)
{
	my ($earliest, $latest) = map { $_ / 1000 } split ' ', shift @predicted;
	cmp_ok(($s->{at} // 0) - $before, '>=', $earliest, "user timeout $s->{user_timeout} s: the backend does not end before the model's earliest time");
	cmp_ok($s->{end} // 99, '<=', $latest + 1, "user timeout $s->{user_timeout} s: the backend ends by the model's latest time");
}
my ($longest) = sort { $b <=> $a } map { ($_->{end} // 0) - $_->{user_timeout} } @sessions;
cmp_ok($longest, '>', 4, "one backend ends long after its user timeout ($longest s)");

done_testing();
