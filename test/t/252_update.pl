# ALTER EXTENSION UPDATE leads to what CREATE EXTENSION creates: members, privileges,
# comments and definitions, with the scripts of all released versions, and with those of
# a next version that is made up here.  Planted mistakes in its upgrade script are found.
# keepalive_check() says when the library and the extension are of different versions.
use strict;
use warnings;

use File::Copy 'copy';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings 'wait_for_kernel';
use PostgreSQL::Test::Utils 'slurp_file';
use Test::More;

require 'syscall.ph';

use constant MS_BIND => 0x1000;

my $node = KeepaliveGuard::Cluster->start_new('primary');

# --- a directory of scripts that this test can write to ---------------------------------

chomp(my $share = `$ENV{PG_CONFIG} --sharedir`);
my ($installed, $scripts) = ("$share/extension", $node->basedir . '/extension');
mkdir $scripts or die "$scripts: $!";
copy($_, $scripts) or die "$_: $!" foreach glob "$installed/{keepalive_guard,plpgsql}*";
syscall(SYS_mount(), $scripts, $installed, my $none = 'none', MS_BIND, 0) == 0 or die "mount: $!\n";

my ($version) = slurp_file("$scripts/keepalive_guard.control") =~ /^default_version = '(.*)'$/m;
my $script = slurp_file("$scripts/keepalive_guard--$version.sql");

sub write_script
{
	my ($versions, $text) = @_;
	open my $file, '>', "$scripts/keepalive_guard--$versions.sql" or die $!;
	print $file $text;
	close $file or die $!;
	return;
}

# --- comparing ----------------------------------------------------------------------

# All that pg_dump can tell of the members of the extension, as a list of statements.
sub members
{
	my ($database) = @_;
	open my $pipe, '-|', 'pg_dump', '--binary-upgrade', '--schema-only', '--dbname', $node->connstr($database)
	  or die "pg_dump: $!";
	my $dump = do { local $/ = undef; <$pipe> };
	close $pipe or die "pg_dump failed\n";
	$dump =~ s/^\\(?:un)?restrict .*//mg;
	$dump =~ s/^SELECT pg_catalog\.binary_upgrade_set_next_.*//mg; # OIDs and the like
	$dump =~ s/^WHERE oid = '\d+'//mg;
	$dump =~ s/'\{\d+(?:,\d+)*\}'/'{OID}'/g; # tables with data to dump
	$dump =~ s/^SET relfrozenxid = '\d+', relminmxid = '\d+'$//mg;
	return [ sort grep { /\S/ } split /^--\n-- Name: .*\n--\n/m, $dump ];
}

my $databases = 0;

# The members of the extension in a new database, after these statements.
sub members_after
{
	my @statements = @_;
	my $database = 'd' . ++$databases;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, $_) foreach @statements;
	return members($database);
}

# The statements that only one of the two lists has.
sub differences
{
	my ($one, $other) = @_;
	my %count;
	$count{$_}++ foreach @$one;
	$count{$_}-- foreach @$other;
	return join "\n", grep { $count{$_} } sort keys %count;
}

my $fresh = members_after('CREATE EXTENSION keepalive_guard');
cmp_ok(scalar @$fresh, '>', 60, 'pg_dump tells of the members');
is(differences($fresh, members_after('CREATE EXTENSION keepalive_guard')), '', 'two fresh databases are the same');

# --- released versions ------------------------------------------------------------------

foreach my $released (map { /--([^-]*)\.sql$/ } glob "$scripts/keepalive_guard--*.sql")
{
	next if $released eq $version;
	my $updated = members_after("CREATE EXTENSION keepalive_guard VERSION '$released'", 'ALTER EXTENSION keepalive_guard UPDATE');
	is(differences($fresh, $updated), '', "an update from $released leads to a fresh $version");
}

# --- a next version ------------------------------------------------------------------

my $changes = <<'END_CHANGES';

ALTER TABLE @extschema@.keepalive_policy ADD COLUMN next boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN @extschema@.keepalive_policy.next IS 'a column of the next version';
DROP FUNCTION @extschema@.keepalive_stats_reset();
CREATE VIEW @extschema@.keepalive_next_view AS SELECT name FROM @extschema@.keepalive_policy;
GRANT SELECT ON @extschema@.keepalive_next_view TO pg_monitor;
CREATE FUNCTION @extschema@.keepalive_next(OUT i integer) LANGUAGE sql STABLE BEGIN ATOMIC SELECT 1; END;
COMMENT ON FUNCTION @extschema@.keepalive_next() IS 'a function of the next version';
REVOKE ALL ON FUNCTION @extschema@.keepalive_next() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_next() TO pg_monitor;
CREATE TABLE @extschema@.keepalive_next_table (i integer);
SELECT pg_catalog.pg_extension_config_dump('@extschema@.keepalive_next_table', '');
CREATE TRIGGER next BEFORE TRUNCATE ON @extschema@.keepalive_next_table
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.keepalive_policy_guard();
ALTER TABLE @extschema@.keepalive_next_table ENABLE ALWAYS TRIGGER next;
END_CHANGES

