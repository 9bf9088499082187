# keepalive_preview(): what COMMIT would do is what it then does, for each connected
# session and no other; who may ask, and where.
use strict;
use warnings;

use JSON::PP 'decode_json';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use Test::More;

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 1, conf => "keepalive_guard.max_policies = 20\n");
$node->safe_psql('postgres', <<'END');
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
CREATE ROLE team;
CREATE ROLE granted LOGIN;
GRANT EXECUTE ON FUNCTION keepalive_preview() TO granted;
CREATE DATABASE shop;
\c shop
CREATE EXTENSION keepalive_guard;
END
$node->policy(name => 'baseline', priority => 1000, tcp_keepalives_idle => '90s',
	tcp_keepalives_interval => '9s', tcp_keepalives_count => 7, dead_after => '60s');
$node->wait_for_policies;

my %session = (
	app => $node->session(host => $host, user => 'app'),
	chooser => $node->session(host => $host, user => 'app', options => '-c tcp_keepalives_idle=20'),
	shop => $node->session(host => $host, user => 'app', dbname => 'shop'),
	other => $node->session(host => $host, user => 'other'),
	unix => $node->unix_session(user => 'app'),
	walsender => $node->session(host => $host, user => 'postgres', replication => 'true'));
my %name_of = map { $session{$_}->pid => $_ } keys %session;
my $admin = $node->unix_session(user => 'postgres', dbname => 'postgres');
$name_of{ $admin->pid } = 'admin';

