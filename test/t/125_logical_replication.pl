# A publication FOR ALL TABLES includes keepalive_policy.  Whatever happens to it on the
# publisher, the replication of other tables goes on.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(kernel_has seconds_until wait_for_kernel);
use Test::More;

my $publisher = KeepaliveGuard::Cluster->start_new('publisher', allows_streaming => 'logical',
	conf => "max_prepared_transactions = 5\n");
my $admin = $publisher->session;
$admin->query('CREATE TABLE t (i int PRIMARY KEY)');
$admin->query('CREATE PUBLICATION everything FOR ALL TABLES');
$admin->query(q{INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('first', '60s')});

sub subscriber
{
	my ($name, $conf) = @_;
	my $node = KeepaliveGuard::Cluster->start_new($name, allows_streaming => 'logical',
		conf => "max_prepared_transactions = 5\n$conf");
	$node->safe_psql('postgres', 'CREATE TABLE t (i int PRIMARY KEY)');
	my $connection = $publisher->connstr('postgres') =~ s/'/''/gr;
	$node->safe_psql('postgres',
		"CREATE SUBSCRIPTION $name CONNECTION '$connection' PUBLICATION everything WITH (two_phase = true)");
	return $node;
}
my $same = subscriber('same', '');
my $other = subscriber('other', "keepalive_guard.database = 'elsewhere'\n");
my %session = (same => $same->session, other => $other->session);

# Runs SQL on the publisher, and tests that the other table is still replicated.
my $i = 0;
sub replicates
{
	my ($name, $sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$admin->query($_) foreach split /;\s*/, $sql;
	$i++;
	$admin->query("INSERT INTO t VALUES ($i)");
	foreach my $node ($same, $other)
	{
		ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM t WHERE i = $i"),
			"$name: replication to " . $node->name . ' goes on');
	}
	return;
}

sub same_has
{
	my ($name, $idle) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(defined wait_for_kernel($session{same}, { idle => $idle }, 10), $name);
	return;
}

# --- valid policies -----------------------------------------------------------------------

replicates('the first copy', 'SELECT 1');
same_has('the policies of the publisher are in force in a database of the same name', 60);
replicates('INSERT', q{INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle) VALUES ('second', 1, '61s')});
same_has('INSERT is in force', 61);
replicates('UPDATE', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '62s' WHERE name = 'second'});
same_has('UPDATE is in force', 62);
replicates('DELETE', q{DELETE FROM keepalive_policy WHERE name = 'second'});
same_has('DELETE is in force', 60);
my $edited =
  qr/LOG:  keepalive_guard: subscription of role "postgres" edited policies .*: 0 rows inserted, 0 updated, 1 deleted, 0 truncated; policies in force: 1/;
seconds_until(10, sub { $same->log_count($edited) });
is($same->log_count($edited), 1, 'the server log says that a subscription has edited the policies');

# --- what the trigger refuses elsewhere -------------------------------------------------------

my $from = $same->log_end;
replicates('invalid rows', <<'END');
ALTER TABLE keepalive_policy DISABLE TRIGGER ALL;
UPDATE keepalive_policy SET tcp_keepalives_idle = '1 month';
INSERT INTO keepalive_policy (name, tcp_keepalives_count) VALUES ('bad', 1000);
INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle) VALUES ('good', 1, '63s')
END
same_has('a valid row after invalid rows is in force', 63);
is($same->log_count(qr/WARNING:  skipping replicated keepalive policy "bad": invalid value for column "tcp_keepalives_count"/, $from),
	1, 'the server log says that an invalid row is skipped');
is($same->safe_psql('postgres', 'SELECT name, tcp_keepalives_idle FROM keepalive_policy ORDER BY name'),
	"first|00:01:00\ngood|00:01:03", 'invalid rows are not stored, and an invalid update is not made');
replicates('a prepared edit', <<'END');
BEGIN;
UPDATE keepalive_policy SET tcp_keepalives_idle = '64s';
PREPARE TRANSACTION 'p';
COMMIT PREPARED 'p'
END
same_has('a prepared edit is in force', 64);

# --- TRUNCATE ---------------------------------------------------------------------------------

replicates('TRUNCATE', 'TRUNCATE keepalive_policy');
same_has('TRUNCATE is in force', 7200);
is($same->log_count(qr/WARNING:  logical replication truncates table keepalive_policy/), 1,
	'the server log has a warning about TRUNCATE');

# --- a database that is not the policy database ---------------------------------------------------

kernel_has($session{other}, { idle => 7200 }, 'another database has no policies in force');
cmp_ok($other->log_count(qr/WARNING:  keepalive policies that are replicated to database "postgres" have no effect/), '>', 0,
	'the server log says that these policies have no effect');
# To enable two_phase, PostgreSQL starts an apply worker maybe before the last one has exited.
is($_->log_count(qr/ERROR:  (?!.* is (?:already )?active for PID)|PANIC|was terminated by signal|TRAP/), 0, 'the server log of ' . $_->name . ' has no error')
  foreach $same, $other;

done_testing();
