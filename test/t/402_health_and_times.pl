# health, gives_up_in, detects_idle and detects_busy of each kind of session, with the
# kernel's real defaults.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets 'wait_until_acknowledged';
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $other = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary');
my $superuser = $node->unix_session;

$superuser->query("CREATE ROLE $_ LOGIN") foreach qw(off watched quick);
$node->policy(name => 'off', role => 'off', keepalive => 'false', client_connection_check_interval => '10s');
$node->policy(name => 'watched', role => 'watched', tcp_keepalives_idle => '60s',
	tcp_keepalives_interval => '10s', tcp_keepalives_count => 6, dead_after => '30s', stall_timeout => '20s');
$node->policy(name => 'quick', role => 'quick', tcp_keepalives_idle => '1s',
	tcp_keepalives_interval => '1s', tcp_keepalives_count => 100);
$node->wait_for_policies;

sub session
{
	my ($role, %options) = @_;
	my $session = $node->session(host => $host, user => $role, dbname => 'postgres', %options);
	wait_until_acknowledged($session->port);
	return $session;
}

# health, gives_up_in, detects_idle, detects_busy: seconds.
sub figures
{
	my ($session) = @_;
	my $pid = $session->pid;
	my ($row) = @{ $superuser->query(<<"END") };
SELECT health, extract(epoch FROM gives_up_in)::float8, extract(epoch FROM detects_idle)::float8,
	extract(epoch FROM detects_busy)::float8
FROM keepalive_status() WHERE pid = $pid
END
	return @$row;
}

sub wait_for_health
{
	my ($session, $health, $timeout) = @_;
	my $until = time + $timeout;
	my @now;
	do
	{
		sleep 0.1;
		@now = figures($session);
	} until $now[0] eq $health || time > $until;
	return @now;
}

# --- worst cases ----------------------------------------------------------------------

my $native = session('postgres');
my ($health, $gives_up_in, $idle, $busy) = figures($native);
is($health, 'alive', 'native default: alive');
is($idle, 8875.202, '2 h 11 min by the sysctls, and that much later by late timers');
is($busy, undef, 'and never if it is at work');
cmp_ok($gives_up_in, '<=', $idle, 'gives_up_in is not later than the worst case');
cmp_ok($gives_up_in, '>', 7860, 'nor sooner than the sysctls say');
$native->query('SET client_connection_check_interval = 10000');
is((figures($native))[3], 1062.153 + 10, 'with a client check: tcp_retries2 and the check');
$native->query('SET tcp_user_timeout = 30000');
cmp_ok((figures($native))[3], '<', 70, 'a user timeout replaces tcp_retries2');

my $off = session('off');
is_deeply([ figures($off) ], [ 'alive', undef, undef, 1072.153 ], 'without keepalive nobody finds an idle client');

my $watched = session('watched');
($health, $gives_up_in, $idle, $busy) = figures($watched);
cmp_ok($idle, '<', 60 * 1.15 + 30 + 3, 'dead_after finds an idle one after the first probe');
cmp_ok($busy, '<', 3 + 30 + 3, 'and one at work without a client check');

my $unix = $node->unix_session;
is_deeply([ figures($unix) ], [ (undef) x 4 ], 'a Unix socket has no such figures');

# --- health ---------------------------------------------------------------------------

my $stalled = session('watched', receive_buffer => 4096);
$stalled->send(q(SELECT repeat('x', 10000) FROM generate_series(1, 100000)));
($health, $gives_up_in) = wait_for_health($stalled, 'zero_window', 5);
is($health, 'zero_window', 'a client that does not read');
cmp_ok($gives_up_in, '<=', 22.01, 'whom stall_timeout would end');

my $closing = session('postgres');
$closing->send('SELECT pg_sleep(60)');
sleep 0.2;
$closing->half_close;
($health) = wait_for_health($closing, 'closed_by_peer', 5);
is($health, 'closed_by_peer', 'a client that has closed its side');

my $probed = session('quick');
my $retransmitting = session('quick');
$retransmitting->query('LISTEN something');
wait_until_acknowledged($retransmitting->port);
my $dead = session('quick', host => $other);
$dead->send('SELECT pg_sleep(60)');
sleep 0.2;
$host->drop;
$other->refuse;
$superuser->query('NOTIFY something');

($health, $gives_up_in) = wait_for_health($probed, 'probing', 5);
is($health, 'probing', 'a client that does not answer probes');
cmp_ok($gives_up_in, '>', 90, 'has some of the hundred left');
cmp_ok($gives_up_in, '<=', 100 * 1.15 + 3, 'but not more');
($health, $gives_up_in) = wait_for_health($retransmitting, 'retransmitting', 5);
is($health, 'retransmitting', 'one that does not acknowledge');
cmp_ok($gives_up_in, '>', 900, 'has as long as tcp_retries2 says');
cmp_ok($gives_up_in, '<', 1062.2, 'but not longer');
my @dead = wait_for_health($dead, 'dead', 5);
is_deeply([ @dead[ 0, 1 ] ], [ 'dead', 0 ], 'one that the kernel has given up, which its backend does not know');
is($node->status($dead->pid)->{tcp_state}, 'CLOSE', 'in state CLOSE');

done_testing();