my $next = 'made_up';
write_script($next, $script . $changes);
my $fresh_next = members_after("CREATE EXTENSION keepalive_guard VERSION '$next'");

# What an update with this script leads to.
sub members_after_update
{
	my ($upgrade) = @_;
	write_script("$version--$next", $upgrade);
	return members_after('CREATE EXTENSION keepalive_guard', "ALTER EXTENSION keepalive_guard UPDATE TO '$next'");
}
is(differences($fresh_next, members_after_update($changes)), '', 'an update to a next version leads to a fresh one');

foreach (
	[ 'a missing REVOKE', qr/^REVOKE ALL ON FUNCTION.*\n/m, '', qr/REVOKE ALL ON FUNCTION public\.keepalive_next\(OUT i integer\) FROM PUBLIC/ ],
	[ 'a missing GRANT', qr/^GRANT SELECT.*\n/m, '', qr/GRANT SELECT ON TABLE public\.keepalive_next_view TO pg_monitor/ ],
	[ 'another GRANT', qr/(?<=keepalive_next\(\) )TO pg_monitor/, 'TO PUBLIC', qr/REVOKE ALL ON FUNCTION public\.keepalive_next/ ],
	[ 'a missing comment', qr/^COMMENT ON COLUMN.*\n/m, '', qr/COMMENT ON COLUMN public\.keepalive_policy\.next/ ],
	[ 'another comment', qr/a function of/, 'the function of', qr/IS 'the function of/ ],
	[ 'another default', qr/DEFAULT false/, 'DEFAULT true', qr/next boolean DEFAULT true/ ],
	[ 'a missing DROP', qr/^DROP FUNCTION.*\n/m, '', qr/CREATE FUNCTION public\.keepalive_stats_reset/ ],
	[ 'another body', qr/SELECT 1;/, 'SELECT 2;', qr/SELECT 2/ ],
	[ 'another volatility', qr/STABLE/, 'VOLATILE', qr/CREATE FUNCTION public\.keepalive_next/ ],
	[ 'a table that is not dumped', qr/^SELECT pg_catalog.*\n/m, '', qr/binary_upgrade_create_empty_extension/ ],
	[ 'a trigger that does not always fire', qr/^ALTER TABLE.*ENABLE.*\n/m, '', qr/ENABLE ALWAYS TRIGGER next/ ],
	[ 'a table that is no member', qr/\z/, 'ALTER EXTENSION keepalive_guard DROP TABLE @extschema@.keepalive_next_table;',
		qr/ALTER EXTENSION keepalive_guard ADD TABLE public\.keepalive_next_table/ ])
{
	my ($mistake, $pattern, $replacement, $found) = @$_;
	my $planted = $changes;
	$planted =~ s/$pattern/$replacement/ or die "$mistake: not planted\n";
	like(differences($fresh_next, members_after_update($planted)), $found, "$mistake in the upgrade script is found");
}

# --- policies live on, and keepalive_check() ---------------------------------------------

# Waits until the policies are in force, and returns the findings about versions.
sub findings
{
	my ($database) = @_;
	$node->wait_for_policies if $database eq 'postgres';
	return $node->safe_psql($database, q{SELECT severity, problem, hint FROM keepalive_check() WHERE subject = 'version'});
}

$node->policy(name => 'kept', tcp_keepalives_idle => '33 s', enforcement => 'locked');
my $session = $node->session;
ok(defined wait_for_kernel($session, { idle => 33 }, 10), 'a policy is in force');
is(findings('postgres'), '', 'keepalive_check() finds nothing while the versions are the same');
write_script("$version--$next", $changes);
$node->safe_psql('postgres', "ALTER EXTENSION keepalive_guard UPDATE TO '$next'");
$node->safe_psql('postgres', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '34 s', next = true});
ok(defined wait_for_kernel($session, { idle => 34 }, 10), 'after the update, a change is in force');
like(findings('postgres'),
	qr/\Awarning\|the extension in this database is of version made_up, the loaded library of version \Q$version\E\|SELECT pg_postmaster_start_time\(\); -- if the package was updated after this, restart the server; otherwise install version made_up\z/,
	'an extension that is newer than the library is found');

# An older version, with the same script.
write_script('0.9', $script);
write_script("0.9--$version", '');
$node->safe_psql('postgres', 'CREATE DATABASE old');
$node->safe_psql('old', q{CREATE EXTENSION keepalive_guard VERSION '0.9'});
is(findings('old'),
	"warning|the extension in this database is of version 0.9, the loaded library of version $version|ALTER EXTENSION keepalive_guard UPDATE TO '$version';",
	'an extension that is older than the library is found');
$node->safe_psql('old', "ALTER EXTENSION keepalive_guard UPDATE TO '$version'");
is(findings('old'), '', 'the hint solves it');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
