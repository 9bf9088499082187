-- keepalive_plan(): its detection times for many intents, what it refuses, and that its
-- INSERT gives a session these detection times.
CREATE TEMP TABLE intent AS
	SELECT within, path, strict, plan.*
	FROM unnest('{9.3 s,10 s,12.345 s,15 s,20 s,30 s,45 s,60 s,90 s,2 min,5 min,7 min,10 min,
			30 min,1 h,3 h,1 day,30 days,1000 days}'::interval[]) AS within
		CROSS JOIN unnest('{NULL,1.3 s,5 s,60 s,240 s,350 s,900 s,5 days}'::interval[]) AS path
		CROSS JOIN unnest('{false,true}'::boolean[]) AS strict
		CROSS JOIN LATERAL keepalive_plan(within, path, strict) AS plan;

-- Creates a policy from each plan.
CREATE TEMP TABLE named AS
	SELECT *, format('test plan %s %s %s', within, path, strict) AS name FROM intent;
DO $$
DECLARE
	plan named;
BEGIN
	FOR plan IN SELECT * FROM named LOOP
		EXECUTE plan.policy;
		EXECUTE plan.policy; -- it can be run again
		UPDATE keepalive_policy SET name = plan.name WHERE name LIKE 'dead\_within\_%';
	END LOOP;
END $$;
DO 'BEGIN PERFORM keepalive_apply(); END';

BEGIN;
SELECT plan(31);

SELECT is(count(*)::integer, 19 * 8 * 2, 'there is a plan for each intent') FROM intent;
SELECT is_empty(
	$$SELECT * FROM intent
		WHERE (greatest(detects_idle, detects_busy, detects_late_write) < within) IS NOT TRUE
			OR (detects_stalled < within) IS NOT TRUE AND strict$$,
	'every worst case is within detect_within');
SELECT is_empty(
	$$SELECT * FROM intent
		WHERE (earliest_idle <= detects_idle AND earliest_busy <= detects_busy
			AND earliest_late_write <= detects_late_write AND earliest_stalled <= detects_stalled) IS NOT TRUE$$,
	'the earliest times are not after the latest');
SELECT is_empty(
	$$SELECT * FROM intent WHERE tcp_keepalives_idle + tcp_keepalives_interval >= path AND path > '3 s'$$,
	'probes keep the path open even if one is lost');
SELECT is_empty(
	$$SELECT * FROM intent WHERE tcp_keepalives_idle >= path$$,
	'probes keep the path open if none is lost');
SELECT is_empty(
	$$SELECT * FROM intent WHERE tcp_user_timeout <> '0' OR tcp_keepalives_interval > tcp_keepalives_idle$$,
	'no plan sets tcp_user_timeout, or an interval longer than idle');
SELECT is_empty(
	$$SELECT * FROM intent
		WHERE probes_per_hour <> ceil(3600 / extract(epoch FROM tcp_keepalives_idle))$$,
	'probes_per_hour follows from tcp_keepalives_idle');
SELECT is_empty(
	$$SELECT * FROM intent WHERE libpq_options NOT LIKE
		format('keepalives=1 keepalives_idle=%s keepalives_interval=%s keepalives_count=%s tcp_user_timeout=%%',
			extract(epoch FROM tcp_keepalives_idle)::int, extract(epoch FROM tcp_keepalives_interval)::int,
			tcp_keepalives_count)$$,
	'libpq_options has the same values');
SELECT is_empty(
	$$SELECT * FROM intent WHERE sysctl !~
		format(E'\\Anet.ipv4.tcp_keepalive_time = %s\nnet.ipv4.tcp_keepalive_intvl = %s\n'
			'net.ipv4.tcp_keepalive_probes = %s\nnet.ipv4.tcp_retries2 = \\d+\nnet.ipv4.tcp_syn_retries = [1-6]\n\\Z',
			extract(epoch FROM tcp_keepalives_idle)::int, extract(epoch FROM tcp_keepalives_interval)::int,
			tcp_keepalives_count)$$,
	'sysctl has the same values');

SELECT is_empty(
	$$SELECT * FROM named JOIN keepalive_policy AS p USING (name)
		WHERE (named.tcp_keepalives_idle, named.tcp_keepalives_interval, named.tcp_keepalives_count,
				named.tcp_user_timeout, named.client_connection_check_interval, named.dead_after, named.stall_timeout)
			IS DISTINCT FROM
			(p.tcp_keepalives_idle, p.tcp_keepalives_interval, p.tcp_keepalives_count,
				p.tcp_user_timeout, p.client_connection_check_interval, p.dead_after, p.stall_timeout)$$,
	'the INSERT gives the values of the columns');
