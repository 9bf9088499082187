# keepalive_explain(): the table as the current transaction sees it, in the policy
# database; the policies in force, elsewhere; connected sessions with their own choices;
# and who may ask.
use strict;
use warnings;

use JSON::PP 'decode_json';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Settings qw(kernel_values);
use Test::More;

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 1, conf => "keepalive_guard.max_policies = 6\n");
$node->safe_psql('postgres', <<'END');
CREATE ROLE app LOGIN;
CREATE ROLE chooser LOGIN;
ALTER ROLE chooser SET tcp_keepalives_count = 5;
CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
CREATE ROLE granted LOGIN;
GRANT EXECUTE ON FUNCTION keepalive_explain(text, text, inet, text), keepalive_explain(integer) TO granted;
CREATE DATABASE other;
\c other
CREATE EXTENSION keepalive_guard;
END
my $admin = $node->unix_session;

# The rows of keepalive_explain(): { column => value }.
sub explain
{
	my ($session, $arguments) = @_;
	return map { decode_json($_->[0]) }
	  @{ $session->query("SELECT to_json(e) FROM keepalive_explain($arguments) AS e") };
}

# What each policy gives that gives something: { policy => 'column,column' }.
sub gives
{
	return { map { $_->{policy} => join ',', @{ $_->{gives} } }
		  grep { $_->{kind} eq 'policy' && $_->{gives} && @{ $_->{gives} } } @_ };
}

my @values = qw(keepalive tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count
  tcp_user_timeout client_connection_check_interval detects_idle detects_busy);

# Tests that the outcome for a session is what it has in the kernel and in
# keepalive_status().
sub is_confirmed
{
	my ($session, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($outcome) = grep { $_->{kind} eq 'outcome' } explain($admin, $session->pid);
	my $status = $node->status($session->pid);
	is_deeply([ @$outcome{@values} ], [ @$status{@values} ], "$name: the outcome is what keepalive_status() shows");
	my ($idle, $interval, $count, $user_timeout) = split m{/}, kernel_values($session);
	my ($shown) = @{ $admin->query("SELECT extract(epoch FROM interval '$outcome->{tcp_keepalives_idle}')::int,"
		  . " extract(epoch FROM interval '$outcome->{tcp_keepalives_interval}')::int,"
		  . " extract(epoch FROM interval '$outcome->{tcp_user_timeout}')::int * 1000") };
	is_deeply([ @$shown, $outcome->{tcp_keepalives_count} ], [ $idle, $interval, $user_timeout, $count ],
		"$name: and what the kernel has");
	return $outcome;
}

# --- before COMMIT, and at once after it --------------------------------------------------

$admin->query(q{BEGIN;
	INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle, tcp_keepalives_interval,
		tcp_keepalives_count, dead_after, enforcement)
	VALUES ('baseline', 1000, '90s', '9s', 7, '60s', 'ceiling');
	INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle) VALUES ('app', 'app', '30s')});
my $expected = { app => 'tcp_keepalives_idle', baseline => 'tcp_keepalives_interval,tcp_keepalives_count,dead_after' };
is_deeply(gives(explain($admin, q{'postgres', 'app', '10.77.1.2'})), $expected,
	'the transaction that inserts policies sees them before COMMIT');
my $observer = $node->unix_session;
is_deeply(gives(explain($observer, q{'postgres', 'app', '10.77.1.2'})), {}, 'other transactions do not');
my $elsewhere = $node->unix_session(dbname => 'other');
is_deeply(gives(explain($elsewhere, q{'postgres', 'app', '10.77.1.2'})), {}, 'and other databases do not');
$admin->query('COMMIT');
is_deeply(gives(explain($observer, q{'postgres', 'app', '10.77.1.2'})), $expected, 'they do at once after COMMIT');
$node->wait_for_policies;
is_deeply(gives(explain($elsewhere, q{'postgres', 'app', '10.77.1.2'})), $expected,
	'other databases do once the policies are in force');
$admin->query(q{BEGIN; DELETE FROM keepalive_policy});
is_deeply(gives(explain($admin, q{'postgres', 'app', '10.77.1.2'})), {}, 'a DELETE is seen before COMMIT');
$admin->query('ROLLBACK');
is_deeply(gives(explain($admin, q{'postgres', 'app', '10.77.1.2'})), $expected, 'and not after ROLLBACK');

# --- connected sessions --------------------------------------------------------------------

my $app = $node->session(host => $host, user => 'app');
is_deeply(gives(explain($admin, $app->pid)), $expected, 'a connected session is explained by its pid');
is(is_confirmed($app, 'a session without choices')->{reason}, undef, 'a session without choices has none in its reason');

$app->query('SET tcp_keepalives_idle = 20; SET tcp_user_timeout = 30000');
is(is_confirmed($app, 'a session with SET')->{reason},
	'the session, its role or its database chose tcp_keepalives_idle, tcp_user_timeout',
	'what a session chose with SET is in the reason');
my ($postgres) = grep { $_->{kind} eq 'postgresql' } explain($admin, $app->pid);
is_deeply([ @$postgres{qw(tcp_keepalives_idle tcp_keepalives_interval dead_after)} ], [ '00:00:20', '00:01:15', undef ],
	'without policies it would have its choices and PostgreSQL\'s values');
$app->query('RESET ALL');
is(is_confirmed($app, 'a session after RESET')->{reason}, undef, 'RESET takes it away');

my $chooser = $node->session(host => $host, user => 'chooser', options => '-c tcp_keepalives_interval=100');
is(is_confirmed($chooser, 'a session with a role setting and a connection option')->{reason},
	'the session, its role or its database chose tcp_keepalives_count, and may not choose tcp_keepalives_interval',
	'what the role and the connection options chose is in the reason, and what is refused');
