-- keepalive_check() about policies: each finding appears when its problem exists, and its
-- hint solves the problem.
CREATE ROLE test_app LOGIN;
CREATE ROLE test_other LOGIN;
CREATE ROLE test_group;
CREATE ROLE test_inner IN ROLE test_group;
GRANT test_inner TO test_app;

-- Creates a policy without problems, for the role `test_app`.
CREATE FUNCTION pg_temp.policy(name text, role text DEFAULT 'test_app', changes text DEFAULT '') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE (SELECT policy FROM keepalive_plan('1 min'));
	EXECUTE format('UPDATE keepalive_policy SET name = %L, role = %L %s WHERE name LIKE ''dead\_within\_%%''',
		name, role, changes);
END $$;
-- The findings once the policies are in force.
CREATE FUNCTION pg_temp.findings() RETURNS TABLE (severity text, subject text, problem text, hint text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM keepalive_apply();
	RETURN QUERY SELECT * FROM keepalive_check();
END $$;
CREATE TEMP TABLE found (step text, severity text, subject text, problem text, hint text);
-- Runs the statements, records the findings, runs the hints that are statements, and
-- records the remaining findings.
CREATE PROCEDURE pg_temp.try(step text, VARIADIC statements text[]) LANGUAGE plpgsql AS $$
DECLARE
	statement text;
BEGIN
	FOREACH statement IN ARRAY statements LOOP
		EXECUTE statement;
	END LOOP;
	COMMIT;
	INSERT INTO found SELECT try.step, f.* FROM pg_temp.findings() AS f;
	FOR statement IN SELECT f.hint FROM found AS f WHERE f.step = try.step AND f.hint ~ '^(UPDATE|DELETE|ALTER TABLE)' LOOP
		EXECUTE statement;
	END LOOP;
	COMMIT;
	INSERT INTO found SELECT try.step || ', after the hints', f.* FROM pg_temp.findings() AS f;
	DELETE FROM keepalive_policy;
	COMMIT;
END $$;

CALL pg_temp.try('nothing', 'SELECT');
CALL pg_temp.try('plan', $$SELECT pg_temp.policy('p')$$);
CALL pg_temp.try('database', $$SELECT pg_temp.policy('p', changes => ', database = ''test_nowhere''')$$);
CALL pg_temp.try('role', $$SELECT pg_temp.policy('p', 'test_nobody')$$);
CALL pg_temp.try('group', $$SELECT pg_temp.policy('p', '+test_nobody')$$);
CALL pg_temp.try('near role', $$SELECT pg_temp.policy('p', 'Test_App')$$);
CALL pg_temp.try('nologin', $$SELECT pg_temp.policy('p', 'test_group')$$);
CALL pg_temp.try('disabled', $$SELECT pg_temp.policy('p', 'test_nobody', ', enabled = false, tcp_user_timeout = ''1s''')$$);

-- Policies that another policy hides completely, and pairs without such a problem.
CALL pg_temp.try('shadow name', $$SELECT pg_temp.policy('a', NULL, ', priority = 1')$$, $$SELECT pg_temp.policy('b')$$);
CALL pg_temp.try('shadow same', $$SELECT pg_temp.policy('a')$$, $$SELECT pg_temp.policy('b')$$);
CALL pg_temp.try('shadow regex', $$SELECT pg_temp.policy('a', '/^test_', ', priority = 1')$$, $$SELECT pg_temp.policy('b')$$);
CALL pg_temp.try('shadow group', $$SELECT pg_temp.policy('a', '+test_group', ', priority = 1')$$,
	$$SELECT pg_temp.policy('b')$$);
CALL pg_temp.try('shadow inner group', $$SELECT pg_temp.policy('a', '+test_group', ', priority = 1')$$,
	$$SELECT pg_temp.policy('b', '+test_inner')$$);
CALL pg_temp.try('shadow network', $$SELECT pg_temp.policy('a', changes => ', client = ''10.0.0.0/8'', priority = 1')$$,
	$$SELECT pg_temp.policy('b', changes => ', client = ''10.1.0.0/16''')$$);
CALL pg_temp.try('shadow database', $$SELECT pg_temp.policy('a', changes => ', database = ''/gres'', priority = 1')$$,
	$$SELECT pg_temp.policy('b', changes => ', database = ''postgres'', backend = ''client''')$$);
CALL pg_temp.try('no shadow', $$SELECT pg_temp.policy('a', changes => ', client = ''10.0.0.0/8'', priority = 1')$$,
	$$SELECT pg_temp.policy('b')$$,
	$$SELECT pg_temp.policy('c', 'test_other', ', backend = ''client'', priority = 1')$$,
	$$SELECT pg_temp.policy('d', 'test_other')$$,
	$$SELECT pg_temp.policy('e', '/^test_x', ', database = ''postgres''')$$,
	$$SELECT pg_temp.policy('f', '+test_inner', ', client = ''fd00::/8''')$$,
	$$SELECT pg_temp.policy('g', '+test_group', ', database = ''/^template'', priority = 1')$$,
	$$SELECT pg_temp.policy('h', NULL)$$);

-- Policies that compose: a problem is told of the policy that gives what it is about.
CALL pg_temp.try('composed', $$SELECT pg_temp.policy('baseline', NULL, ', priority = 1000')$$,
	$$INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle) VALUES ('a', 'test_app', '15s')$$,
	$$INSERT INTO keepalive_policy (name, role, client_connection_check_interval) VALUES ('b', '+test_group', '20s')$$,
	$$INSERT INTO keepalive_policy (name, role, final) VALUES ('exemption', 'test_other', true)$$);
