# A role that may create objects in the extension's schema plants functions, operators and
# types before CREATE EXTENSION.  Nothing of the extension uses any of them.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => "keepalive_guard.database = 'attacked'\n");
$node->safe_psql('postgres', 'DROP EXTENSION keepalive_guard');
$node->safe_psql('postgres', $_)
  foreach 'CREATE ROLE mallory LOGIN', 'CREATE ROLE app LOGIN', 'CREATE DATABASE attacked';
$node->safe_psql('attacked', 'GRANT CREATE ON SCHEMA public TO mallory');

# --- what mallory plants -------------------------------------------------------------

my $mallory = $node->unix_session(user => 'mallory', dbname => 'attacked');
$mallory->query('SET search_path = pg_catalog');
$mallory->query(<<'END');
CREATE FUNCTION public.plant(name text, arguments text, result text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L',
		name, arguments, result, 'BEGIN RAISE ''trapped by %'', ' || quote_literal(name) || '; END');
EXCEPTION WHEN duplicate_function THEN NULL;
END $$
END

# Every function that the script calls, for other types than PostgreSQL's own is for.
my $share = `$ENV{PG_CONFIG} --sharedir`;
chomp $share;
open my $file, '<', "$share/extension/keepalive_guard--1.0.sql" or die $!;
my $script = do { local $/ = undef; <$file> };
my %called = map { $_ => 1 } $script =~ /(?<![\w.])([a-z_]+)\(/g;
my $names = join ',', sort keys %called;
my $functions = $mallory->value(<<"END");
WITH type AS (SELECT unnest('{text,name,integer,bigint,numeric,interval,inet,cidr,boolean,text[]}'::text[]) AS type),
	arguments AS (
		SELECT '' AS list UNION ALL SELECT type FROM type
		UNION ALL SELECT a.type || ', ' || b.type FROM type AS a, type AS b
		UNION ALL SELECT repeat('text, ', n) || 'text' FROM generate_series(2, 5) AS n),
	called AS (
		SELECT proname, min(format_type(prorettype, NULL)) AS result
		FROM pg_proc JOIN pg_type ON pg_type.oid = prorettype
		WHERE proname = ANY ('{$names}') AND pronamespace = 'pg_catalog'::regnamespace AND typtype = 'b'
		GROUP BY proname)
SELECT count(public.plant(proname, list, result)) FROM called, arguments
END
cmp_ok($functions, '>', 2000, 'there are functions of the same names');

$mallory->query(<<'END');
DO $$
DECLARE
	planted record;
BEGIN
	FOR planted IN
		SELECT operator, a, b, result
		FROM unnest('{text,name,integer,bigint,numeric,interval,inet,boolean,oid}'::text[]) AS a,
			unnest('{text,name,integer,bigint,numeric,interval,inet,boolean,oid}'::text[]) AS b,
			(VALUES ('=', 'boolean'), ('<>', 'boolean'), ('<', 'boolean'), ('<=', 'boolean'), ('>', 'boolean'),
				('>=', 'boolean'), ('<<=', 'boolean'), ('~', 'boolean'), ('||', 'text'), ('*', 'interval'),
				('/', 'interval'), ('+', 'timestamptz'), ('-', 'interval')) AS operator (operator, result)
	LOOP
		PERFORM public.plant('operator_' || planted.result, concat_ws(', ', planted.a, planted.b), planted.result);
		EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.%I, LEFTARG = %s, RIGHTARG = %s)',
			planted.operator, 'operator_' || planted.result, planted.a, planted.b);
	END LOOP;
END $$
END
$mallory->query($_)
  foreach (map { "CREATE DOMAIN public.\"$_\" AS pg_catalog.int4" } qw(text name cidr interval timestamptz inet)),
  (map { "CREATE VIEW public.$_ AS SELECT 1 AS trapped" } qw(pg_stat_activity pg_trigger pg_locks pg_stat_wal_receiver));
is($mallory->try(q{SELECT public.format('%s'::text, 'x'::text)})->{error}{message}, 'trapped by format', 'they are called');

# --- CREATE EXTENSION ----------------------------------------------------------------

my $admin = $node->unix_session(dbname => 'attacked');
$admin->query('CREATE EXTENSION keepalive_guard');

# The queries of this test must not be trapped themselves.
my $careful = $node->unix_session(dbname => 'attacked', options => '-c search_path=pg_catalog');
is_deeply($careful->query(<<'END'), [], 'nothing depends on objects outside of pg_catalog and the extension');
WITH RECURSIVE member (classid, objid) AS (
	SELECT classid, objid FROM pg_depend
	WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'keepalive_guard')
	UNION
	-- triggers, rules, indexes, constraints, default values, row types
	SELECT d.classid, d.objid FROM pg_depend AS d
		JOIN member AS m ON (d.refclassid, d.refobjid) = (m.classid, m.objid) AND d.deptype IN ('i', 'a')
)
SELECT pg_describe_object(d.classid, d.objid, d.objsubid), pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
FROM pg_depend AS d JOIN member USING (classid, objid)
WHERE d.refobjid >= 16384 -- FirstNormalObjectId: what initdb made is PostgreSQL's
	AND (d.refclassid, d.refobjid) NOT IN (SELECT classid, objid FROM member)
	AND (d.refclassid, d.refobjid) <> (SELECT 'pg_extension'::regclass::oid, oid FROM pg_extension WHERE extname = 'keepalive_guard')
END

is($careful->value(<<'END'), 'public', 'all objects are in the schema of the extension');
SELECT string_agg(DISTINCT schema, ', ')
FROM pg_depend CROSS JOIN LATERAL pg_identify_object(classid, objid, objsubid)
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'keepalive_guard')
END

# --- all of it is used ---------------------------------------------------------------

$admin->query($_) foreach
  q{INSERT INTO keepalive_policy (name, role, tcp_user_timeout, tcp_keepalives_idle, tcp_keepalives_interval) VALUES ('p', 'app', '2s', '9min', '10min')},
  q{INSERT INTO keepalive_policy (name, role) VALUES ('nobody', 'nobody')},
  'ALTER TABLE keepalive_policy DISABLE TRIGGER keepalive_policy_guard_truncate',
  q{SELECT keepalive_apply('30s')};
my $app = $node->session(user => 'app', dbname => 'attacked');
$app->query('SET tcp_user_timeout = 3000');
my @views = map { $_->[0] } @{ $careful->query(<<'END') };
SELECT relname FROM pg_class WHERE relname LIKE 'keepalive\_%' AND relkind = 'v'
	UNION ALL SELECT proname || '()' FROM pg_proc WHERE proname LIKE 'keepalive\_%' AND proretset AND pronargs = 0
END
cmp_ok(scalar @views, '>', 10, 'there are views and functions');
is($admin->try("SELECT * FROM $_")->{error}{message}, undef, "$_ calls none of them") foreach sort @views;
cmp_ok(scalar @{ $admin->query('SELECT * FROM keepalive_check()') }, '>', 4, 'keepalive_check() had something to say');

done_testing();
