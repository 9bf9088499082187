# Every kind of committed policy change reaches connected sessions within a second.  A
# change that is rolled back does not reach them.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 'logical', conf => <<'END');
max_prepared_transactions = 2
tcp_keepalives_idle = 7
END
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');

my $session = $node->session(user => 'app');
my $editor = $node->unix_session;
my $slowest = 0;

# Runs SQL, and tests that the session then gets this tcp_keepalives_idle.  Successive
# calls must use different values.
sub reaches
{
	my ($name, $sql, $idle) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ref $sql ? $sql->() : $editor->query($sql);
	my $seconds = wait_for_kernel($session, { idle => $idle }, 10);
	ok(defined $seconds, "a change by $name reaches a connected session");
	$slowest = $seconds if defined $seconds && $seconds > $slowest;
	return;
}

my $next = 100;
# A row for INSERT.  Sets $next to its idle time.  Later rows are first in match order.
sub row { return sprintf "('%s', %d, 'app', '%d s')", $_[0] // "p$next", -$next, ++$next }
my $insert = 'INSERT INTO keepalive_policy (name, priority, role, tcp_keepalives_idle) VALUES ';

# --- ways to write ------------------------------------------------------------------

reaches('INSERT', $insert . row('first'), $next);
reaches('UPDATE', "UPDATE keepalive_policy SET tcp_keepalives_idle = '31s'", 31);
reaches('DELETE', 'DELETE FROM keepalive_policy', 7);
reaches('COPY', sub {
		$node->safe_psql('postgres', "COPY keepalive_policy (name, tcp_keepalives_idle) FROM stdin;\n"
			  . "copied\t32s\ncopied too\t132s\n\\.\n");
	}, 32);
reaches('TRUNCATE', 'TRUNCATE keepalive_policy', 7);
reaches('INSERT ... SELECT', $insert . row('first') . ', ' . row('second'), $next);
reaches('ON CONFLICT DO UPDATE', $insert . row('second')
	  . " ON CONFLICT (name) DO UPDATE SET tcp_keepalives_idle = '33s'", 33);
reaches('MERGE', <<'END', 34);
MERGE INTO keepalive_policy p USING (VALUES ('first'), ('second')) v (name) ON p.name = v.name
	WHEN MATCHED AND v.name = 'first' THEN DELETE
	WHEN MATCHED THEN UPDATE SET tcp_keepalives_idle = '34s'
END
reaches('WITH ... UPDATE', <<'END', 35);
WITH u AS (UPDATE keepalive_policy SET tcp_keepalives_idle = '35s' RETURNING 1) SELECT * FROM u
END
reaches('UPDATE of the column enabled', 'UPDATE keepalive_policy SET enabled = false', 7);
reaches('UPDATE with session_replication_role = replica', <<'END', 36);
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE keepalive_policy SET tcp_keepalives_idle = '36s', enabled = true;
COMMIT
END
reaches('TRUNCATE with session_replication_role = replica', <<'END', 7);
BEGIN;
SET LOCAL session_replication_role = replica;
TRUNCATE keepalive_policy;
COMMIT
END

# --- transactions -------------------------------------------------------------------

$editor->query('BEGIN; ' . $insert . row('later'));
my $later = $next;
sleep 0.5;
kernel_has($session, { idle => 7 }, 'a session keeps its settings while the change is not committed');
reaches('COMMIT of an earlier INSERT', 'COMMIT', $later);

reaches('UPDATE in a released savepoint', <<"END", 37);
BEGIN; SAVEPOINT a; SAVEPOINT b;
UPDATE keepalive_policy SET tcp_keepalives_idle = '37s';
RELEASE a; COMMIT
END
reaches('UPDATE in a savepoint, another savepoint being rolled back', <<"END", 38);
BEGIN; SAVEPOINT a;
UPDATE keepalive_policy SET tcp_keepalives_idle = '38s';
SAVEPOINT b;
UPDATE keepalive_policy SET tcp_keepalives_idle = '39s';
ROLLBACK TO b; COMMIT
END
reaches('UPDATE in a PL/pgSQL block, another block having failed', <<'END', 40);
DO $$
BEGIN
	BEGIN
		UPDATE keepalive_policy SET tcp_keepalives_idle = '40s';
	END;
	BEGIN
		UPDATE keepalive_policy SET tcp_keepalives_idle = '41s';
		PERFORM 1/0;
	EXCEPTION WHEN division_by_zero THEN
	END;
END $$
END
$editor->query(<<'END');
CREATE PROCEDURE two_changes() LANGUAGE plpgsql AS $$
BEGIN
	UPDATE keepalive_policy SET tcp_keepalives_idle = '42s';
	COMMIT;
	UPDATE keepalive_policy SET tcp_keepalives_idle = '43s';
	PERFORM pg_sleep(1.5);
	ROLLBACK;
END $$
END
reaches('COMMIT in a procedure that continues', sub { $editor->send('CALL two_changes()') }, 42);
$editor->result;

# Tests that a later change does not bring the rolled-back change with it.
sub is_rolled_back
{
	my ($name, $sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$editor->query($sql);
	my $other = 200 + ++$next;
	reaches($name, "UPDATE keepalive_policy SET tcp_keepalives_idle = '$other s'", $other);
	is($node->status($session->pid)->{policy}, 'later', "$name: the rolled-back change is not in force");
	return;
}
is_rolled_back('UPDATE after a rolled-back INSERT',
	'BEGIN; ' . $insert . row('rolled back') . '; ROLLBACK');
is_rolled_back('UPDATE after a rolled-back TRUNCATE', 'BEGIN; TRUNCATE keepalive_policy; ROLLBACK');
is_rolled_back('UPDATE after an INSERT in a rolled-back savepoint',
	'BEGIN; SAVEPOINT a; ' . $insert . row('rolled back') . '; ROLLBACK TO a; COMMIT');

my $now = $next + 200;
my $refused = $editor->try("BEGIN; UPDATE keepalive_policy SET tcp_keepalives_idle = '50s';"
	  . "PREPARE TRANSACTION 'two-phase'");
is($refused->{error}{sqlstate}, '0A000', 'PREPARE TRANSACTION after a policy change is refused');
is($editor->try("COMMIT PREPARED 'two-phase'")->{error}{sqlstate}, '42704', 'the refused PREPARE TRANSACTION left no prepared transaction');
$editor->query("BEGIN; CREATE TABLE unrelated (); PREPARE TRANSACTION 'two-phase'");
$editor->query("COMMIT PREPARED 'two-phase'");
kernel_has($session, { idle => $now }, 'the refused PREPARE TRANSACTION did not change a session');
reaches('UPDATE after a refused PREPARE TRANSACTION', "UPDATE keepalive_policy SET tcp_keepalives_idle = '51s'", 51);

# --- TRUNCATE while the policy reader waits -----------------------------------------------

# Without triggers the commit does not request another reading, which would hide this one.
{
	my $reader = 'SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)'
	  . q{ WHERE NOT granted AND backend_type = 'keepalive_guard policy reader'};
	$editor->query('ALTER TABLE keepalive_policy DISABLE TRIGGER USER');
	$editor->query(q{BEGIN; CREATE TEMP TABLE saved ON COMMIT DROP AS SELECT * FROM keepalive_policy;
		TRUNCATE keepalive_policy; INSERT INTO keepalive_policy SELECT * FROM saved});
	my $other = $node->unix_session;
	$other->send(q{SELECT sessions, applied FROM keepalive_apply('30s')});
	ok($node->poll_query_until('postgres', $reader, 1), 'the policy reader waits for a transaction with TRUNCATE and INSERT');
	$editor->query('COMMIT');
	is($other->result->{rows}[0][1], 1, 'the policies that it commits are in force after that reading');
	$editor->query("ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER $_")
	  foreach qw(keepalive_policy_guard keepalive_policy_guard_count keepalive_policy_guard_truncate);
	kernel_has($session, { idle => 51 }, 'the session still has its policy');
}

# --- logical replication ----------------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE publisher');
$node->safe_psql('publisher', <<'END');
CREATE TABLE keepalive_policy (name text PRIMARY KEY, role text, tcp_keepalives_idle interval);
CREATE PUBLICATION policies FOR TABLE keepalive_policy;
SELECT pg_create_logical_replication_slot('policies', 'pgoutput');
END
$editor->query('TRUNCATE keepalive_policy');
my $publisher = $node->connstr('publisher');
$editor->query(<<"END");
CREATE SUBSCRIPTION policies CONNECTION '@{[$publisher =~ s/'/''/gr]}' PUBLICATION policies
	WITH (create_slot = false, copy_data = false, slot_name = 'policies')
END
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'})
  or die "no replication\n";
reaches('logical replication', sub {
		$node->safe_psql('publisher', "INSERT INTO keepalive_policy VALUES ('published', 'app', '52s')");
	}, 52);

cmp_ok($slowest, '<', 1, sprintf 'each change arrives within a second (the slowest took %.0f ms)', $slowest * 1000);
done_testing();