CALL pg_temp.try('inherited', $$SELECT pg_temp.policy('baseline', NULL, ', priority = 1000, tcp_keepalives_idle = ''400s''')$$,
	$$INSERT INTO keepalive_policy (name, role, client_connection_check_interval) VALUES ('a', 'test_app', '20s')$$);
CALL pg_temp.try('given before', $$SELECT pg_temp.policy('baseline', NULL, ', priority = 1000')$$,
	$$INSERT INTO keepalive_policy (name, priority, tcp_keepalives_interval) VALUES ('first', 1, '10s')$$,
	$$INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle) VALUES ('a', 'test_app', '8s')$$);
CALL pg_temp.try('shadow of two', $$SELECT pg_temp.policy('baseline', NULL, ', priority = 1000')$$,
	$$INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle) VALUES ('a', 1, '15s')$$,
	$$INSERT INTO keepalive_policy (name, priority, role, dead_after) VALUES ('b', 2, '/^test_', '30s')$$,
	$$INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle, dead_after) VALUES ('c', 'test_app', '14s', '31s')$$);
CALL pg_temp.try('shadow final', $$SELECT pg_temp.policy('a', '+test_group', ', priority = 1, final = true')$$,
	$$INSERT INTO keepalive_policy (name, role, tcp_user_timeout) VALUES ('b', 'test_app', '0')$$);
CALL pg_temp.try('sets nothing', $$SELECT pg_temp.policy('a')$$,
	$$SET client_min_messages = error$$,
	$$INSERT INTO keepalive_policy (name, role) VALUES ('b', '+test_group')$$,
	$$RESET client_min_messages$$);

CALL pg_temp.try('invalid', $$SELECT pg_temp.policy('p')$$,
	$$ALTER TABLE keepalive_policy DISABLE TRIGGER keepalive_policy_guard$$,
	$$UPDATE keepalive_policy SET role = '/['$$);
DO 'BEGIN ASSERT (SELECT tgenabled = ''A'' FROM pg_trigger WHERE tgname = ''keepalive_policy_guard''); END';

CALL pg_temp.try('user timeout below idle', $$SELECT pg_temp.policy('p', changes => ', tcp_user_timeout = ''2s''')$$);
CALL pg_temp.try('count is moot', $$SELECT pg_temp.policy('p', changes =>
	', tcp_user_timeout = ''40s'', stall_timeout = ''30s'', tcp_keepalives_count = 3')$$);
CALL pg_temp.try('count is right', $$SELECT pg_temp.policy('p', changes =>
	', tcp_user_timeout = ''33s'', stall_timeout = ''30s'', tcp_keepalives_count = 3')$$);
CALL pg_temp.try('slow readers', $$SELECT pg_temp.policy('p', changes =>
	', tcp_user_timeout = ''33s'', stall_timeout = NULL, tcp_keepalives_count = 3')$$);
CALL pg_temp.try('interval above idle', $$SELECT pg_temp.policy('p', changes => ', tcp_keepalives_interval = ''30s''')$$);
CALL pg_temp.try('path', $$SELECT pg_temp.policy('p', changes => ', tcp_keepalives_idle = ''400s''')$$);
CALL pg_temp.try('slow', $$SELECT pg_temp.policy('p', changes =>
	', tcp_keepalives_idle = ''0'', dead_after = NULL, client_connection_check_interval = ''0''')$$);
CALL pg_temp.try('replication', $$SELECT pg_temp.policy('p', changes =>
	', dead_after = NULL, client_connection_check_interval = NULL, backend = ''replication''')$$);