# The rows of keepalive_preview(): { session => { column => value } }, without those of
# a psql that is still exiting.
sub preview
{
	my ($session) = @_;
	return map { $name_of{ $_->{pid} } => $_ } grep { $name_of{ $_->{pid} } } map { decode_json($_->[0]) }
	  @{ ($session // $admin)->query('SELECT to_json(p) FROM keepalive_preview() AS p') };
}

# What keepalive_status() shows of all sessions, as far as keepalive_preview() foretells
# it: { session => { column => value } }.
my @values = qw(keepalive tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count
  tcp_user_timeout client_connection_check_interval);
sub statuses
{
	my %statuses;
	foreach my $name (values %name_of)
	{
		my ($pid) = grep { $name_of{$_} eq $name } keys %name_of;
		my $status = $node->status($pid);
		$statuses{$name} = { map { $_ => $status->{$_} } @values, qw(policies detects_idle detects_busy) };
	}
	return \%statuses;
}

# Makes a change and tests that the sessions that keepalive_preview() names change in the
# way it says, and that no other session changes.
sub foretells
{
	my ($name, $changed, $change) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = statuses();
	$admin->query('BEGIN; SET LOCAL client_min_messages = error');
	$admin->query($change);
	my %preview = preview();
	is_deeply([ sort keys %preview ], [ sort @$changed ], "$name: the sessions that would change");

	my %expected = %$before;
	foreach my $session (keys %preview)
	{
		my $row = $preview{$session};
		is_deeply([ @$row{qw(policies_now detects_idle_now detects_busy_now)} ],
			[ @{ $before->{$session} }{qw(policies detects_idle detects_busy)} ], "$name: $session as it is now");
		my %then = %{ $before->{$session} };
		@then{qw(policies detects_idle detects_busy)} = @$row{qw(policies_then detects_idle_then detects_busy_then)};
		foreach my $setting (@values)
		{
			my $pair = $row->{changes}{$setting} or next;
			is_deeply($pair->[0], $then{$setting}, "$name: $session, $setting now");
			$then{$setting} = $pair->[1];
		}
		$expected{$session} = \%then;
	}
	$admin->query('COMMIT');
	$node->wait_for_policies;
	is_deeply(statuses(), \%expected, "$name: COMMIT changes the sessions like that");
	is_deeply({ preview() }, {}, "$name: nothing would change after it");
	return %preview;
}

is_deeply({ preview() }, {}, 'nothing would change without a change');

my %preview = foretells('a policy for a role', [ qw(app chooser shop unix) ],
	q{INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle, dead_after, client_connection_check_interval)
		VALUES ('app', 'app', '30s', '25s', '5s')});
is_deeply($preview{app}{changes}, {
		tcp_keepalives_idle => [ '00:01:30', '00:00:30' ],
		dead_after => [ '00:01:00', '00:00:25' ],
		client_connection_check_interval => [ '00:00:00', '00:00:05' ] },
	'changes has each setting that changes');
is_deeply([ @{ $preview{app} }{qw(datname usename client_addr)} ], [ 'postgres', 'app', $host->address ],
	'the session is described');
is_deeply([ sort keys %{ $preview{chooser}{changes} } ], [ qw(client_connection_check_interval dead_after) ],
	'a session that chose its own value keeps it');
is_deeply($preview{unix}{changes}, { client_connection_check_interval => [ '00:00:00', '00:00:05' ] },
	'over a Unix socket only the client check changes');

%preview = foretells('enforcement', ['chooser'],
	q{UPDATE keepalive_policy SET enforcement = 'locked' WHERE name = 'app'});
is_deeply($preview{chooser}{changes}, { tcp_keepalives_idle => [ '00:00:20', '00:00:30' ] },
	'a locked policy takes a session its choice away');
foretells('a policy for a database', ['shop'],
	q{INSERT INTO keepalive_policy (name, role, database, tcp_keepalives_count) VALUES ('shop', 'app', '/^shop', 3)});
foretells('a policy that gives what another one gave', [ qw(admin app chooser other unix walsender) ],
	q{INSERT INTO keepalive_policy (name, priority, tcp_keepalives_count) VALUES ('same count', 500, 7)});
foretells('a policy that gives nothing', [],
	q{INSERT INTO keepalive_policy (name, priority, tcp_keepalives_count) VALUES ('late', 2000, 8)});
foretells('a policy for a group', [],
	q{INSERT INTO keepalive_policy (name, role, keepalive, tcp_user_timeout) VALUES ('team', '+team', false, '40s')});
%preview = foretells('GRANT', ['other'], 'GRANT team TO other');
is_deeply($preview{other}{changes}, { keepalive => [ JSON::PP::true, JSON::PP::false ], tcp_user_timeout => [ '00:00:00', '00:00:40' ] },
	'keepalive is among the changes');
foretells('a policy for replication', ['walsender'],
	q{INSERT INTO keepalive_policy (name, backend, tcp_keepalives_interval, final) VALUES ('replication', 'replication', '4s', true)});
%preview = foretells('log_only', [ qw(app chooser shop unix) ],
	q{INSERT INTO keepalive_policy (name, priority, role, dead_after, stall_timeout, log_only)
		VALUES ('trial', 1, 'app', '20s', '30s', true)});
is_deeply($preview{app}{changes},
	{ 'dead_after (log only)' => [ undef, '00:00:20' ], 'stall_timeout (log only)' => [ undef, '00:00:30' ] },
	'what would be logged only is told apart');
foretells('a disabled policy', [ qw(app chooser shop unix) ],
	q{UPDATE keepalive_policy SET enabled = false WHERE name = 'trial'});

$admin->query('BEGIN; DELETE FROM keepalive_policy');
is_deeply([ sort keys %{ { preview() } } ], [ qw(admin app chooser other shop unix walsender) ],
	'without any policy all sessions would change');
$admin->query('ROLLBACK');
is_deeply({ preview() }, {}, 'nothing would change after ROLLBACK');

# --- COMMIT would do nothing -------------------------------------------------------------

$admin->query(q{BEGIN; INSERT INTO keepalive_policy (name, tcp_keepalives_idle)
	SELECT 'p' || i, '1s' FROM generate_series(1, 20) AS i});
my $result = $admin->try('SELECT count(*) FROM keepalive_preview()');
is($result->{rows}[0][0], 0, 'more than max_policies would change no session');
like($result->{notices}[0]{message}, qr/^\d+ keepalive policies are more than keepalive_guard.max_policies \(20\)$/,
	'a WARNING says why');
$admin->query('ROLLBACK');

$admin->query(q{BEGIN; ALTER TABLE keepalive_policy DISABLE TRIGGER USER;
	UPDATE keepalive_policy SET tcp_keepalives_idle = '1 month' WHERE name = 'app'});
$result = $admin->try(q{SELECT changes ->> 'tcp_keepalives_idle' FROM keepalive_preview() WHERE pid = } . $session{app}->pid);
is_deeply($result->{rows}, [ ['["00:00:30", "00:01:30"]'] ], 'an invalid policy is skipped: the next one gives its settings');
like($result->{notices}[0]{message}, qr/skipping keepalive policy "app"/, 'a WARNING says so');
$admin->query('ROLLBACK');

# --- who may ask, and where ----------------------------------------------------------------

sub refusal
{
	my ($session) = @_;
	my $error = $session->try('SELECT * FROM keepalive_preview()')->{error};
	return $error && "$error->{sqlstate} $error->{message}";
}
is(refusal($session{app}), '42501 permission denied for function keepalive_preview', 'an ordinary role may not ask');
my $granted = $node->session(host => $host, user => 'granted');
$name_of{ $granted->pid } = 'granted';
is(refusal($granted), '42501 permission denied for table keepalive_policy',
	'a role with EXECUTE that may not read the table may not ask');
$admin->query('GRANT SELECT, UPDATE ON keepalive_policy TO granted');
$granted->query(q{BEGIN; UPDATE keepalive_policy SET tcp_keepalives_interval = '8s' WHERE name = 'baseline'});
%preview = preview($granted);
is_deeply($preview{granted}{changes}, { tcp_keepalives_interval => [ '00:00:09', '00:00:08' ] },
	'one that may read the table may');
is_deeply({ map { $_ => $preview{app}{$_} } grep { defined $preview{app}{$_} } keys %{ $preview{app} } },
	{ pid => $session{app}->pid, datname => 'postgres', usename => 'app' },
	'but sees no more of the sessions of others than in pg_stat_activity');
$granted->query('ROLLBACK');

is(refusal($node->unix_session(user => 'postgres', dbname => 'shop')),
	'55000 cannot preview keepalive policies in database "shop"', 'in another database it is an error');

$node->backup('base');
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
is(refusal($standby->unix_session(user => 'postgres')), '55000 cannot preview keepalive policies during recovery',
	'on a standby it is an error');
$standby->stop;

$node->append_conf('postgresql.conf', 'keepalive_guard.enabled = off');
$node->reload;
$node->wait_for_policies;
$admin->query('BEGIN; DELETE FROM keepalive_policy');
$result = $admin->try('SELECT * FROM keepalive_preview()');
is_deeply([ $result->{rows}, $result->{notices}[0]{message} ],
	[ [], 'no session would change: keepalive_guard.enabled is off' ], 'while the guard is off, a NOTICE says so');

done_testing();
