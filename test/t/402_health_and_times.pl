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
is($health, 'alive', 'PostgreSQL\'s defaults: health is alive');
is($idle, 8875.202, 'PostgreSQL\'s defaults: detects_idle is 2 h 11 min by the sysctls and the delay of late timers');
is($busy, undef, 'PostgreSQL\'s defaults: detects_busy is NULL');
cmp_ok($gives_up_in, '<=', $idle, 'PostgreSQL\'s defaults: gives_up_in is not more than detects_idle');
cmp_ok($gives_up_in, '>', 7860, 'PostgreSQL\'s defaults: gives_up_in is not less than the sysctls give');
$native->query('SET client_connection_check_interval = 10000');
is((figures($native))[3], 1062.153 + 10, 'with a client check, detects_busy is tcp_retries2 and the check');
$native->query('SET tcp_user_timeout = 30000');
cmp_ok((figures($native))[3], '<', 70, 'with a user timeout, detects_busy does not depend on tcp_retries2');

my $off = session('off');
is_deeply([ figures($off) ], [ 'alive', undef, undef, 1072.153 ], 'without keepalive, gives_up_in and detects_idle are NULL');

my $watched = session('watched');
($health, $gives_up_in, $idle, $busy) = figures($watched);
cmp_ok($idle, '<', 60 * 1.15 + 30 + 3, 'with dead_after, detects_idle counts from the first probe');
cmp_ok($busy, '<', 3 + 30 + 3, 'with dead_after, detects_busy needs no client check');

my $unix = $node->unix_session;
is_deeply([ figures($unix) ], [ (undef) x 4 ], 'health and times of a Unix socket are NULL');

# --- health ---------------------------------------------------------------------------

my $stalled = session('watched', receive_buffer => 4096);
$stalled->send(q(SELECT repeat('x', 10000) FROM generate_series(1, 100000)));
($health, $gives_up_in) = wait_for_health($stalled, 'zero_window', 20);
is($health, 'zero_window', 'health of a client that does not read is zero_window');
cmp_ok($gives_up_in, '<=', 22.01, 'gives_up_in of a client that does not read is limited by stall_timeout');

my $closing = session('postgres');
$closing->send('SELECT pg_sleep(60)');
$closing->half_close;
($health) = wait_for_health($closing, 'closed_by_peer', 20);
is($health, 'closed_by_peer', 'health of a client that has sent FIN is closed_by_peer');

my $probed = session('quick');
my $retransmitting = session('quick');
$retransmitting->query('LISTEN something');
wait_until_acknowledged($retransmitting->port);
my $dead = session('quick', host => $other);
$dead->send('SELECT pg_sleep(60)');
$node->wait_for_wait_event($dead->pid, 'PgSleep');
$host->drop;
$other->refuse;
$superuser->query('NOTIFY something');

($health, $gives_up_in) = wait_for_health($probed, 'probing', 20);
is($health, 'probing', 'health of a client that does not answer probes is probing');
cmp_ok($gives_up_in, '>', 90, 'gives_up_in of a probed client has most of the hundred probes left');
cmp_ok($gives_up_in, '<=', 100 * 1.15 + 3, 'gives_up_in of a probed client is not more than the hundred probes');
($health, $gives_up_in) = wait_for_health($retransmitting, 'retransmitting', 20);
is($health, 'retransmitting', 'health of a client that does not acknowledge is retransmitting');
cmp_ok($gives_up_in, '>', 900, 'gives_up_in of an unacknowledged connection is not less than tcp_retries2 gives');
cmp_ok($gives_up_in, '<', 1062.2, 'gives_up_in of an unacknowledged connection is not more than tcp_retries2 gives');
my @dead = wait_for_health($dead, 'dead', 20);
is_deeply([ @dead[ 0, 1 ] ], [ 'dead', 0 ], 'health is dead and gives_up_in 0 when the kernel has given up and the backend still runs');
is($node->status($dead->pid)->{tcp_state}, 'CLOSE', 'tcp_state is CLOSE when the kernel has given up');

done_testing();
