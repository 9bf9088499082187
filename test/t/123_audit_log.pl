# The server log has one line for each transaction that changed policies: who, how many
# rows, and how many policies are in force after it.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings 'seconds_until';
use PostgreSQL::Test::Utils 'slurp_file';
use Test::More;
use Time::HiRes 'sleep';

my $node = KeepaliveGuard::Cluster->start_new('primary');
# From 19 on, the name of a role has no newline.
my $control = $node->pg_version->major < 19 ? "\n" : "\x0b";
my $odd = qq(two${control}lines" edited policies);
my $admin = $node->unix_session;
$admin->query(qq(CREATE ROLE "two${control}lines"" edited policies" LOGIN SUPERUSER; CREATE ROLE alice LOGIN; CREATE ROLE dba;)
	  . 'GRANT ALL ON keepalive_policy TO alice, dba; GRANT dba TO alice');
my $alice = $node->unix_session(user => 'alice');

# The lines that were logged since the last call, without their beginning.
my $from = $node->log_end;
sub lines
{
	my @lines = map { /LOG:  keepalive_guard: (.* edited policies .*)/ } split /\n/,
	  slurp_file($node->logfile, $from);
	return @lines;
}

# Runs SQL, and tests which lines are logged within a second.
sub logs
{
	my ($name, $session, $sql, @expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$from = $node->log_end;
	$session->try($sql);
	seconds_until(@expected ? 10 : 0.5, sub { @expected && lines() >= @expected });
	sleep 0.1;
	is_deeply([lines()], \@expected, $name);
	return;
}

sub line
{
	my ($role, $inserted, $updated, $deleted, $truncated, $in_force) = @_;
	return qq(role "$role" edited policies in database "postgres": $inserted rows inserted,)
	  . " $updated updated, $deleted deleted, $truncated truncated; policies in force: $in_force";
}

my $insert = 'INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ';

logs('INSERT', $alice, "$insert ('a', '1min'), ('b', '1min'), ('c', '1min')", line('alice', 3, 0, 0, 0, 3));
logs('UPDATE', $alice, q{UPDATE keepalive_policy SET comment = 'x'}, line('alice', 0, 3, 0, 0, 3));
logs('a policy that is disabled', $alice, q{UPDATE keepalive_policy SET enabled = false WHERE name = 'c'},
	line('alice', 0, 1, 0, 0, 2));
logs('DELETE', $alice, q{DELETE FROM keepalive_policy WHERE name = 'c'}, line('alice', 0, 0, 1, 0, 2));
logs('several statements in a transaction', $alice,
	"BEGIN; $insert ('c', '1min'), ('d', '1min'); UPDATE keepalive_policy SET priority = 1; DELETE FROM keepalive_policy WHERE name = 'd'; COMMIT",
	line('alice', 2, 4, 1, 0, 3));
logs('ON CONFLICT DO UPDATE', $alice, "$insert ('c', '2min'), ('e', '2min') ON CONFLICT (name) DO UPDATE SET comment = 'y'",
	line('alice', 1, 1, 0, 0, 4));
logs('ON CONFLICT DO NOTHING', $alice, "$insert ('c', '2min') ON CONFLICT DO NOTHING");
logs('a statement that finds no row', $alice, q{DELETE FROM keepalive_policy WHERE name = 'x'});
logs('the role of the session is logged, whatever SET ROLE says', $alice,
	"SET ROLE dba; DELETE FROM keepalive_policy WHERE name = 'e'; RESET ROLE", line('alice', 0, 0, 1, 0, 3));
logs('TRUNCATE in a new session', $node->unix_session(user => 'alice'), 'TRUNCATE keepalive_policy', line('alice', 0, 0, 0, 3, 0));
logs('TRUNCATE and INSERT', $alice, "BEGIN; $insert ('a', '1min'); TRUNCATE keepalive_policy; $insert ('b', '1min'); COMMIT",
	line('alice', 2, 0, 0, 1, 1));

# --- what is not committed -----------------------------------------------------------------

logs('ROLLBACK', $alice, "BEGIN; $insert ('c', '1min'); ROLLBACK");
logs('an invalid policy', $alice, "$insert ('c', '1 month')");
logs('an error at the end', $alice, "BEGIN; $insert ('c', '1min'); SELECT 1/0; COMMIT");
$alice->query('ROLLBACK');
logs('savepoints that are rolled back', $alice, <<"END", line('alice', 3, 0, 0, 0, 4));
BEGIN;
SAVEPOINT a; $insert ('c', '1min'); ROLLBACK TO a;
SAVEPOINT b; $insert ('d', '1min'); SAVEPOINT c; $insert ('e', '1min'); RELEASE c; RELEASE b;
SAVEPOINT d; SAVEPOINT e; $insert ('f', '1min'), ('g', '1min'); RELEASE e; ROLLBACK TO d;
$insert ('h', '1min');
COMMIT
END
logs('only savepoints that are rolled back', $alice, "BEGIN; SAVEPOINT a; $insert ('x', '1min'); ROLLBACK TO a; COMMIT");

# --- names -----------------------------------------------------------------------------------

my $session = $node->unix_session(user => $odd);
logs('a role name cannot forge a line', $session, "$insert ('x', '1min')",
	line(sprintf('two\x%02xlines"" edited policies', ord $control), 1, 0, 0, 0, 5));

# --- many at a time --------------------------------------------------------------------------

# More than the worker is told of at a time.
$from = $node->log_end;
$admin->query(
	q{DO $$BEGIN FOR i IN 1..300 LOOP UPDATE keepalive_policy SET priority = i WHERE name = 'b'; COMMIT; END LOOP; END$$});
seconds_until(10, sub { lines() == 300 });
is(scalar(grep { /^role "postgres" .*: 0 rows inserted, 1 updated, 0 deleted, 0 truncated; / } lines()), 300,
	'each of many edits has its line');

# --- without the worker ------------------------------------------------------------------------

my ($worker) = map { $_->[0] } @{ $admin->query(
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'keepalive_guard worker'}) };
kill 'STOP', $worker;
$from = $node->log_end;
$admin->query(q{UPDATE keepalive_policy SET priority = 1 WHERE name = 'b'});
is_deeply([lines()], [], 'the line is logged once the policies are in force');
kill 'CONT', $worker;
seconds_until(10, sub { lines() == 1 });
is_deeply([lines()], [ line('postgres', 0, 1, 0, 0, 5) ], 'a worker that was stopped logs the line');

kill 'STOP', $worker;
$from = $node->log_end;
$admin->query(q{UPDATE keepalive_policy SET priority = 2 WHERE name = 'b'});
kill 'TERM', $worker;
kill 'CONT', $worker;
seconds_until(10, sub { lines() == 1 });
like((lines())[0], qr/^role "postgres" .* 1 updated, .*; they are not in force yet$/, 'a worker that is terminated logs the line');

$node->append_conf('postgresql.conf', 'keepalive_guard.enabled = off');
$node->reload;
$node->wait_for_policies; # the next worker has seen it
$from = $node->log_end;
$admin->query(q{UPDATE keepalive_policy SET priority = 3 WHERE name = 'b'});
seconds_until(10, sub { lines() == 1 });
like((lines())[0], qr/1 updated, .*; keepalive_guard\.enabled is off$/, 'keepalive_guard.enabled = off is in the line');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
