# Every kind of policy is in the kernel before a session's first query, and SHOW,
# pg_settings and keepalive_status() tell the same.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(settings_agree kernel_has numbered_settings);
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets 'socket_line';
use Test::More;

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $other_host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary');

$node->safe_psql('postgres', <<'END');
CREATE ROLE app LOGIN;
CREATE ROLE plain LOGIN;
CREATE ROLE report_7 LOGIN;
CREATE ROLE "Odd, +name" LOGIN;
CREATE ROLE staff;
CREATE ROLE managers IN ROLE staff;
CREATE ROLE direct LOGIN IN ROLE staff;
CREATE ROLE indirect LOGIN IN ROLE managers;
CREATE ROLE aloof LOGIN NOINHERIT IN ROLE staff;
CREATE ROLE far_aloof LOGIN NOINHERIT IN ROLE managers;
CREATE ROLE quiet LOGIN;
CREATE ROLE root LOGIN SUPERUSER;
END
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(shop sales_prod);

# The columns of each policy, by its name; each has settings of its own.
my @policies = (
	[ role => { role => 'app' } ],
	[ database => { database => 'shop' } ],
	[ role_in_database => { role => 'app', database => 'shop' } ],
	[ odd_role => { role => 'Odd, +name' } ],
	[ group => { role => '+staff' } ],
	[ role_regex => { role => '/^report_\d$' } ],
	[ database_regex => { database => '/_prod$' } ],
	[ ipv4 => { client => $host->address . '/32' } ],
	[ ipv6 => { client => 'fd00:77:1::/64' } ],
	[ keepalive_off => { role => 'quiet', keepalive => 'false' } ],
	[ no_such_group => { role => '+nobody_here', priority => 1 } ]);
my %settings;
foreach my $i (0 .. $#policies)
{
	my ($name, $columns) = @{ $policies[$i] };
	($settings{$name}, my %of_policy) = numbered_settings($i);
	$node->policy(name => $name, %of_policy, %$columns);
}
$node->wait_for_policies;

# From here on no worker helps: what a session has it got at its own start.
my $worker = $node->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE backend_type = 'keepalive_guard worker'");
kill 'STOP', $worker;

sub governed
{
	my ($policy, $what, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $keepalive = delete $options{keepalive};
	my $session = $node->session(host => $other_host, user => 'plain', %options);
	settings_agree($node, $session, $policy, $settings{$policy}, $what, keepalive => $keepalive);
	return $session;
}

governed('role', 'a role', user => 'app');
governed('database', 'a database', dbname => 'shop');
governed('role_in_database', 'a role in a database', user => 'app', dbname => 'shop');
governed('odd_role', 'a role that needs quotes', user => 'Odd, +name');
governed('group', 'a member of a group', user => 'direct');
governed('group', 'a member through another group', user => 'indirect');
governed('group', 'a member that does not inherit', user => 'aloof');
governed('group', 'a member that does not inherit, through another group', user => 'far_aloof');
governed('role_regex', 'a role by a regular expression', user => 'report_7');
governed('database_regex', 'a database by a regular expression', dbname => 'sales_prod');
governed('ipv4', 'an IPv4 client', host => $host);
governed('ipv6', 'an IPv6 client', host => $host, ipv6 => 1);

my %defaults = (
	idle => 7200, interval => 75, count => 9, user_timeout => 0, client_check => 0);
sub ungoverned
{
	my ($what, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $session = $node->session(host => $other_host, user => 'plain', %options);
	return settings_agree($node, $session, undef, \%defaults, $what);
}

ungoverned('nobody else');
ungoverned('nobody else over IPv6', ipv6 => 1);
ungoverned('superusers are not members of every group', user => 'root');

# --- SO_KEEPALIVE off -----------------------------------------------------------

my $quiet = governed('keepalive_off', 'keepalive off', user => 'quiet', keepalive => 0);
is(socket_line($quiet->port)->{timer}, undef, 'with SO_KEEPALIVE off no timer runs');
my $loud = $node->session(host => $other_host, user => 'app');
is(socket_line($loud->port)->{timer}{name}, 'keepalive', 'with it on one does');

# --- how PostgreSQL sees it -----------------------------------------------------

is($loud->value("SELECT source FROM pg_settings WHERE name = 'tcp_keepalives_idle'"),
	'global', 'the source of a setting is that of ALTER ROLE ALL SET');
is($loud->value("SELECT reset_val FROM pg_settings WHERE name = 'tcp_keepalives_idle'"),
	$settings{role}{idle}, 'a policy is what RESET goes back to');

kill 'CONT', $worker;

# --- a policy that sets one thing -------------------------------------------------

$node->safe_psql('postgres',
	"INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle) VALUES ('one', 'root', '55s')");
$node->wait_for_policies;
kernel_has($node->session(host => $host, user => 'root'),
	{ keepalive => 1, idle => 55, interval => 75, count => 9, user_timeout => 0 },
	'a NULL setting is left alone');

done_testing();
