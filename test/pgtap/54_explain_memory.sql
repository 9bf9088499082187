-- keepalive_explain() keeps no memory of the ALTER ROLE ... SET values that it reads.
BEGIN;
SELECT plan(2);

CREATE FUNCTION pg_temp.resident_kb() RETURNS integer LANGUAGE sql RETURN
	substring(pg_read_file('/proc/self/status') FROM 'VmRSS:\s+(\d+) kB')::integer;
CREATE FUNCTION pg_temp.explain_often() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	before integer;
BEGIN
	PERFORM keepalive_explain('postgres', 'test_verbose');
	before := pg_temp.resident_kb();
	FOR i IN 1..500 LOOP
		PERFORM keepalive_explain('postgres', 'test_verbose');
	END LOOP;
	RETURN pg_temp.resident_kb() - before;
END $$;

CREATE ROLE test_verbose;
DO 'BEGIN PERFORM set_config(''test.long'', repeat(''x'', 100000), true); END';
ALTER ROLE test_verbose SET test.long FROM CURRENT;
ALTER ROLE test_verbose SET tcp_keepalives_idle = 77;
SELECT is(
	(SELECT tcp_keepalives_idle FROM keepalive_explain('postgres', 'test_verbose', '192.0.2.1') WHERE kind = 'outcome'),
	'77 s', 'the values are read');
SELECT cmp_ok(pg_temp.explain_often(), '<', 20000, 'reading 50 MB of them does not take 20 MB');

SELECT * FROM finish();
ROLLBACK;
