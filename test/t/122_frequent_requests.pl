# Ordinary roles that have the worker look again and again, in whatever way, delay nobody:
# sessions do not become pending, changes of policies and keepalive_apply() take no longer
# than otherwise, and the policy database can be copied and renamed.
use strict;
use warnings;

use IPC::Run ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(wait_for_kernel);
use Test::More;
use Time::HiRes qw(sleep time);

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
keepalive_guard.database = 'guarded'
max_prepared_transactions = 20
END
$node->safe_psql('postgres', <<'END');
CREATE DATABASE guarded;
CREATE ROLE mallory LOGIN CREATEDB;
CREATE ROLE crew;
GRANT crew TO mallory WITH ADMIN OPTION;
CREATE ROLE member;
CREATE DATABASE mallorys OWNER mallory;
END
$node->safe_psql('guarded', <<'END');
CREATE EXTENSION keepalive_guard;
CREATE SCHEMA mallory AUTHORIZATION mallory;
INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('everybody', '60s');
END
my $admin = $node->session(dbname => 'guarded');
my $watcher = $node->session(dbname => 'guarded');
my @governed = map { $node->session } 1 .. 5;

# --- the trigger function is of no use to others --------------------------------------

my $mallory = $node->session(user => 'mallory', dbname => 'guarded');
$mallory->query('CREATE TEMP TABLE t (i int)');
my $attach = 'CREATE TRIGGER t BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION keepalive_policy_guard()';
is($mallory->try(sprintf $attach, 't')->{error}{sqlstate}, '42501',
	'an ordinary role cannot attach the trigger function to its table');
$mallory->terminate;
$admin->query('CREATE TABLE other (i int); ' . sprintf $attach, 'other');
is($admin->try('INSERT INTO other VALUES (1)')->{error}{sqlstate}, '39P01',
	'the trigger function refuses to work for another table');
$admin->query('DROP TABLE other');

# --- loops of an ordinary role ----------------------------------------------------------

# Each of them is one script of pgbench, which is run by two clients.
my %loop = (
	'ALTER ROLE ... PASSWORD' => q{ALTER ROLE mallory PASSWORD 'x';},
	'GRANT and REVOKE' => 'GRANT crew TO member; REVOKE crew FROM member;',
	'COMMIT PREPARED' => "BEGIN; PREPARE TRANSACTION 'p:client_id'; COMMIT PREPARED 'p:client_id';",
	'ALTER TABLE ... DISABLE TRIGGER' => <<'END',
ALTER TABLE mallory.t:client_id DISABLE TRIGGER USER;
ALTER TABLE mallory.t:client_id ENABLE TRIGGER USER;
END
	'ALTER DATABASE' => 'ALTER DATABASE mallorys CONNECTION LIMIT 5;');
$admin->query(<<"END") foreach 0, 1;
CREATE TABLE mallory.t$_ (i int);
CREATE TRIGGER t BEFORE UPDATE ON mallory.t$_ FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
ALTER TABLE mallory.t$_ OWNER TO mallory;
END

sub start_loop
{
	my ($name, $dbname, $user) = @_;
	my $file = $node->basedir . '/loop.sql';
	open my $script, '>', $file or die "$file: $!";
	print $script $loop{$name} =~ s/; /;\n/gr, "\n";
	close $script;
	my $output = '';
	my $pgbench = IPC::Run::start(
		[
			'pgbench', '--no-vacuum', '--client=2', '--jobs=1', '--time=120', "--file=$file",
			"--host=@{[$node->host]}", "--port=@{[$node->port]}", '--username=' . ($user // 'mallory'), $dbname ],
		'>&', \$output);
	sleep 0.5;
	$pgbench->pumpable or die "pgbench has ended: $output";
	return $pgbench;
}

# Prepared transactions that are left would keep the database from being copied.
sub stop_loop
{
	my ($pgbench) = @_;
	$pgbench->signal('KILL');
	$pgbench->finish;
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'});
	foreach my $database (qw(postgres guarded))
	{
		my $gids = $node->safe_psql('postgres', "SELECT gid FROM pg_prepared_xacts WHERE database = '$database'");
		$node->safe_psql($database, "ROLLBACK PREPARED '$_'") foreach split /\n/, $gids;
	}
	return;
}

my $idle = 100;

# The greatest of the times that n changes take to reach a session.
sub slowest_of
{
	my ($n) = @_;
	my $slowest = 0;
	foreach (1 .. $n)
	{
		$idle++;
		$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s'");
		my $took = wait_for_kernel($governed[0], { idle => $idle }, 10) // 10;
		$slowest = $took if $took > $slowest;
	}
	return $slowest;
}

# The number of governed sessions that are pending in 200 samples.
sub pending
{
	my $pending = 0;
	foreach (1 .. 200)
	{
		$pending += $watcher->value(q{SELECT count(*) FROM keepalive_status() WHERE policy_state = 'pending'});
		sleep 0.005;
	}
	return $pending;
}

sub apply_takes
{
	my $start = time;
	my $pending = $watcher->value('SELECT pending FROM keepalive_apply()');
	return $pending == 0 ? time - $start : 10;
}

$node->wait_for_policies;
foreach my $name (sort keys %loop)
{
	my $pgbench = start_loop($name, 'guarded');
	my $pending = pending();
	is($pending, 0, "$name in a loop: no session is pending");
	my $slowest = slowest_of(5);
	cmp_ok($slowest, '<', 1, "$name in a loop: changes arrive within a second");
	cmp_ok(apply_takes(), '<', 1.5, "$name in a loop: keepalive_apply() returns");
	stop_loop($pgbench);
}

# --- the policy database can be used ------------------------------------------------------

$_->terminate foreach $admin, $watcher;
foreach my $name (grep { !/TABLE/ } sort keys %loop)
{
	my $pgbench = start_loop($name, 'postgres');
	foreach my $sql ('CREATE DATABASE copy TEMPLATE guarded', 'ALTER DATABASE guarded RENAME TO away',
		'ALTER DATABASE away RENAME TO guarded', 'DROP DATABASE copy')
	{
		my $start = time;
		my ($status, undef, $error) = $node->psql('postgres', $sql);
		is($error, '', "$name in a loop: $sql");
		cmp_ok(time - $start, '<', 3, "$name in a loop: $sql does not wait for long");
	}
	stop_loop($pgbench);
}

# --- keepalive_apply() is not starved by other changes -------------------------------------

$watcher = $node->session(dbname => 'guarded');
$loop{UPDATE} = q{UPDATE keepalive_policy SET tcp_keepalives_idle = (100 + random() * 100)::int * interval '1s';};
my $pgbench = start_loop('UPDATE', 'guarded', 'postgres');
foreach my $i (1 .. 5)
{
	cmp_ok(apply_takes(), '<', 2, "keepalive_apply() number $i waits for its own request only");
}
stop_loop($pgbench);

done_testing();
