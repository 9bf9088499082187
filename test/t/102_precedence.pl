# Which of several matching policies is first: by priority, then by role and database,
# then by the length of its network prefix, then by name.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(policy_of kernel_has);
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use Test::More;

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary');
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');

# Policies that all match the session below, in match order.  Each is in force once
# those before it are deleted.
my @in_order = (
	[ p_first => { priority => -5, client => '10.0.0.0/8' } ],
	[ p_second => { priority => 99 } ],
	[ z_role_database_long => { role => 'app', database => 'postgres', client => '10.77.1.0/24' } ],
	[ y_role_database_short => { role => '/app', database => '/.', client => '10.0.0.0/8' } ],
	[ x_role_database => { role => 'app', database => 'postgres' } ],
	[ w_role_long => { role => '/^a', client => '10.77.1.2/32' } ],
	[ v_role_any => { role => 'app', client => '0.0.0.0/0' } ],
	[ b_role => { role => 'app' } ],
	[ b_role_ => { role => '+app' } ],
	[ uu_database_backend => { database => 'postgres', backend => 'client' } ],
	[ u_database_long => { database => 'postgres', client => '10.77.1.2/32' } ],
	[ t_database => { database => 'postgres' } ],
	[ z_backend_long => { client => '10.0.0.0/8', backend => 'client' } ],
	[ y_backend => { backend => 'client' } ],
	[ s_network_long => { client => '10.77.0.0/16' } ],
	[ r_network_short => { client => '10.0.0.0/8' } ],
	[ Z_name => {} ],
	[ a_name => {} ],
	[ 'é_name' => {} ],
	[ last_priority => { priority => 101, role => 'app', database => 'postgres' } ]);

# They are inserted in the opposite order, so that the order in the table differs.
my $idle = 1000;
my %idle_of;
foreach my $policy (reverse @in_order)
{
	my ($name, $columns) = @$policy;
	$idle_of{$name} = ++$idle;
	$node->policy(name => $name, tcp_keepalives_idle => "$idle s", %$columns);
}
# Policies that must not apply.
$node->policy(name => 'disabled', priority => -9, role => 'app', database => 'postgres',
	tcp_keepalives_idle => '9s', enabled => 'false');
$node->policy(name => 'for_others', priority => -9, backend => 'replication',
	tcp_keepalives_idle => '8s');
$node->policy(name => 'elsewhere', priority => -9, client => '10.77.2.0/24',
	tcp_keepalives_idle => '7s');

foreach my $policy (@in_order)
{
	my $name = $policy->[0];
	$node->wait_for_policies;
	my $session = $node->session(host => $host, user => 'app');
	kernel_has($session, { idle => $idle_of{$name} }, "$name is the first policy in match order");
	$session->terminate;
	$node->safe_psql('postgres', "DELETE FROM keepalive_policy WHERE name = '$name'");
}

$node->wait_for_policies;
my $session = $node->session(host => $host, user => 'app');
kernel_has($session, { idle => 7200 }, 'disabled policies do not apply');
is(policy_of($node, $session), undef, 'keepalive_status() shows no policy when none applies');

$node->safe_psql('postgres', "UPDATE keepalive_policy SET enabled = true WHERE name = 'disabled'");
$node->wait_for_policies;
kernel_has($node->session(host => $host, user => 'app'), { idle => 9 }, 'a policy applies once it is enabled');

# --- each setting from the first policy that sets it ------------------------------------

$node->safe_psql('postgres', 'TRUNCATE keepalive_policy');
$node->policy(name => 'first', priority => 1, tcp_keepalives_idle => '41s');
$node->policy(name => 'second', priority => 2, tcp_keepalives_idle => '42s', tcp_keepalives_count => 4);
$node->policy(name => 'nothing_new', priority => 3, tcp_keepalives_count => 5);
$node->policy(name => 'baseline', priority => 1000, tcp_keepalives_interval => '12s',
	tcp_user_timeout => '0');
$node->wait_for_policies;
$session = $node->session(host => $host, user => 'app');
kernel_has($session, { idle => 41, interval => 12, count => 4 },
	'each setting comes from the first policy that sets it');
is(policy_of($node, $session), 'first,second,baseline',
	'keepalive_status() names the policies that give something, in match order');

$node->safe_psql('postgres', "UPDATE keepalive_policy SET final = true WHERE name = 'second'");
$node->wait_for_policies;
$session = $node->session(host => $host, user => 'app');
kernel_has($session, { idle => 41, interval => 75, count => 4 },
	'no policy after a final one gives a setting');
is(policy_of($node, $session), 'first,second', 'keepalive_status() names no policy after a final one');

$node->safe_psql('postgres', "UPDATE keepalive_policy SET enabled = false WHERE name = 'second'");
$node->wait_for_policies;
kernel_has($node->session(host => $host, user => 'app'), { idle => 41, interval => 12, count => 5 },
	'a disabled final policy does not end the search');

$node->safe_psql('postgres', q{
	UPDATE keepalive_policy SET enabled = true, tcp_keepalives_idle = NULL,
		tcp_keepalives_count = NULL, priority = 0 WHERE name = 'second'});
$node->wait_for_policies;
$session = $node->session(host => $host, user => 'app');
kernel_has($session, { idle => 7200, interval => 75, count => 9 },
	'a final policy that sets nothing is an exemption');
is(policy_of($node, $session), undef, 'a session under an exemption has no policies');

done_testing();
