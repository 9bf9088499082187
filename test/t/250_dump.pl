# pg_dump and pg_restore keep policies.  DROP EXTENSION restores the settings of sessions,
# and CREATE EXTENSION works again, all without a restart.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(kernel_values seconds_until shown_values);
use Test::More;

my $native = '7200/75/9/0';
my $node = KeepaliveGuard::Cluster->start_new('primary');
my $directory = $node->basedir;
my $admin = $node->session;
$admin->query('CREATE ROLE app LOGIN');
my $app = $node->session(user => 'app');
my $own = $node->session(user => 'app', options => '-c tcp_keepalives_count=3');

sub arrives
{
	my ($name, $expected, $session) = @_;
	seconds_until(10, sub { kernel_values($session) eq $expected });
	is(kernel_values($session), $expected, $name);
	return;
}

# All columns, with values that need quoting.
$admin->query(<<'END');
INSERT INTO keepalive_policy VALUES
	('app', 10, 'postgres', 'app', '127.0.0.0/8', 'client', true, '60s', '10s', 4, '30.5s',
		'0.2s', '90s', '5min', 'locked', false, true, true, 'it''s "the" app'),
	('/regex', 20, '/^(a|b)\\d$', '+app', '::/0', 'replication', false, NULL, NULL, NULL, '0',
		NULL, NULL, NULL, 'ceiling', true, false, false, E'two\nlines\\'),
	('ünï', DEFAULT, NULL, NULL, NULL, NULL, NULL, '0', '0', 0, '0', '0', NULL, NULL, DEFAULT, DEFAULT, DEFAULT, true, NULL)
END
my $rows = 'SELECT p::text FROM keepalive_policy p ORDER BY name';
my $policies = $admin->query($rows);
arrives('a policy is in force', '60/10/4/30500', $app);

# --- DROP EXTENSION -----------------------------------------------------------------------

$admin->query('BEGIN; DROP EXTENSION keepalive_guard; ROLLBACK');
$admin->query('SELECT * FROM keepalive_apply()');
is(kernel_values($app), '60/10/4/30500', 'a rolled-back DROP EXTENSION does not change a session');

# --- dumps of every kind, restored where the extension was dropped -----------------------------

my $connection = "host=127.0.0.1 port=@{[$node->port]} user=postgres";
my @psql = ('psql', '-Xq', '-v', 'ON_ERROR_STOP=1');
my @ways = (
	[
		'plain SQL',
		[ 'pg_dump', '-f', "$directory/sql" ],
		[ @psql, '-f', "$directory/sql", '-d' ] ],
	[
		'INSERTs',
		[ 'pg_dump', '--inserts', '-f', "$directory/inserts" ],
		[ @psql, '--single-transaction', '-f', "$directory/inserts", '-d' ] ],
	[
		'custom format',
		[ 'pg_dump', '-Fc', '-f', "$directory/custom" ],
		[ 'pg_restore', '-e', "$directory/custom", '-d' ] ],
	[
		'a directory, two jobs',
		[ 'pg_dump', '-Fd', '-j2', '-f', "$directory/dir" ],
		[ 'pg_restore', '-e', '-j2', "$directory/dir", '-d' ] ]);
foreach my $way (@ways)
{
	my ($name, $dump, $restore) = @$way;
	$node->command_ok([ @$dump, '-d', "$connection dbname=postgres" ], "$name: pg_dump");
	$admin->query('DROP EXTENSION keepalive_guard');
	arrives("$name: DROP EXTENSION restores PostgreSQL's values", $native, $app);
	arrives("$name: DROP EXTENSION restores a session's own connection options", '7200/75/3/0', $own);
	is(shown_values($app), '7200/75/9/0/0', "$name: pg_settings shows PostgreSQL's values");
	is($app->value(q{SELECT string_agg(DISTINCT source, ' ') FROM pg_settings}
			  . q{ WHERE name LIKE 'tcp_keepalives%' OR name ~ '^(tcp_user|client_connection)'}),
		'default', "$name: pg_settings.source is default");
	is($app->try('SET tcp_keepalives_idle = 5; RESET tcp_keepalives_idle')->{error},
		undef, "$name: SET is accepted after DROP EXTENSION");

	$node->command_ok([ @$restore, "$connection dbname=postgres" ], "$name: the restore succeeds");
	is_deeply($admin->query($rows), $policies, "$name: the restored policies are the same");
	arrives("$name: the restored policies are in force without a restart", '60/10/4/30500', $app);
	is($app->try('SET tcp_keepalives_idle = 5')->{error}{sqlstate}, '42501', "$name: the restored policies are enforced");
}

