# The precedence of a policy with enforcement "default" among PostgreSQL's own ways to
# set the same settings: above postgresql.conf and the command line, equal to ALTER ROLE
# ALL SET, and below the settings of databases, roles, connections and sessions.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;
use Time::HiRes 'usleep';

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
tcp_keepalives_idle = 11
tcp_keepalives_interval = 12
END
my @roles = qw(nothing by_role by_database by_both);
$node->safe_psql('postgres', "CREATE ROLE $_ LOGIN") foreach @roles;
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('postgres', <<'END');
ALTER DATABASE shop SET tcp_keepalives_idle = 31;
ALTER ROLE by_role SET tcp_keepalives_idle = 32;
ALTER ROLE by_both SET tcp_keepalives_idle = 32;
ALTER ROLE by_both IN DATABASE shop SET tcp_keepalives_idle = 33;
END
$node->policy(name => 'everybody', tcp_keepalives_idle => '20s', tcp_keepalives_count => 2);
$node->wait_for_policies;

# Tests what a new session has: its tcp_keepalives_idle in the kernel, pg_settings and
# keepalive_status(), its policy_state, and that the kernel has the values of the policy
# and of postgresql.conf for the other settings.
sub new_session_has
{
	my ($idle, $source, $state, $name, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $session = $node->session(user => 'nothing', %options);
	kernel_has($session, { idle => $idle, interval => 12, count => 2 }, "$name: value in the kernel");
	session_shows($session, $idle, $source, $state, $name);
	return $session;
}

sub session_shows
{
	my ($session, $idle, $source, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $setting = $session->query("SELECT setting, source FROM pg_settings WHERE name = 'tcp_keepalives_idle'");
	my $status = $node->status($session->pid);
	is_deeply(
		[ @{ $setting->[0] }, @$status{qw(tcp_keepalives_idle policy policy_state)} ],
		[ $idle, $source, sprintf('00:00:%02d', $idle), 'everybody', $state ],
		"$name: values in pg_settings and keepalive_status()");
	return;
}

new_session_has(20, 'global', 'applied', 'a policy overrides postgresql.conf');
new_session_has(31, 'database', 'overridden', 'ALTER DATABASE overrides a policy', dbname => 'shop');
new_session_has(32, 'user', 'overridden', 'ALTER ROLE overrides a policy', user => 'by_role');
new_session_has(33, 'database user', 'overridden', 'ALTER ROLE IN DATABASE overrides a policy',
	user => 'by_both', dbname => 'shop');
new_session_has(34, 'client', 'overridden', 'connection options override a policy',
	options => '-c tcp_keepalives_idle=34');
new_session_has(35, 'client', 'overridden', 'a startup parameter overrides a policy',
	tcp_keepalives_idle => 35, user => 'by_both', dbname => 'shop');
new_session_has(20, 'client', 'applied', 'a startup parameter equal to the policy\'s value is not an override',
	tcp_keepalives_idle => 20);

# --- SET and RESET ------------------------------------------------------------------

# Runs SQL, and tests what the session then has.
my $session = $node->session(user => 'nothing');
sub after
{
	my ($sql, $idle, $source, $state) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$session->query($sql);
	kernel_has($session, { idle => $idle, count => 2 }, "after $sql: value in the kernel");
	session_shows($session, $idle, $source, $state, "after $sql");
	return;
}

after('SET tcp_keepalives_idle = 41', 41, 'session', 'overridden');
after('RESET tcp_keepalives_idle', 20, 'global', 'applied');
after('SET tcp_keepalives_idle = 42', 42, 'session', 'overridden');
after('SET tcp_keepalives_idle TO DEFAULT', 20, 'global', 'applied');
after('SELECT set_config($$tcp_keepalives_idle$$, $$43$$, false)', 43, 'session', 'overridden');
after('RESET ALL', 20, 'global', 'applied');
after('SET tcp_keepalives_idle = 44', 44, 'session', 'overridden');
after('DISCARD ALL', 20, 'global', 'applied');
after('BEGIN', 20, 'global', 'applied');
after('SET LOCAL tcp_keepalives_idle = 45', 45, 'session', 'overridden');
after('COMMIT', 20, 'global', 'applied');
after('BEGIN', 20, 'global', 'applied');
after('SET tcp_keepalives_idle = 46', 46, 'session', 'overridden');
after('ROLLBACK', 20, 'global', 'applied');

$session->query(<<'END');
CREATE FUNCTION pg_temp.inside() RETURNS text LANGUAGE plpgsql SET tcp_keepalives_idle = 47
	AS $$ BEGIN PERFORM pg_advisory_lock(1); RETURN current_setting('tcp_keepalives_idle'); END $$
END
my $locker = $node->unix_session;
$locker->query('SELECT pg_advisory_lock(1)');
$session->send('SELECT pg_temp.inside()');
ok(defined wait_for_kernel($session, { idle => 47 }, 10), 'a function\'s SET clause overrides a policy in the kernel');
$locker->query('SELECT pg_advisory_unlock(1)');
is($session->result->{rows}[0][0], 47, 'a function with a SET clause sees its own value');
after('SELECT 1', 20, 'global', 'applied');

my $by_both = $node->session(user => 'by_both', dbname => 'shop');
$by_both->query('SET tcp_keepalives_idle = 48; RESET tcp_keepalives_idle');
kernel_has($by_both, { idle => 33 }, 'RESET restores the value of ALTER ROLE, not the policy\'s');

# --- a change of postgresql.conf --------------------------------------------------

$node->append_conf('postgresql.conf', "tcp_keepalives_idle = 13\ntcp_keepalives_interval = 14\n");
$node->reload;
my $left = 500; # one of the next commands processes the reload
usleep(20_000) while $left-- && $session->value('SHOW tcp_keepalives_interval') == 12;
$node->wait_for_policies; # the worker has seen it too
kernel_has($session, { idle => 20, interval => 14 }, 'a reload changes only what the policy leaves NULL');
session_shows($session, 20, 'global', 'applied', 'after a reload');

$node->safe_psql('postgres', 'DELETE FROM keepalive_policy');
ok(defined wait_for_kernel($session, { idle => 13, interval => 14, count => 9 }, 10),
	'a session without its policy has the present values of postgresql.conf');
is_deeply(
	$session->query("SELECT setting, source FROM pg_settings WHERE name = 'tcp_keepalives_idle'"),
	[ [ 13, 'configuration file' ] ],
	'pg_settings.source is the configuration file once the policy is deleted');

# --- ALTER ROLE ALL ---------------------------------------------------------------

$node->safe_psql('postgres', 'ALTER ROLE ALL SET tcp_keepalives_idle = 51');
$node->policy(name => 'everybody', tcp_keepalives_idle => '20s', tcp_keepalives_count => 2);
$node->wait_for_policies;
my $role_all = $node->session(user => 'nothing');
kernel_has($role_all, { idle => 51, count => 2 }, 'ALTER ROLE ALL SET overrides a policy: value in the kernel');
session_shows($role_all, 51, 'global', 'overridden', 'ALTER ROLE ALL SET overrides a policy');
$role_all->query('SET tcp_keepalives_idle = 52; RESET tcp_keepalives_idle');
kernel_has($role_all, { idle => 51, count => 2 }, 'RESET restores the value of ALTER ROLE ALL SET');

done_testing();