my ($outcome) = grep { $_->{kind} eq 'outcome' } explain($admin, q{'postgres', 'chooser', '10.77.1.2'});
is("$outcome->{tcp_keepalives_count}/$outcome->{reason}", '5/ALTER ROLE or ALTER DATABASE chose tcp_keepalives_count',
	'a connection that is not there yet has the choices of its role');

my $unix = $node->unix_session(user => 'app', options => '-c client_connection_check_interval=7000');
($outcome) = grep { $_->{kind} eq 'outcome' } explain($admin, $unix->pid);
is_deeply([ @$outcome{qw(keepalive tcp_keepalives_idle client_connection_check_interval dead_after detects_idle)} ],
	[ undef, undef, '00:00:07', undef, undef ], 'over a Unix socket a session gets the client check only');

# A walsender of physical replication has no database, and no settings of its role.
$node->policy(name => 'replication', backend => 'replication', tcp_keepalives_idle => '11s');
$node->policy(name => 'any_database', priority => 1, database => '/.', tcp_keepalives_idle => '12s');
$node->wait_for_policies;
my $walsender = $node->session(host => $host, replication => 'true');
my %row = map { $_->{policy} // $_->{kind} => $_ } explain($admin, $walsender->pid);
is_deeply([ map { $row{$_}{reason} } qw(app any_database replication) ],
	[ 'the role is not app', 'the connection has no database', undef ], 'a walsender is explained');
is($row{outcome}{tcp_keepalives_idle}, '00:00:11', 'with what it gets');
$walsender->terminate;
$admin->query(q{DELETE FROM keepalive_policy WHERE name IN ('replication', 'any_database')});

my $result = $admin->try('SELECT count(*) FROM keepalive_explain(1)');
is($result->{rows}[0][0], 0, 'a process that is no session has no rows');
is($result->{notices}[0]{message}, 'PID 1 is not a client backend or WAL sender of this server', 'and a WARNING');

# --- who may ask ---------------------------------------------------------------------------

sub refusal
{
	my ($session, $call) = @_;
	my $error = $session->try("SELECT * FROM $call")->{error};
	return $error && "$error->{sqlstate} $error->{message}";
}
my $monitor = $node->unix_session(user => 'monitor');
is(refusal($monitor, "keepalive_explain('postgres', 'app')"), undef, 'a member of pg_monitor may ask');
is(refusal($monitor, 'keepalive_explain(' . $app->pid . ')'), undef, 'and about the sessions of others');
is(refusal($app, 'keepalive_explain(pg_backend_pid())'), '42501 permission denied for function keepalive_explain',
	'an ordinary role may not');
my $granted = $node->unix_session(user => 'granted');
is(refusal($granted, "keepalive_explain('postgres', 'app')"), '42501 permission denied for table keepalive_policy',
	'a role with EXECUTE that may not read the table may not');
$admin->query('GRANT SELECT ON keepalive_policy TO granted');
is(refusal($granted, "keepalive_explain('postgres', 'app')"), undef, 'one that may read the table may');
is(refusal($granted, 'keepalive_explain(pg_backend_pid())'), undef, 'and about its own session');
is(refusal($granted, 'keepalive_explain(' . $app->pid . ')'),
	'42501 permission denied to explain the session of PID ' . $app->pid, 'but not about those of others');

# --- policies that do not take effect ----------------------------------------------------------

$admin->query(q{BEGIN; INSERT INTO keepalive_policy (name, tcp_keepalives_idle)
	SELECT 'p' || i, '40s' FROM generate_series(1, 5) AS i});
$result = $admin->try(q{SELECT policy FROM keepalive_explain('postgres', 'app') WHERE kind = 'policy'});
is($result->{notices}[0]{message}, '7 keepalive policies are more than keepalive_guard.max_policies (6)',
	'too many policies give a WARNING');
is_deeply($result->{rows}, [ ['app'], ['baseline'] ], 'and those in force are explained');
$admin->query('ROLLBACK');

$admin->query(q{BEGIN; ALTER TABLE keepalive_policy DISABLE TRIGGER USER;
	INSERT INTO keepalive_policy (name, role, tcp_keepalives_interval, tcp_keepalives_idle)
	VALUES ('invalid', 'app', '1 day', '1s')});
$result = $admin->try(q{SELECT policy FROM keepalive_explain('postgres', 'app') WHERE kind = 'policy'});
like($result->{notices}[0]{message}, qr/skipping keepalive policy "invalid": invalid value for column "tcp_keepalives_interval": "1 day"/,
	'an invalid policy gives a WARNING');
is_deeply($result->{rows}, [ ['app'], ['baseline'] ], 'and is skipped');
$admin->query('ROLLBACK');

$node->append_conf('postgresql.conf', 'keepalive_guard.enabled = off');
$node->reload;
$node->wait_for_policies;
$admin->terminate;
$admin = $node->unix_session;
%row = map { $_->{policy} // $_->{kind} => $_ } explain($admin, q{'postgres', 'app', '10.77.1.2'});
is($row{app}{reason}, 'keepalive_guard.enabled is off', 'no policy matches while the guard is off');
is($row{outcome}{tcp_keepalives_interval}, $row{postgresql}{tcp_keepalives_interval}, 'the outcome is that of PostgreSQL');
$node->append_conf('postgresql.conf', 'keepalive_guard.enabled = on');
$node->reload;

# --- a standby -------------------------------------------------------------------------------

$node->backup('base');
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
my $there = $standby->unix_session;
is_deeply(gives(explain($there, q{'postgres', 'app', '10.77.1.2'})), $expected, 'a standby explains the replicated policies');

done_testing();