-- The policies as this transaction has them: one alone is enabled.
CREATE FUNCTION pg_temp.outcome(policy text, OUT detects_idle interval, OUT detects_busy interval) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE keepalive_policy SET enabled = name = policy WHERE enabled OR name = policy;
	SELECT e.detects_idle, e.detects_busy INTO detects_idle, detects_busy
	FROM keepalive_explain('postgres', 'postgres', '192.0.2.1') AS e WHERE kind = 'outcome';
END $$;
SELECT is_empty(
	$$SELECT * FROM named CROSS JOIN LATERAL pg_temp.outcome(name) AS e
		WHERE (e.detects_idle, e.detects_busy) IS DISTINCT FROM (named.detects_idle, named.detects_busy)$$,
	'keepalive_explain() gives the plan''s detection times');

SELECT is_empty('SELECT * FROM intent WHERE (stall_timeout IS NOT NULL) <> strict',
	'only a plan that ends slow readers has a stall_timeout');
SELECT is_empty('SELECT * FROM intent WHERE NOT strict AND within >= ''5 min'' AND (detects_stalled < within) IS NOT TRUE',
	'if there is time, a plan also finds dead clients with a closed window');
SELECT is_empty('SELECT * FROM named JOIN keepalive_policy USING (name) WHERE priority <> 1000',
	'the policies have the priority 1000');
SELECT throws_ok($$SELECT keepalive_plan('5 s')$$, '22023',
	'a dead client or server cannot be found within 00:00:05', 'a detection time that is too short is refused');
CREATE FUNCTION pg_temp.refusal(call text, OUT detail text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE call;
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END $$;
CREATE TEMP TABLE refused AS
	SELECT * FROM pg_temp.refusal($$SELECT keepalive_plan('5 s')$$);
SELECT matches(detail, '^The minimum is 00:00:09\.\d+ while keepalive_guard\.watch_interval is 1000 ms\.$',
	'the error has the minimum for detect_within') FROM refused;
SELECT lives_ok('SELECT ' || substring(hint FROM '^Try (.*)\.$'), 'the minimum for detect_within is possible') FROM refused;
SELECT throws_ok(
	format('SELECT keepalive_plan(interval %L - interval ''2 ms'')', substring(hint FROM '\(''(.*)''\)')),
	'22023', NULL, 'less than the minimum for detect_within is not possible') FROM refused;
SELECT throws_ok($$SELECT keepalive_plan('1 min', '1 s')$$, '22023',
	'keepalive probes cannot keep a path open that drops idle connections after 00:00:01', 'a path timeout that is too short is refused');
SELECT matches(detail, '^The minimum is 00:00:01\.\d+: ', 'the error has the minimum for path_idle_timeout')
FROM pg_temp.refusal($$SELECT keepalive_plan('1 min', '1 s')$$);
SELECT lives_ok(format('SELECT keepalive_plan(''1 min'', %L)', substring(detail FROM 'is ([\d:.]+):')),
	'the minimum for path_idle_timeout is possible')
FROM pg_temp.refusal($$SELECT keepalive_plan('1 min', '1 s')$$);
SELECT throws_ok(format('SELECT keepalive_plan(%L)', bad), '22023',
	'invalid value for argument "detect_within": ' || bad::interval, 'detect_within = ' || bad || ' is refused')
FROM unnest('{0,-1 s,999 us,1 mon,36526 days}'::text[]) AS bad;
SELECT throws_ok($$SELECT keepalive_plan('1 min', '0')$$, '22023',
	'invalid value for argument "path_idle_timeout": 00:00:00', 'path_idle_timeout = 0 is refused');
SELECT throws_ok('SELECT keepalive_plan(NULL)', '22004', NULL, 'detect_within = NULL is refused');

CREATE ROLE test_nobody;
SET LOCAL ROLE test_nobody;
SELECT lives_ok($$SELECT keepalive_plan('1 min')$$, 'keepalive_plan() is allowed for everybody');
RESET ROLE;

CREATE SCHEMA "other place";
SET LOCAL search_path = "other place";
CREATE TEMP TABLE elsewhere AS SELECT policy FROM public.keepalive_plan('1 min');
SET LOCAL search_path = public;
SET LOCAL search_path = "other place";
CREATE TEMP TABLE refused_elsewhere AS SELECT * FROM pg_temp.refusal($$SELECT public.keepalive_plan('5 s')$$);
SET LOCAL search_path = public;
SELECT matches(hint, '^Try public\.keepalive_plan\(', 'the hint names the schema if necessary')
FROM refused_elsewhere;
SELECT matches(policy, '^INSERT INTO public\.keepalive_policy \(', 'the INSERT qualifies the table if it is not in search_path')
FROM elsewhere;

SELECT * FROM finish();
ROLLBACK;
DELETE FROM keepalive_policy WHERE name LIKE 'test plan%';
