# Without shared_preload_libraries, edits of the table warn that policies are not in force,
# keepalive_status() shows what PostgreSQL knows, and nothing fails.
use strict;
use warnings;

use File::Copy 'copy';
use KeepaliveGuard::Cluster;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('plain', preload => 0);
my $session = $node->session;
my $preload_hint = 'Add keepalive_guard to shared_preload_libraries and restart the server.';

# Tests that a command succeeds with exactly one warning, whatever the number of rows.
sub warns
{
	my ($command, $name) = @_;
	my $result = $session->try($command);
	is($result->{error}, undef, "$name succeeds");
	is_deeply(
		[ map { [ @$_{qw(severity sqlstate message hint)} ] } @{ $result->{notices} } ],
		[
			[
				'WARNING', '55000',
				'keepalive policies are not in force: keepalive_guard is not preloaded',
				$preload_hint ] ],
		"$name gives one warning");
	return;
}

is($session->try('CREATE EXTENSION keepalive_guard')->{error}, undef, 'CREATE EXTENSION succeeds');
warns(
	q{INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle)
		SELECT 'p' || i, i, '61s' FROM generate_series(1, 10) i}, 'INSERT of ten rows');
warns('UPDATE keepalive_policy SET priority = 7', 'UPDATE');
warns(q{DELETE FROM keepalive_policy WHERE name <> 'p1'}, 'DELETE');
is($session->value('SELECT count(*) FROM keepalive_policy'), 1, 'the edits are stored');

my $result = $session->try(q{INSERT INTO keepalive_policy (name, tcp_keepalives_count) VALUES ('bad', 128)});
is($result->{error}{sqlstate}, '22023', 'a bad value is refused');

my $other = $node->session;
is($other->value('SHOW tcp_keepalives_idle'), $session->value('SHOW tcp_keepalives_idle'),
	'a new session has PostgreSQL\'s own setting');
my $status = $node->status($other->pid);
is_deeply(
	{ map { $_ => $status->{$_} } qw(datname usename backend_type policy policy_state) },
	{
		datname => 'postgres', usename => 'postgres', backend_type => 'client backend',
		policy => undef, policy_state => undef },
	'keepalive_status() has a row for the session, without a policy');
is($node->status(0), undef, 'keepalive_status() has no row for a pid without a session');

is_deeply(
	$session->query(q{SELECT name, value FROM keepalive_metrics WHERE name IN
		('keepalive_guard_preloaded', 'keepalive_guard_worker_up', 'keepalive_guard_policies_up_to_date') OR type = 'counter' ORDER BY 1}),
	[ map { [ "keepalive_guard_$_", '0' ] } qw(policies_up_to_date preloaded worker_up) ],
	'keepalive_metrics shows that nothing is in force');
like($session->value('SELECT keepalive_openmetrics()'), qr/^keepalive_guard_preloaded 0\n(?:.*\n)*# EOF\z/m, 'keepalive_openmetrics() works');

foreach my $call ('keepalive_apply()', q{keepalive_explain('postgres', 'postgres')})
{
	my $error = $session->try("SELECT * FROM $call")->{error};
	is_deeply(
		[ @$error{qw(sqlstate message hint)} ],
		[
			'55000', 'keepalive_guard must be loaded via shared_preload_libraries',
			$preload_hint ],
		"$call fails with a hint");
}

like($session->value('SELECT keepalive_report()'), qr/keepalive_guard is not loaded .*Not known, because .*Not known, because .*Not known, because /s,
	'keepalive_report() says what is not known');

$session->query('TRUNCATE keepalive_policy');
is($session->try('LOAD \'keepalive_guard\'')->{error}, undef, 'LOAD of the library succeeds');
is($session->try('SHOW keepalive_guard.enabled')->{error}{sqlstate}, '42704', 'LOAD defines no settings');
is($session->value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'keepalive%'}),
	0, 'no worker is running');
is($session->try('DROP EXTENSION keepalive_guard')->{error}, undef, 'DROP EXTENSION succeeds');

# --- another copy of the library is preloaded ------------------------------------------------

chomp(my $libraries = `$ENV{PG_CONFIG} --pkglibdir`);
my $copy = $node->data_dir . '/copy.so';
copy("$libraries/keepalive_guard.so", $copy) or die "$copy: $!";
my $log = -s $node->logfile;
$node->append_conf('postgresql.conf', "shared_preload_libraries = '$copy'");
$node->restart;
$node->wait_for_log(qr/LOG:  keepalive_guard: the library of the worker is not the preloaded one/, $log);
is($node->session->value('SELECT 1'), 1, 'a server that preloads another copy of the library works');
is($node->log_count(qr/terminated by signal|PANIC/, $log), 0, 'its worker does not crash');

done_testing();
