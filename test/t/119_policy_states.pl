# What the server log, keepalive_apply() and keepalive_check() say while the policies
# cannot be read, before and after a restart: what is wrong, and what is in force.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has seconds_until wait_for_kernel);
use KeepaliveGuard::Cluster;
use PostgreSQL::Test::Utils 'slurp_file';
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
keepalive_guard.max_policies = 9
keepalive_guard.database = 'guarded'
END
$node->safe_psql('postgres', 'CREATE DATABASE guarded');
my $admin = $node->unix_session(dbname => 'guarded');

# Tests that the server log has this line since then, within seconds.
sub logs
{
	my ($from, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(defined seconds_until(10, sub { $node->log_count($pattern, $from) }), "the server log: $name");
}

# The number of policies in force, from the last line of the server log that has it.
sub last_count
{
	my ($last) = reverse grep { /polic.* in force/ } split /\n/, slurp_file($node->logfile);
	return $last =~ /(?|(\d+) keepalive polic(?:y|ies) of database "guarded" (?:is|are) in force|policies in force: (\d+)$)/ ? $1 : $last;
}

# Tests the warning of keepalive_apply(), and the finding of keepalive_check() with
# severity "error".
sub is_reported
{
	my ($name, $message, $detail, $problem, $hint) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $notice = $admin->try(q{SELECT * FROM keepalive_apply('30s')})->{notices}[0];
	is($notice->{message}, $message, "$name: message of keepalive_apply()");
	is($notice->{detail}, $detail, "$name: detail of keepalive_apply()");
	my @findings = grep { $_->[0] eq 'error' } @{ $admin->query('SELECT * FROM keepalive_check()') };
	is_deeply([ map { @$_[ 2, 3 ] } @findings ], [ $problem, $hint ], "$name: finding of keepalive_check()");
	return $findings[0][3];
}

# --- the number of policies ----------------------------------------------------------

$admin->query('CREATE EXTENSION keepalive_guard');
$admin->query(q{INSERT INTO keepalive_policy (name, tcp_keepalives_idle) SELECT i, '21s' FROM generate_series(1, 9) i});
my $session = $node->session;
ok(defined wait_for_kernel($session, { idle => 21 }, 10), 'policies are in force');
ok(defined seconds_until(5, sub { last_count() eq '9' }), 'the server log has their number');
$admin->query(q{UPDATE keepalive_policy SET enabled = name = '1'; SELECT keepalive_apply()});
ok(defined seconds_until(5, sub { last_count() eq '1' }), 'the server log: disabled policies are not in force');
my $from = $node->log_end;
$admin->query(q{ALTER TABLE keepalive_policy DISABLE TRIGGER ALL});
$admin->query(q{UPDATE keepalive_policy SET enabled = true});
logs($from, qr/keepalive_guard: 9 keepalive policies of database "guarded" are in force/, 'without the triggers');
$admin->query("ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER $_")
  foreach qw(keepalive_policy_guard keepalive_policy_guard_truncate);

# --- no table ------------------------------------------------------------------------

my $no_table = 'extension keepalive_guard in database "guarded" has no table keepalive_policy';
my $nine = '9 policies that were read before stay in force';
$admin->query('CREATE SCHEMA other');
foreach my $change (
	[ 'ALTER TABLE keepalive_policy RENAME TO mine', 'ALTER TABLE mine RENAME TO keepalive_policy;' ],
	[ 'ALTER TABLE keepalive_policy SET SCHEMA other', 'ALTER TABLE other.keepalive_policy SET SCHEMA public;' ],
	[ 'ALTER EXTENSION keepalive_guard DROP TABLE keepalive_policy', 'ALTER EXTENSION keepalive_guard ADD TABLE keepalive_policy;' ])
{
	my ($statement, $hint) = @$change;
	$from = $node->log_end;
	$admin->query($statement);
	is_reported($statement, $no_table, "The $nine.", "$no_table: the $nine", $hint);
	is($node->log_count(qr/LOG:  keepalive_guard: \Q$no_table\E/, $from), 1, "$statement: message in the server log");
	is($node->log_count(qr/\[\d+\] DETAIL:  The \Q$nine\E\./, $from), 1, "$statement: detail in the server log");
	is($node->log_count(qr/waiting for CREATE EXTENSION/, $from), 0, "$statement: the extension is not missing");
	kernel_has($node->session, { idle => 21 }, "$statement: policies stay in force");
	$admin->query($hint);
	is_deeply($admin->try('SELECT * FROM keepalive_apply()')->{notices}, [], "$statement: undone by the hint");
}
$admin->query('ALTER TABLE keepalive_policy RENAME TO mine');
$node->restart;
$admin = $node->unix_session(dbname => 'guarded');
is_reported('renamed, after a restart', $no_table, 'No policy is in force.', "$no_table: no policy is in force",
	'ALTER TABLE mine RENAME TO keepalive_policy;');
my $elsewhere = $node->unix_session;
$elsewhere->query('CREATE EXTENSION IF NOT EXISTS keepalive_guard');
is_deeply([ map { $_->[3] } grep { $_->[0] eq 'error' } @{ $elsewhere->query('SELECT * FROM keepalive_check()') } ],
	["\\connect guarded\nSELECT * FROM keepalive_check();"], 'keepalive_check() in another database');
like($node->follow_hint("\\connect guarded\nSELECT * FROM keepalive_check();"), qr/ALTER TABLE mine RENAME TO keepalive_policy;/,
	'the hint leads to the other database');
$admin->query('ALTER TABLE mine RENAME TO keepalive_policy');

# --- a column of another type ----------------------------------------------------------

my $unreadable = 'table keepalive_policy could not be read';
$admin->query('SELECT keepalive_apply()');
$admin->query('ALTER TABLE keepalive_policy ALTER tcp_keepalives_count TYPE bigint');
my $problem = 'the table could not be read';
is_reported('another type', $unreadable, "The $nine.", "$problem: the $nine", 'grep keepalive_guard server.log');
$from = $node->log_end;
$node->restart;
logs($from, qr/keepalive_policy has no column "tcp_keepalives_count" of the expected type/, 'which column');
logs($from, qr/DETAIL:  No policy is in force\./, 'what is in force');
$admin = $node->unix_session(dbname => 'guarded');
is_reported('another type, after a restart', $unreadable, 'No policy is in force.', "$problem: no policy is in force",
	'grep keepalive_guard server.log');
$from = $node->log_end;
$admin->query('ALTER TABLE keepalive_policy ALTER tcp_keepalives_count TYPE integer; SELECT keepalive_apply()');
logs($from, qr/keepalive_guard: 9 keepalive policies of database "guarded" are in force/, 'the problem is over');

# --- too many policies -----------------------------------------------------------------

$node->append_conf('postgresql.conf', 'keepalive_guard.max_policies = 2');
$from = $node->log_end;
$node->restart;
logs($from, qr/keepalive_guard: 9 keepalive policies are more than keepalive_guard\.max_policies \(2\)/, 'too many policies');
logs($from, qr/DETAIL:  No policy is in force\./, 'what is in force');
$admin = $node->unix_session(dbname => 'guarded');
kernel_has($node->session, { idle => 7200 }, 'no policy is in force');
my $hint = is_reported('too many, after a restart',
	'9 keepalive policies are more than keepalive_guard.max_policies (2)', 'No policy is in force.',
	'there are more policies than 2: no policy is in force',
	'ALTER SYSTEM SET keepalive_guard.max_policies = 9; -- then restart the server');
$admin->query($hint);
$node->restart;
$admin = $node->unix_session(dbname => 'guarded');
is_deeply($admin->try('SELECT * FROM keepalive_apply()')->{notices}, [], 'the hint is enough');
$admin->query(q{INSERT INTO keepalive_policy (name) VALUES ('10')});
is_reported('too many, without a restart',
	'10 keepalive policies are more than keepalive_guard.max_policies (9)', "The $nine.",
	"there are more policies than 9: the $nine",
	'ALTER SYSTEM SET keepalive_guard.max_policies = 18; -- then restart the server');
$admin->query(q{DELETE FROM keepalive_policy WHERE name = '10'});

# --- not read yet ------------------------------------------------------------------------

$node->append_conf('postgresql.conf', 'max_prepared_transactions = 1');
$node->restart;
$admin = $node->unix_session(dbname => 'guarded');
$admin->query(q{BEGIN; LOCK TABLE keepalive_policy; PREPARE TRANSACTION 'lock'});
$node->restart;
$admin = $node->unix_session(dbname => 'guarded');
$elsewhere = $node->unix_session;
my @findings;
seconds_until(20, sub {
		@findings = map { @$_[ 0, 2 ] } grep { $_->[1] eq 'worker' } @{ $elsewhere->query('SELECT * FROM keepalive_check()') };
		return "@findings" =~ /not been read/; # the worker runs
	});
is_deeply(\@findings, [ 'error', 'the policies have not been read since the server started: no policy is in force' ],
	'keepalive_check() while the table is locked');
$admin->query(q{ROLLBACK PREPARED 'lock'});

# --- no extension, no database ------------------------------------------------------------

$admin->query('DROP EXTENSION keepalive_guard');
my $notice = $elsewhere->try('SELECT * FROM keepalive_apply()')->{notices}[0];
is($notice->{message}, 'no keepalive policies are in force', 'no extension: message of keepalive_apply()');
is($notice->{detail}, 'Database "guarded" (keepalive_guard.database) has no extension keepalive_guard.', 'no extension: detail of keepalive_apply()');
$admin->terminate;
$node->safe_psql('postgres', 'DROP DATABASE guarded');
$notice = $elsewhere->try('SELECT * FROM keepalive_apply()')->{notices}[0];
is($notice->{message}, 'no keepalive policies are in force', 'no database: message of keepalive_apply()');
is($notice->{detail}, 'Database "guarded" (keepalive_guard.database) does not exist.', 'no database: detail of keepalive_apply()');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'nothing went wrong in the server');

done_testing();
