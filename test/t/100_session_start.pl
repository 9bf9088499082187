# Policies of every kind are in the kernel before a session's first query, and SHOW,
# pg_settings and keepalive_status() show the same values.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(settings_agree kernel_has numbered_settings);
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets qw(socket_line wait_until_acknowledged);
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

# Each policy's name and columns.  Each policy has different settings.
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

# From here on the worker is stopped: a session gets its settings at its own start.
my $worker = $node->worker_pid;
kill 'STOP', $worker;

sub has_policy
{
	my ($policy, $name, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $keepalive = delete $options{keepalive};
	my $session = $node->session(host => $other_host, user => 'plain', %options);
	settings_agree($node, $session, $policy, $settings{$policy}, $name, keepalive => $keepalive);
	return $session;
}

has_policy('role', 'a policy for a role applies', user => 'app');
has_policy('database', 'a policy for a database applies', dbname => 'shop');
has_policy('role_in_database', 'a policy for a role in a database applies', user => 'app', dbname => 'shop');
has_policy('odd_role', 'a policy for a role whose name needs quotes applies', user => 'Odd, +name');
has_policy('group', 'a policy for a group applies to a direct member', user => 'direct');
has_policy('group', 'a policy for a group applies to an indirect member', user => 'indirect');
has_policy('group', 'a policy for a group applies to a NOINHERIT member', user => 'aloof');
has_policy('group', 'a policy for a group applies to an indirect NOINHERIT member', user => 'far_aloof');
has_policy('role_regex', 'a policy with a regular expression for roles applies', user => 'report_7');
has_policy('database_regex', 'a policy with a regular expression for databases applies', dbname => 'sales_prod');
has_policy('ipv4', 'a policy for an IPv4 address applies', host => $host);
has_policy('ipv6', 'a policy for an IPv6 network applies', host => $host, ipv6 => 1);

my %defaults = (
	idle => 7200, interval => 75, count => 9, user_timeout => 0, client_check => 0);
sub has_no_policy
{
	my ($name, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $session = $node->session(host => $other_host, user => 'plain', %options);
	return settings_agree($node, $session, undef, \%defaults, $name);
}

has_no_policy('a session that no policy matches has PostgreSQL\'s settings');
has_no_policy('an IPv6 session that no policy matches has PostgreSQL\'s settings', ipv6 => 1);
has_no_policy('a policy for a group does not apply to a superuser who is not a member', user => 'root');

# --- SO_KEEPALIVE off -----------------------------------------------------------

my $quiet = has_policy('keepalive_off', 'a policy with keepalive = false switches SO_KEEPALIVE off', user => 'quiet', keepalive => 0);
wait_until_acknowledged($quiet->port);
is(socket_line($quiet->port)->{timer}, undef, 'no timer runs while SO_KEEPALIVE is off');
my $loud = $node->session(host => $other_host, user => 'app');
wait_until_acknowledged($loud->port);
is(socket_line($loud->port)->{timer}{name}, 'keepalive', 'the keepalive timer runs while SO_KEEPALIVE is on');

# --- pg_settings ----------------------------------------------------------------

is($loud->value("SELECT source FROM pg_settings WHERE name = 'tcp_keepalives_idle'"),
	'global', 'pg_settings.source of a policy\'s value is that of ALTER ROLE ALL SET');
is($loud->value("SELECT reset_val FROM pg_settings WHERE name = 'tcp_keepalives_idle'"),
	$settings{role}{idle}, 'pg_settings.reset_val is the policy\'s value');

kill 'CONT', $worker;

# --- a policy with one setting ----------------------------------------------------

$node->safe_psql('postgres',
	"INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle, final) VALUES ('one', 'root', '55s', true)");
$node->wait_for_policies;
kernel_has($node->session(host => $host, user => 'root'),
	{ keepalive => 1, idle => 55, interval => 75, count => 9, user_timeout => 0 },
	'a final policy leaves the other settings to PostgreSQL');

done_testing();