CALL pg_temp.try('keepalive off', $$SELECT pg_temp.policy('p', changes => ', keepalive = false')$$);
CALL pg_temp.try('short', $$SELECT pg_temp.policy('p', changes => ', dead_after = ''4s'', client_connection_check_interval = ''100ms''')$$);
CALL pg_temp.try('short probes', $$SELECT pg_temp.policy('p', changes => ', tcp_keepalives_interval = ''1s'', tcp_keepalives_count = 3')$$);
CALL pg_temp.try('milliseconds', $$SELECT pg_temp.policy('p', changes => ', stall_timeout = ''30000''')$$);
CALL pg_temp.try('same rank', $$SELECT pg_temp.policy('a', changes => ', dead_after = ''40s''')$$,
	$$SELECT pg_temp.policy('b', '+test_group')$$, $$SELECT pg_temp.policy('c', 'test_other')$$);

BEGIN;
SELECT plan(45);

PREPARE findings AS SELECT severity, subject, problem FROM found WHERE step = $1 ORDER BY 1, 2, 3;
SELECT is_empty(format('EXECUTE findings(%L)', step), step || ': there is no finding')
FROM unnest('{nothing,plan,disabled,no shadow,composed,count is right,replication}'::text[]) AS step;

CREATE FUNCTION pg_temp.finds(wanted text, severity text, subject text, pattern text) RETURNS text
LANGUAGE sql AS $$
	SELECT is((SELECT string_agg(format('%s | %s | %s', f.severity, f.subject,
				CASE WHEN f.problem ~ finds.pattern THEN finds.pattern ELSE f.problem END), E'\n')
			FROM found AS f WHERE f.step = wanted),
		format('%s | %s | %s', finds.severity, finds.subject, finds.pattern), wanted || ': the problem is found')
$$;
SELECT pg_temp.finds(step, severity, subject, pattern) FROM (VALUES
	('database', 'warning', 'policy "p"', '^never matches: database "test_nowhere" does not exist$'),
	('role', 'warning', 'policy "p"', '^never matches: role "test_nobody" does not exist$'),
	('group', 'warning', 'policy "p"', '^never matches: group "test_nobody" does not exist$'),
	('nologin', 'warning', 'policy "p"', '^never matches: role "test_group" cannot log in, but has members$'),
	('near role', 'warning', 'policy "p"', '^never matches: role "Test_App" does not exist$'),
	('short probes', 'warning', 'policy "p"', '^a client that leaves probes unanswered for 00:00:03 \(tcp_keepalives_count \* tcp_keepalives_interval\) is given up, which also ends living clients on a lossy network$'),
	('milliseconds', 'warning', 'policy "p"', '^stall_timeout is 8:20:00, most likely a number of milliseconds without its unit$'),
	('same rank', 'info', 'policy "b"', '^only its name puts it after policy "a", which sets the same for some sessions: they have the same priority$'),
	('shadow name', 'warning', 'policy "b"', '^gives nothing: policy "a" comes first, matches all that it does and gives all that it sets$'),
	('shadow same', 'warning', 'policy "b"', '^gives nothing: policy "a" comes first, matches all that it does and gives all that it sets$'),
	('shadow regex', 'warning', 'policy "b"', '^gives nothing: policy "a" comes first, matches all that it does and gives all that it sets$'),
	('shadow group', 'warning', 'policy "b"', '^gives nothing: policy "a" comes first, matches all that it does and gives all that it sets$'),
	('shadow inner group', 'warning', 'policy "b"', '^gives nothing: policy "a" comes first, matches all that it does and gives all that it sets$'),
	('shadow network', 'warning', 'policy "b"', '^gives nothing: policy "a" comes first, matches all that it does and gives all that it sets$'),
	('shadow database', 'warning', 'policy "b"', '^gives nothing: policy "a" comes first, matches all that it does and gives all that it sets$'),
	('inherited', 'info', 'policy "baseline"', '^probes every 00:06:40 do not keep these open: '),
	('given before', 'warning', 'policy "a"', '^tcp_keepalives_interval \(00:00:10\) is longer than tcp_keepalives_idle \(00:00:08\): '),
	('shadow of two', 'warning', 'policy "c"', '^gives nothing: policies "a", "b" come first, match all that it does and give all that it sets$'),
	('shadow final', 'warning', 'policy "b"', '^gives nothing: policy "a" comes first, matches all that it does and is final$'),
	('sets nothing', 'warning', 'policy "b"', '^gives nothing: it leaves every setting NULL, and is not final$'),
	('count is moot', 'info', 'policy "p"', '^tcp_user_timeout \(00:00:40\) overrules tcp_keepalives_count \(3\): an idle connection ends after 5 unanswered probes$'),
	('slow readers', 'warning', 'policy "p"', '^tcp_user_timeout \(00:00:33\) also ends living clients that read nothing for that long; dead_after does not$'),
	('interval above idle', 'warning', 'policy "p"', '^tcp_keepalives_interval \(00:00:30\) is longer than tcp_keepalives_idle \(00:00:18\): '),
	('path', 'info', 'policy "p"', '^probes every 00:06:40 do not keep these open: Azure Load Balancer and NAT \(00:04:00\), AWS NAT gateway \(00:05:50\), [^()]*\(00:05:50\), [^()]*\(00:05:50\)$'),
	('keepalive off', 'warning', 'policy "p"', '^a dead client would go unnoticed for an unlimited time while the session is idle, up to 00:00:3\S+ while it is busy$')
	) AS expected (step, severity, subject, pattern);

