# The worker waits until the database and the extension exist, logs that once, and waits
# again when they are dropped.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;
use Time::HiRes qw(sleep usleep);

# start_new() creates the extension in the database postgres, which is not used here.
my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
keepalive_guard.database = 'guarded'
log_min_messages = log
END
my $session = $node->session;

# Runs SQL, and waits until the session has this tcp_keepalives_idle.
sub reaches
{
	my ($name, $database, $sql, $idle) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql($database, $sql);
	return ok(defined wait_for_kernel($session, { idle => $idle }, 10), $name);
}

# Runs SQL, and waits until the log has a matching line.
my $log = 0;
sub logs
{
	my ($name, $database, $sql, $pattern) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $from = $node->log_end;
	$node->safe_psql($database, $sql) if $sql;
	my $left = 500;
	usleep(20_000) until $node->log_count($pattern, $from) || !$left--;
	return is($node->log_count($pattern, $from), 1, $name);
}

# The number of matching log lines since the last call.  There is one at least.
sub since
{
	my ($pattern) = @_;
	my $left = 500;
	usleep(20_000) until $node->log_count($pattern, $log) || !$left--;
	sleep 0.3;
	my $count = $node->log_count($pattern, $log);
	$log = $node->log_end;
	return $count;
}

my $no_database = qr/LOG:  keepalive_guard: waiting for database "guarded" to exist/;
my $no_extension =
  qr/LOG:  keepalive_guard: waiting for CREATE EXTENSION keepalive_guard in database "guarded"/;
my $policy = "INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('p', '21s')";

# --- no database ------------------------------------------------------------------

my ($status, undef, $error) = $node->psql('postgres', $policy);
isnt($status, 0, 'INSERT of a policy in another database is refused');
like($error, qr/cannot be edited in database "postgres".*\nHINT:  Connect to database "guarded"/s,
	'the error has a hint that names the policy database');

# Each of these makes the worker look for the database.
$node->safe_psql('postgres', $_) foreach 'CREATE DATABASE a', 'DROP EXTENSION plpgsql',
  'DROP DATABASE a', 'CREATE EXTENSION plpgsql';
is(since($no_database), 1, 'the worker logs once that it waits for the database');
kernel_has($node->session, { idle => 7200 }, 'sessions start without policies while the database does not exist');

# --- the database, without and with the extension ----------------------------------

logs('the worker notices a new database', 'postgres', 'CREATE DATABASE guarded', $no_extension);
$node->safe_psql('guarded', $_) foreach 'CREATE TABLE keepalive_policy ()', 'DROP TABLE keepalive_policy',
  'DROP EXTENSION plpgsql', 'CREATE EXTENSION plpgsql';
is(since($no_extension), 1, 'the worker logs once that it waits for the extension');
logs('the worker notices a new extension in any schema', 'guarded',
	'CREATE SCHEMA "Odd"; CREATE EXTENSION keepalive_guard SCHEMA "Odd"',
	qr/0 keepalive policies of database "guarded" are in force/);
reaches('a policy of the new extension is in force', 'guarded', 'SET search_path = "Odd"; ' . $policy, 21);
kernel_has($node->session, { idle => 21 }, 'a policy of the new extension is in force in new sessions');

# --- another table of the same name --------------------------------------------------

$node->safe_psql('guarded', <<'END');
CREATE TABLE public.keepalive_policy (LIKE "Odd".keepalive_policy INCLUDING DEFAULTS);
INSERT INTO public.keepalive_policy (name, priority, enforcement, enabled, tcp_keepalives_idle)
	VALUES ('impostor', -1, 'default', true, '66s');
END
reaches('the worker ignores another table named keepalive_policy', 'guarded',
	q(UPDATE "Odd".keepalive_policy SET tcp_keepalives_idle = '22s'), 22);

# --- the extension is dropped and created ------------------------------------------

reaches('DROP EXTENSION removes policies from sessions', 'guarded', 'BEGIN; DROP EXTENSION keepalive_guard; COMMIT', 7200);
is(since($no_extension), 1, 'the worker logs once that the extension is missing again');
reaches('CREATE EXTENSION and a policy in one transaction are in force', 'guarded',
	"BEGIN; DROP TABLE keepalive_policy; CREATE EXTENSION keepalive_guard; $policy; COMMIT", 21);
reaches('a rolled-back DROP EXTENSION changes nothing', 'guarded', <<'END', 23);
BEGIN; DROP EXTENSION keepalive_guard; ROLLBACK;
UPDATE keepalive_policy SET tcp_keepalives_idle = '23s'
END
reaches('DROP SCHEMA ... CASCADE removes policies from sessions', 'guarded', <<'END', 7200);
DROP EXTENSION keepalive_guard; CREATE SCHEMA s; CREATE EXTENSION keepalive_guard SCHEMA s;
INSERT INTO s.keepalive_policy (name, tcp_keepalives_idle) VALUES ('p', '24s');
DROP SCHEMA s CASCADE
END
reaches('policies are in force after CREATE EXTENSION following DROP SCHEMA', 'guarded', "CREATE EXTENSION keepalive_guard; $policy", 21);

# --- the database is renamed, copied and dropped -------------------------------------

$log = $node->log_end;
reaches('ALTER DATABASE ... RENAME removes policies from sessions', 'postgres', 'ALTER DATABASE guarded RENAME TO away', 7200);
is(since($no_database), 1, 'the worker logs once that the database is missing again');
reaches('renaming the database back brings its policies into force', 'postgres', 'ALTER DATABASE away RENAME TO guarded', 21);
$node->safe_psql('guarded', "UPDATE keepalive_policy SET tcp_keepalives_idle = '25s'");
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE guarded');
is($node->safe_psql('copy', 'SELECT tcp_keepalives_idle FROM keepalive_policy'), '00:00:25',
	'the database can be a template while the policy reader works');
# So that no policy reader connects while the database is dropped.
$node->wait_for_policies;
reaches('DROP DATABASE removes policies from sessions', 'postgres', 'DROP DATABASE guarded', 7200);
reaches('policies of a database that takes the name are in force', 'postgres', 'ALTER DATABASE copy RENAME TO guarded', 25);
$node->safe_psql('postgres', 'ALTER DATABASE guarded ALLOW_CONNECTIONS false');
is($node->log_count(qr/PANIC|FATAL|crash|terminated/), 0, 'the log has no failure');

$node->restart;
$session = $node->session;
ok(defined wait_for_kernel($session, { idle => 25 }, 10), 'policies are in force while the database allows no connections');

done_testing();
