# Changes of roles, of the policy database and of the table's triggers on a primary are
# noticed on its standby.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(wait_for_kernel);
use Test::More;

my $primary = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1,
	conf => "keepalive_guard.database = 'guarded'\n");
my $admin = $primary->session;
$admin->query($_) foreach 'CREATE ROLE app LOGIN', 'CREATE ROLE crew', 'CREATE DATABASE guarded';
$primary->safe_psql('guarded', <<'END');
CREATE EXTENSION keepalive_guard;
INSERT INTO keepalive_policy (name, priority, role, tcp_keepalives_idle)
	VALUES ('all', 100, NULL, '60s'), ('crew', 1, '+crew', '61s'), ('renamed', 1, 'renamed', '62s')
END
$primary->backup('base');
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
my $session = $standby->session(user => 'app');

# Runs SQL on the primary, and tests that the session on the standby has that
# tcp_keepalives_idle soon after.
sub reaches
{
	my ($name, $sql, $idle) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$admin->query($_) foreach split /;\s*/, $sql;
	my $took = wait_for_kernel($session, { idle => $idle }, 10);
	cmp_ok($took // 10, '<', 3, $name);
	return;
}

reaches('a policy', 'SELECT 1', 60);
reaches('GRANT', 'GRANT crew TO app', 61);
reaches('REVOKE', 'REVOKE crew FROM app', 60);
reaches('ALTER ROLE ... RENAME', 'ALTER ROLE app RENAME TO renamed', 62);
reaches('ALTER ROLE ... RENAME back', 'ALTER ROLE renamed RENAME TO app', 60);
my $from = $standby->log_end;
reaches('ALTER DATABASE ... RENAME', 'ALTER DATABASE guarded RENAME TO away', 7200);
is($standby->log_count(qr/keepalive_guard: waiting for database "guarded" to exist/, $from), 1,
	'the server log of the standby says once that the database is missing');
reaches('ALTER DATABASE ... RENAME back', 'ALTER DATABASE away RENAME TO guarded', 60);
$admin->query('CREATE DATABASE copy TEMPLATE guarded');
reaches('DROP DATABASE', 'DROP DATABASE guarded', 7200);
is($standby->log_count(qr/keepalive_guard: waiting for database "guarded" to exist/, $from), 2,
	'the server log of the standby says once that the database was dropped');
reaches('ALTER DATABASE ... RENAME of a copy', 'ALTER DATABASE copy RENAME TO guarded', 60);

my $editor = $primary->session(dbname => 'guarded');
$editor->query('ALTER TABLE keepalive_policy DISABLE TRIGGER ALL');
$editor->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '63s' WHERE name = 'all'});
reaches('an edit without the triggers', 'SELECT 1', 63);
$editor->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '64s' WHERE name = 'all'});
reaches('another edit without the triggers', 'SELECT 1', 64);

is($standby->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log of the standby has no crash');

done_testing();