SELECT results_eq($$EXECUTE findings('user timeout below idle')$$, $$VALUES
	('warning', 'policy "p"', 'tcp_user_timeout (00:00:02) also ends living clients that read nothing for that long; dead_after does not'),
	('warning', 'policy "p"', 'tcp_user_timeout (00:00:02) is shorter than tcp_keepalives_idle (00:00:18): a single lost probe ends the connection')$$,
	'user timeout below idle: both problems are found');
SELECT results_eq($$SELECT severity, subject, regexp_replace(problem, '\d.*', '...') FROM found WHERE step = 'slow' ORDER BY 1, 2, 3$$, $$VALUES
	('info', 'policy "p"', 'probes every ...'),
	('warning', 'policy "p"', 'a dead client would go unnoticed for up to ...')$$,
	'slow: both problems are found');
SELECT matches(problem, '^a dead client would go unnoticed for up to 02:[0-9:.]+ while the session is idle, an unlimited time while it is busy$', 'slow: the finding has the detection times')
FROM found WHERE step = 'slow' AND severity = 'warning';
SELECT results_eq($$EXECUTE findings('short')$$, $$VALUES
	('warning', 'policy "p"', 'client_connection_check_interval of 100ms interrupts each query more often than once a second'),
	('warning', 'policy "p"', 'dead_after of 4s is so short that living clients on a lossy network are ended')$$,
	'short: both problems are found');
SELECT is(hint, 'UPDATE keepalive_policy SET role = ''test_app'' WHERE name = ''p'';', 'near role: the hint has the role that exists')
FROM found WHERE step = 'near role';
SELECT is(hint, 'UPDATE keepalive_policy SET tcp_keepalives_interval = ''8s'' WHERE name = ''first'';',
	'given before: the hint changes the policy that gives the setting')
FROM found WHERE step = 'given before';
SELECT results_eq($$EXECUTE findings('invalid')$$, $$VALUES
	('error', 'policy "p"', 'not in force: a value is invalid'),
	('warning', 'keepalive_policy', 'its trigger does not always fire: changes are not checked, or reach the sessions a second later')$$,
	'invalid: both problems are found');

SELECT is_empty(
	$$SELECT * FROM found WHERE step LIKE '%, after the hints'
		AND step <> 'invalid, after the hints'$$,
	'the hints solve all problems that statements can solve');
SELECT is_empty($$SELECT * FROM found WHERE hint !~ '^(UPDATE|ALTER TABLE) '$$,
	'each hint changes something, and none deletes anything');
SELECT is_empty($$SELECT * FROM found WHERE hint IS NULL OR severity NOT IN ('error', 'warning', 'info')$$,
	'each finding has a severity and a hint');

-- Privileges.
CREATE ROLE test_monitor IN ROLE pg_monitor;
SET LOCAL ROLE test_monitor;
SELECT is_empty('SELECT * FROM public.keepalive_check()', 'keepalive_check() is allowed for pg_monitor');
SET LOCAL ROLE test_app;
SELECT throws_ok('SELECT * FROM public.keepalive_check()', '42501', NULL, 'keepalive_check() is refused for an ordinary role');
RESET ROLE;

-- Other objects of the same names in search_path.
CREATE SCHEMA test_trap;
CREATE FUNCTION test_trap.keepalive_status() RETURNS integer LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE TABLE test_trap.keepalive_policy ();
CREATE TABLE test_trap.pg_trigger ();
SET LOCAL search_path = test_trap, public, pg_catalog;
SELECT is_empty('SELECT * FROM public.keepalive_check()', 'keepalive_check() does not depend on search_path');
RESET search_path;

SELECT * FROM finish();
ROLLBACK;
DROP ROLE test_app, test_other, test_group, test_inner;
