# Changes that no trigger of the table tells of reach connected sessions all the same:
# prepared transactions, ALTER TABLE, edits without the triggers, and dropped roles.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(kernel_has policy_of wait_for_kernel);
use Test::More;
use Time::HiRes 'sleep';

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
max_prepared_transactions = 2
END
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE ROLE crew; CREATE ROLE temporary LOGIN');
my $admin = $node->unix_session;
my $session = $node->session(user => 'app');

# Runs SQL, and tests that the session then has that tcp_keepalives_idle.
sub reaches
{
	my ($name, $sql, $idle, $seconds) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$admin->query($sql);
	my $took = wait_for_kernel($session, { idle => $idle }, 10);
	cmp_ok($took // 10, '<', $seconds // 1, $name);
	return;
}

# The same for SQL in a prepared transaction, which has no effect before it is committed.
sub prepared_reaches
{
	my ($name, $sql, $before, $idle) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$admin->query("BEGIN; $sql; PREPARE TRANSACTION 'p'");
	sleep 0.2;
	kernel_has($session, { idle => $before }, "$name is prepared");
	my $other = $node->unix_session; # any session can commit it
	$other->query("COMMIT PREPARED 'p'");
	$other->terminate;
	reaches("$name in a prepared transaction", 'SELECT 1', $idle);
	return;
}

my $policy = 'INSERT INTO keepalive_policy (name, priority, role, tcp_keepalives_idle) VALUES ';
$admin->query("$policy ('all', 100, NULL, '60s'), ('crew', 1, '+crew', '61s'), ('renamed', 2, 'renamed', '62s')");
$node->wait_for_policies;

# --- prepared transactions --------------------------------------------------------------

kernel_has($session, { idle => 60 }, 'the session has a policy');
prepared_reaches('GRANT', 'GRANT crew TO app', 60, 61);
prepared_reaches('REVOKE', 'REVOKE crew FROM app', 61, 60);
prepared_reaches('ALTER ROLE ... RENAME', 'ALTER ROLE app RENAME TO renamed', 60, 62);
prepared_reaches('ALTER ROLE ... RENAME back', 'ALTER ROLE renamed RENAME TO app', 62, 60);
prepared_reaches('ALTER GROUP ... ADD USER', 'ALTER GROUP crew ADD USER app', 60, 61);
prepared_reaches('ALTER GROUP ... DROP USER', 'ALTER GROUP crew DROP USER app', 61, 60);
prepared_reaches('DROP EXTENSION', 'DROP EXTENSION keepalive_guard', 60, 7200);
prepared_reaches('CREATE EXTENSION', 'CREATE EXTENSION keepalive_guard', 7200, 7200);
reaches('the extension works after it', "$policy ('all', 100, NULL, '63s')", 63);
$admin->query($_) foreach "BEGIN; GRANT crew TO app; PREPARE TRANSACTION 'p'", "ROLLBACK PREPARED 'p'";

# --- ALTER TABLE -----------------------------------------------------------------------------

reaches('ALTER TABLE ... USING', <<'END', 64);
ALTER TABLE keepalive_policy ALTER tcp_keepalives_idle TYPE interval USING tcp_keepalives_idle + '1s'
END
reaches('ALTER TABLE ... RENAME, which leaves the policies in force', 'ALTER TABLE keepalive_policy RENAME TO other', 64);
reaches('ALTER TABLE ... RENAME back', 'ALTER TABLE other RENAME TO keepalive_policy', 64);
prepared_reaches('ALTER TABLE ... USING', <<'END', 64, 65);
ALTER TABLE keepalive_policy ALTER tcp_keepalives_idle TYPE interval USING tcp_keepalives_idle + '1s'
END

# --- edits without the triggers ------------------------------------------------------------------

my $from = $node->log_end;
my $line = qr/LOG:  keepalive_guard: the triggers of table keepalive_policy do not always fire/;
reaches('an edit in the transaction that disables the trigger', <<'END', 66);
BEGIN;
ALTER TABLE keepalive_policy DISABLE TRIGGER ALL;
UPDATE keepalive_policy SET tcp_keepalives_idle = '66s';
COMMIT
END
reaches('an edit while the triggers are disabled', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '67s'}, 67, 2.5);
reaches('another edit while the triggers are disabled', 'DELETE FROM keepalive_policy', 7200, 2.5);
reaches('an edit in the transaction that enables the triggers', <<"END", 68);
BEGIN; $policy ('all', 100, NULL, '68s'), ('bad', 100, NULL, '1 month'); ALTER TABLE keepalive_policy ENABLE TRIGGER ALL; COMMIT
END
reaches('session_replication_role = replica, after ENABLE TRIGGER', <<'END', 69, 2.5);
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE keepalive_policy SET tcp_keepalives_idle = '69s' WHERE name = 'all';
COMMIT
END
sleep 2.5;
is($node->log_count($line, $from), 1, 'the server log says once that the triggers do not always fire');
is($node->log_count(qr/skipping keepalive policy "bad"/, $from), 1, 'the server log says once that an invalid row is skipped');
$admin->query(q{DELETE FROM keepalive_policy WHERE name = 'bad'});

# How pg_restore --data-only --disable-triggers does it.
$admin->query('DELETE FROM keepalive_policy');
$node->wait_for_policies;
$admin->query($_) foreach 'ALTER TABLE keepalive_policy DISABLE TRIGGER ALL', "$policy ('restored', 1, NULL, '70s')",
  'ALTER TABLE keepalive_policy ENABLE TRIGGER ALL';
reaches('a restore with --disable-triggers', 'SELECT 1', 70, 2.5);

$admin->query(<<'END');
ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard;
ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard_count;
ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard_truncate;
END
$node->wait_for_policies;
my $readers = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'keepalive_guard policy reader'};
$node->poll_query_until('postgres', "SELECT ($readers) = 0");
my $seen = 0;
foreach (1 .. 150)
{
	$seen += $admin->value($readers);
	sleep 0.01;
}
is($seen, 0, 'the table is read every second no longer');
reaches('DROP TRIGGER', <<'END', 71, 2.5);
DROP TRIGGER keepalive_policy_guard ON keepalive_policy;
UPDATE keepalive_policy SET tcp_keepalives_idle = '71s'
END

# --- a dropped role ------------------------------------------------------------------------------

my $temporary = $node->session(user => 'temporary');
reaches('a locked policy', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '72s', enforcement = 'locked'}, 72, 2.5);
$admin->query('DROP ROLE temporary');
$node->wait_for_policies;
is(policy_of($node, $temporary), 'restored', 'a session whose role was dropped keeps its policy');
kernel_has($temporary, { idle => 72 }, 'a session whose role was dropped keeps its settings');
isnt($temporary->try('SET tcp_keepalives_idle = 5')->{error}, undef, 'a locked setting stays locked');
reaches('a change', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '73s'}, 73, 2.5);
ok(defined wait_for_kernel($temporary, { idle => 73 }, 5), 'a session whose role was dropped gets a change');
$admin->query(q{UPDATE keepalive_policy SET role = 'temporary'});
$node->wait_for_policies;
kernel_has($temporary, { idle => 73 }, 'a session whose role was dropped matches by the name of its login');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