# --- into another cluster ---------------------------------------------------------------------

my $other = KeepaliveGuard::Cluster->start_new('other');
my $app_there = do { $other->safe_psql('postgres', 'CREATE ROLE app LOGIN'); $other->session(user => 'app') };
$other->safe_psql('postgres', 'DROP EXTENSION keepalive_guard');
$node->command_ok(
	[
		'pg_restore', '-e', '-d', "host=127.0.0.1 port=@{[$other->port]} user=postgres dbname=postgres",
		"$directory/custom" ],
	'pg_restore into another cluster succeeds');
is_deeply($other->session->query($rows), $policies, 'the policies are the same in another cluster');
arrives('the restored policies are in force in another cluster', '60/10/4/30500', $app_there);

# --- data only -------------------------------------------------------------------------------------

$node->command_ok(
	[
		'pg_dump', '--data-only', '-Fc', '-f', "$directory/data", '-t', 'keepalive_policy',
		'-d', "$connection dbname=postgres" ],
	'pg_dump --data-only succeeds');
$admin->query('DELETE FROM keepalive_policy');
arrives('DELETE removes the policies', $native, $app);
$node->command_ok(
	[ 'pg_restore', '-e', '--data-only', '-d', "$connection dbname=postgres", "$directory/data" ],
	'pg_restore --data-only succeeds');
is_deeply($admin->query($rows), $policies, 'pg_restore --data-only restores the same policies');
arrives('the policies of pg_restore --data-only are in force', '60/10/4/30500', $app);

$admin->query('DELETE FROM keepalive_policy');
arrives('DELETE removes the restored policies', $native, $app);
$node->command_ok(
	[
		'pg_restore', '-e', '--data-only', '--disable-triggers', '-d', "$connection dbname=postgres",
		"$directory/data" ],
	'pg_restore --disable-triggers succeeds');
$admin->query('SELECT * FROM keepalive_apply()');
arrives('policies restored with --disable-triggers are in force after keepalive_apply()', '60/10/4/30500', $app);
$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '59s' WHERE name = 'app'});
arrives('a change of a policy restored with --disable-triggers is in force', '59/10/4/30500', $app);

# --- dropped and created in other ways ---------------------------------------------------------

$admin->query('DROP EXTENSION keepalive_guard; CREATE SCHEMA guard;'
	  . 'CREATE EXTENSION keepalive_guard SCHEMA guard');
arrives('DROP EXTENSION removes the policies', $native, $app);
$admin->query(q{INSERT INTO guard.keepalive_policy (name, tcp_keepalives_idle) VALUES ('x', '55s')});
arrives('a policy of the extension in another schema is in force', '55/75/9/0', $app);
$admin->query('DROP SCHEMA guard CASCADE');
arrives('DROP SCHEMA CASCADE removes the policies', $native, $app);
$admin->query('CREATE EXTENSION keepalive_guard');
is($admin->value('SELECT count(*) FROM keepalive_policy'), 0, 'the extension created again has no policies');
is(kernel_values($app), $native, 'the extension created again does not change a session');
$node->policy(name => 'again', tcp_keepalives_idle => '70s');
arrives('a policy of the extension created again is in force', '70/75/9/0', $app);
# Many times: the policy reader is already running, and must not read before it has
# received the catalog invalidations.
foreach my $idle (71 .. 170)
{
	$admin->query('DROP EXTENSION keepalive_guard; CREATE EXTENSION keepalive_guard;'
		  . "INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('x', '$idle s')");
	last if !defined seconds_until(10, sub { kernel_values($app) eq "$idle/75/9/0" });
}
is(kernel_values($app), '170/75/9/0', 'a policy is in force after the extension was dropped and created a hundred times');

is($_->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash')
  foreach $node, $other;

done_testing();
