# Which clients a policy's network matches: IPv4, IPv6 and IPv4-mapped addresses, but
# never Unix sockets.  A session over a Unix socket only gets the client check.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(policy_of kernel_has);
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use Test::More;

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $far_host = $network->add_host(network => 200);
my $node = KeepaliveGuard::Cluster->start_new('primary');

# --- IPv4 and IPv6 ----------------------------------------------------------------

$node->policy(name => 'host1', client => '10.77.1.0/24', tcp_keepalives_idle => '11s');
$node->policy(name => 'upper_half', client => '10.77.128.0/17', tcp_keepalives_idle => '12s');
$node->policy(name => 'six', client => 'fd00:77:200::/47', tcp_keepalives_idle => '13s');
$node->policy(name => 'loopback', client => '127.0.0.0/8', tcp_keepalives_idle => '14s');
$node->wait_for_policies;

kernel_has($node->session(host => $host), { idle => 11 }, 'a policy for an IPv4 network applies');
kernel_has($node->session(host => $far_host), { idle => 12 },
	'a policy for an IPv4 network whose prefix ends inside a byte applies');
kernel_has($node->session(host => $far_host, ipv6 => 1), { idle => 13 },
	'a policy for an IPv6 network whose prefix ends inside a byte applies');
kernel_has($node->session(host => $host, ipv6 => 1), { idle => 7200 }, 'no policy applies to an IPv6 host outside the network');
kernel_has($node->session, { idle => 14 }, 'a policy for the loopback network applies');

# --- the same address in two forms --------------------------------------------------

$node->safe_psql('postgres', 'TRUNCATE keepalive_policy');
$node->policy(name => 'mapped', client => '::ffff:10.77.1.0/120', tcp_keepalives_idle => '21s');
$node->policy(name => 'every_six', client => '::/0', tcp_keepalives_idle => '22s');
$node->wait_for_policies;
kernel_has($node->session(host => $host), { idle => 21 },
	'a network in IPv4-mapped form matches IPv4 clients');
kernel_has($node->session(host => $far_host), { idle => 7200 }, 'a network in IPv4-mapped form does not match IPv4 clients outside it');
kernel_has($node->session(host => $host, ipv6 => 1), { idle => 22 }, '::/0 matches IPv6 clients');

# --- Unix sockets -----------------------------------------------------------------

$node->safe_psql('postgres', 'TRUNCATE keepalive_policy');
$node->policy(name => 'every_four', client => '0.0.0.0/0', tcp_keepalives_idle => '31s',
	client_connection_check_interval => '31s');
$node->policy(name => 'every_six', client => '::/0', tcp_keepalives_idle => '32s',
	client_connection_check_interval => '32s');
$node->wait_for_policies;

my $unix = $node->unix_session;
is(policy_of($node, $unix), undef, 'no network matches a Unix socket');
is($unix->value('SHOW client_connection_check_interval'), '0', 'a session over a Unix socket keeps its client check');
kernel_has($node->session, { idle => 31 }, '0.0.0.0/0 matches a client on the loopback');

$node->policy(name => 'everybody', client_connection_check_interval => '200ms',
	tcp_keepalives_idle => '33s', tcp_keepalives_interval => '33s', tcp_keepalives_count => 33,
	tcp_user_timeout => '33s', keepalive => 'false');
$node->wait_for_policies;

$unix = $node->unix_session(application_name => 'unix');
is_deeply(
	$unix->query('SHOW client_connection_check_interval; SHOW tcp_keepalives_idle;'
		  . 'SHOW tcp_keepalives_interval; SHOW tcp_keepalives_count; SHOW tcp_user_timeout'),
	[ ['200ms'], ['0'], ['0'], ['0'], ['0'] ], 'a session over a Unix socket gets only the client check');
my $status = $node->status($unix->pid);
is_deeply(
	[ @$status{qw(transport policy policy_state client_connection_check_interval)} ],
	[ 'unix', 'everybody', 'applied', '00:00:00.2' ], 'keepalive_status() shows the policy of a session over a Unix socket');
is_deeply(
	[ @$status{ qw(keepalive tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count),
			qw(tcp_user_timeout tcp_state timer) } ],
	[ (undef) x 7 ], 'keepalive_status() shows no TCP columns for a Unix socket');

$unix->send('SELECT pg_sleep(60)');
$unix->vanish;
my $gone = $node->wait_for_exit($unix->pid, 20);
ok(defined $gone, 'the client check ends a backend whose client closed its Unix socket');

done_testing();
