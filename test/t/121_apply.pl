# keepalive_apply() warns of what its counts do not show.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;
use Time::HiRes 'time';

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
keepalive_guard.database = 'guarded'
keepalive_guard.max_policies = 3
END
my $admin = $node->unix_session;

# The message and the detail or hint of the warnings of keepalive_apply().
sub warnings_of
{
	my ($session, $argument) = @_;
	my $result = $session->try("SELECT * FROM keepalive_apply($argument)");
	return join '; ', map { "$_->{severity}: $_->{message}: " . ($_->{detail} // $_->{hint} // '') } @{ $result->{notices} };
}

is(warnings_of($admin, ''),
	'WARNING: no keepalive policies are in force: Database "guarded" (keepalive_guard.database) does not exist.',
	'a missing database');
$admin->query('CREATE DATABASE guarded');
is(warnings_of($admin, ''),
	'WARNING: no keepalive policies are in force: Database "guarded" (keepalive_guard.database) has no extension keepalive_guard.',
	'a missing extension');

my $editor = $node->unix_session(dbname => 'guarded');
$editor->query('CREATE EXTENSION keepalive_guard');
is(warnings_of($editor, ''), '', 'no policies');
my $insert = q{INSERT INTO keepalive_policy (name, client_connection_check_interval) VALUES };

# --- transactions ------------------------------------------------------------------------

my $warning = 'WARNING: uncommitted changes of keepalive policies are not applied: '
  . 'Commit them. Committed changes are applied without a call of keepalive_apply().';
$editor->query("BEGIN; $insert ('a', '1min')");
is(warnings_of($editor, ''), $warning, 'a transaction that has changed policies');
$editor->query('COMMIT');
is(warnings_of($editor, ''), '', 'after COMMIT');
$editor->query("BEGIN; SAVEPOINT s; $insert ('b', '1min'); ROLLBACK TO s");
is(warnings_of($editor, ''), '', 'after ROLLBACK TO a savepoint');
$editor->query("SAVEPOINT s; $insert ('b', '1min'); RELEASE s");
is(warnings_of($editor, ''), $warning, 'after RELEASE');
$editor->query('ROLLBACK');

# --- counts -----------------------------------------------------------------------------

seconds_until(20, sub { $editor->value('SELECT count(*) FROM keepalive_status()') == 2 }) // die "other sessions\n";
is(join(' ', @{ $editor->query('SELECT * FROM keepalive_apply()')->[0] }), '2 2 0 0 0 0', 'all sessions have a policy');
$editor->query(q{UPDATE keepalive_policy SET database = 'guarded'});
is(join(' ', @{ $editor->query('SELECT * FROM keepalive_apply()')->[0] }), '2 1 0 0 0 1',
	'one session has a policy, one has none');
is($editor->value('SELECT sessions = applied + overridden + failed + pending + without_policy FROM keepalive_apply()'),
	't', 'the sum of the counts is the number of sessions');

# --- the table ----------------------------------------------------------------------------

$editor->query("$insert ('b', '1min'), ('c', '1min'), ('d', '1min')");
like(warnings_of($editor, ''), qr/^WARNING: 4 keepalive policies are more than keepalive_guard\.max_policies \(3\)/, 'too many policies');
$editor->query(q{DELETE FROM keepalive_policy WHERE name = 'd'});
is(warnings_of($editor, ''), '', 'few enough policies');
$editor->query('ALTER TABLE keepalive_policy RENAME TO other');
like(warnings_of($editor, ''), qr/^WARNING: /, 'a renamed table');
$editor->query('ALTER TABLE other RENAME TO keepalive_policy');
is(warnings_of($editor, ''), '', 'a table that is renamed back');

# --- the timeout ----------------------------------------------------------------------------

my $locker = $node->unix_session(dbname => 'guarded');
$locker->query('BEGIN; LOCK TABLE keepalive_policy');
foreach my $case ([ '0s', 0 ], [ '-1s', 0 ], [ '0.3s', 0.3 ])
{
	my ($timeout, $seconds) = @$case;
	my $start = time;
	is(warnings_of($editor, "'$timeout'"),
		'WARNING: timed out waiting for policies to be reloaded: The keepalive_guard worker has not finished.',
		"timeout $timeout");
	cmp_ok(time - $start, '>=', $seconds, "timeout $timeout: not too short");
	cmp_ok(time - $start, '<', 4, "timeout $timeout: not too long"); # the default is 5 s
}
$locker->query('COMMIT');
is(warnings_of($editor, q{'1 month'}), '', 'a long timeout');

done_testing();
