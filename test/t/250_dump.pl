# pg_dump and pg_restore carry policies; DROP EXTENSION gives sessions back what
# they had, and CREATE EXTENSION works again, all without a restart.
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
	seconds_until(1, sub { kernel_values($session) eq $expected });
	is(kernel_values($session), $expected, $name);
	return;
}

# All columns, with values that are easily mangled.
$admin->query(<<'END');
INSERT INTO keepalive_policy VALUES
	('app', 10, 'postgres', 'app', '127.0.0.0/8', 'client', true, '60s', '10s', 4, '30.5s',
		'0.2s', '90s', '5min', 'locked', true, 'it''s "the" app'),
	('/regex', 20, '/^(a|b)\\d$', '+app', '::/0', 'replication', false, NULL, NULL, NULL, '0',
		NULL, NULL, NULL, 'ceiling', false, E'two\nlines\\'),
	('ünï', DEFAULT, NULL, NULL, NULL, NULL, NULL, '0', '0', 0, '0', '0', NULL, NULL, DEFAULT, true, NULL)
END
my $rows = 'SELECT p::text FROM keepalive_policy p ORDER BY name';
my $policies = $admin->query($rows);
arrives('a policy is in force', '60/10/4/30500', $app);

# --- DROP EXTENSION -----------------------------------------------------------------------

$admin->query('BEGIN; DROP EXTENSION keepalive_guard; ROLLBACK');
$admin->query('SELECT * FROM keepalive_apply()');
is(kernel_values($app), '60/10/4/30500', 'a DROP that is rolled back changes nothing');

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
	arrives("$name: DROP EXTENSION gives a session back what it had", $native, $app);
	arrives("$name: and one with its own options", '7200/75/3/0', $own);
	is(shown_values($app), '7200/75/9/0/0', "$name: PostgreSQL agrees");
	is($app->value(q{SELECT string_agg(DISTINCT source, ' ') FROM pg_settings}
			  . q{ WHERE name LIKE 'tcp_keepalives%' OR name ~ '^(tcp_user|client_connection)'}),
		'default', "$name: also on where it comes from");
	is($app->try('SET tcp_keepalives_idle = 5; RESET tcp_keepalives_idle')->{error},
		undef, "$name: nothing is locked");

	$node->command_ok([ @$restore, "$connection dbname=postgres" ], "$name: restored");
	is_deeply($admin->query($rows), $policies, "$name: the policies are the same");
	arrives("$name: and in force without a restart", '60/10/4/30500', $app);
	is($app->try('SET tcp_keepalives_idle = 5')->{error}{sqlstate}, '42501', "$name: as before");
}

# --- into another cluster ---------------------------------------------------------------------

my $other = KeepaliveGuard::Cluster->start_new('other');
my $app_there = do { $other->safe_psql('postgres', 'CREATE ROLE app LOGIN'); $other->session(user => 'app') };
$other->safe_psql('postgres', 'DROP EXTENSION keepalive_guard');
$node->command_ok(
	[
		'pg_restore', '-e', '-d', "host=127.0.0.1 port=@{[$other->port]} user=postgres dbname=postgres",
		"$directory/custom" ],
	'restored in another cluster');
is_deeply($other->session->query($rows), $policies, 'the policies are the same');
arrives('and in force', '60/10/4/30500', $app_there);

# --- data only -------------------------------------------------------------------------------------

$node->command_ok(
	[
		'pg_dump', '--data-only', '-Fc', '-f', "$directory/data", '-t', 'keepalive_policy',
		'-d', "$connection dbname=postgres" ],
	'pg_dump --data-only');
$admin->query('DELETE FROM keepalive_policy');
arrives('without policies', $native, $app);
$node->command_ok(
	[ 'pg_restore', '-e', '--data-only', '-d', "$connection dbname=postgres", "$directory/data" ],
	'restored');
is_deeply($admin->query($rows), $policies, 'the policies are the same');
arrives('and in force', '60/10/4/30500', $app);

$admin->query('DELETE FROM keepalive_policy');
arrives('without policies', $native, $app);
$node->command_ok(
	[
		'pg_restore', '-e', '--data-only', '--disable-triggers', '-d', "$connection dbname=postgres",
		"$directory/data" ],
	'restored with --disable-triggers');
$admin->query('SELECT * FROM keepalive_apply()');
arrives('and keepalive_apply()', '60/10/4/30500', $app);
$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '59s' WHERE name = 'app'});
arrives('and a change', '59/10/4/30500', $app);

# --- away and back, in every way -----------------------------------------------------------------

$admin->query('DROP EXTENSION keepalive_guard; CREATE SCHEMA guard;'
	  . 'CREATE EXTENSION keepalive_guard SCHEMA guard');
arrives('DROP EXTENSION', $native, $app);
$admin->query(q{INSERT INTO guard.keepalive_policy (name, tcp_keepalives_idle) VALUES ('x', '55s')});
arrives('in another schema', '55/75/9/0', $app);
$admin->query('DROP SCHEMA guard CASCADE');
arrives('DROP SCHEMA CASCADE', $native, $app);
$admin->query('CREATE EXTENSION keepalive_guard');
is($admin->value('SELECT count(*) FROM keepalive_policy'), 0, 'CREATE EXTENSION again');
is(kernel_values($app), $native, 'starts with nothing');
$node->policy(name => 'again', tcp_keepalives_idle => '70s');
arrives('and works', '70/75/9/0', $app);
# Many times: the reader sits there already, and must not look before the change of the
# catalogs has got around.
foreach my $idle (71 .. 170)
{
	$admin->query('DROP EXTENSION keepalive_guard; CREATE EXTENSION keepalive_guard;'
		  . "INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('x', '$idle s')");
	last if !defined seconds_until(1, sub { kernel_values($app) eq "$idle/75/9/0" });
}
is(kernel_values($app), '170/75/9/0', 'dropped, created and filled in one transaction, a hundred times');

is($_->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash')
  foreach $node, $other;

done_testing();
