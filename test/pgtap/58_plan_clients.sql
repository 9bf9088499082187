-- keepalive_plan_clients(): the client's side of a plan.  Real clients use these texts in
-- test/t/480_clients.pl, and more of them in make test-clients.
BEGIN;
SELECT plan(31);

CREATE TEMP TABLE intent AS
	SELECT within, path, plan.*
	FROM unnest('{9.3 s,10 s,15 s,60 s,2 min,10 min,1 h,1 day,1000 days}'::interval[]) AS within
		CROSS JOIN unnest('{NULL,5 s,350 s}'::interval[]) AS path
		CROSS JOIN LATERAL keepalive_plan(within, path) AS plan;
CREATE TEMP TABLE planned AS
	SELECT within, path, clients.*
	FROM intent CROSS JOIN LATERAL keepalive_plan_clients(within, path) AS clients;

SELECT cmp_ok(count(*), '>=', 25::bigint, 'there are 25 kinds of clients or more')
FROM keepalive_plan_clients('1 min');
SELECT is(count(*), count(DISTINCT client), 'each of them has one row') FROM keepalive_plan_clients('1 min');
SELECT bag_eq(
	$$SELECT DISTINCT client FROM planned$$, $$SELECT client FROM keepalive_plan_clients('1 min')$$,
	'the rows are the same for all intents');
SELECT is_empty(
	$$SELECT client FROM planned WHERE settings = '' OR (settings || covers::text || detects_idle || detects_busy || limits || source) IS NULL$$,
	'each row has settings, covers, the detection times, limits and a source');
SELECT is_empty(
	$$SELECT client, source FROM planned WHERE source !~ '^https://'$$, 'each source is an address');
SELECT is_empty(
	$$SELECT * FROM planned WHERE needs IS NOT NULL AND NOT EXISTS (
		SELECT FROM planned AS other
		WHERE other.within = planned.within AND other.path IS NOT DISTINCT FROM planned.path
			AND other.client = planned.needs AND other.needs IS NULL)$$,
	'what a row needs is another row, which needs nothing');
SELECT is_empty(
	$$SELECT * FROM planned WHERE covers IS DISTINCT FROM array_remove(ARRAY[
		CASE WHEN detects_idle <= within THEN 'idle' END,
		CASE WHEN detects_busy <= within THEN 'busy' END,
		CASE WHEN detects_connecting <= within THEN 'connecting' END], NULL)$$,
	'covers has the states in which the server is found within detect_within');
SELECT is_empty(
	$$SELECT client, within, covers FROM planned
		WHERE detects_connecting IS NOT NULL AND covers <> '{idle,busy,connecting}'
			AND client NOT IN ('Kubernetes pod', 'postgres_fdw') AND NOT (client = 'node-postgres' AND within < '15 s')$$,
	'all clients that connect are covered in all states, but for those whose limits say otherwise');
SELECT bag_eq(
	$$SELECT client FROM keepalive_plan_clients('1 min') WHERE detects_connecting IS NULL$$,
	$$VALUES ('HAProxy, to clients'), ('nginx stream, to clients'), ('systemd socket')$$,
	'what only accepts connections has no time for connecting');

-- The same plan as keepalive_plan()'s.
SELECT is_empty(
	$$SELECT * FROM planned JOIN intent ON (intent.within, intent.path) IS NOT DISTINCT FROM (planned.within, planned.path)
		WHERE client IN ('primary_conninfo', 'subscription', 'dblink')
			AND settings !~ ('^' || libpq_options || ' connect_timeout=\d+$')$$,
	'the settings for libpq are those of keepalive_plan()');
SELECT is_empty(
	$$SELECT * FROM planned JOIN intent ON (intent.within, intent.path) IS NOT DISTINCT FROM (planned.within, planned.path)
		WHERE client = 'sysctl' AND settings <> sysctl$$,
	'the settings for sysctl are those of keepalive_plan()');
-- The times for sysctl are those of a policy with these values, which has no dead_after.
CREATE FUNCTION pg_temp.value(settings text, name text) RETURNS integer LANGUAGE sql RETURN
	substring(settings FROM name || ' ?= ?(\d+)')::integer;
CREATE FUNCTION pg_temp.detects_idle(idle integer, probe_interval integer, probes integer, user_timeout integer)
	RETURNS interval LANGUAGE plpgsql AS $$
DECLARE
	result interval;
BEGIN
	DELETE FROM keepalive_policy;
	INSERT INTO keepalive_policy (name, final, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout)
	VALUES ('client', true, idle * interval '1 s', probe_interval * interval '1 s', probes, user_timeout * interval '1 ms');
	SELECT e.detects_idle INTO result FROM keepalive_explain('postgres', 'postgres', '192.0.2.1') AS e WHERE kind = 'outcome';
	RETURN result;
END $$;
SET LOCAL client_min_messages = error; -- the values are deliberately aggressive
SELECT is_empty(
	$$SELECT * FROM planned WHERE client IN ('primary_conninfo', 'sysctl') AND detects_idle IS DISTINCT FROM
		CASE client WHEN 'sysctl' THEN
			pg_temp.detects_idle(pg_temp.value(settings, 'keepalive_time'), pg_temp.value(settings, 'intvl'),
				pg_temp.value(settings, 'probes'), 0)
		ELSE
			pg_temp.detects_idle(pg_temp.value(settings, 'idle'), pg_temp.value(settings, 'interval'),
				pg_temp.value(settings, 'count'), pg_temp.value(settings, 'user_timeout'))
		END$$,
	'detects_idle is what keepalive_explain() says of these values');
RESET client_min_messages;
SELECT is_empty(
	$$SELECT * FROM planned WHERE client = 'primary_conninfo' AND path IS NOT NULL
		AND pg_temp.value(settings, 'idle') * interval '1 s' >= path$$,
	'probes keep the path open');
SELECT is(settings, 'keepalives=1 keepalives_idle=18 keepalives_interval=5 keepalives_count=6 tcp_user_timeout=32000 connect_timeout=59',
	'the settings for primary_conninfo')
FROM keepalive_plan_clients('1 min', '350 s') WHERE client = 'primary_conninfo';
SELECT is(settings, E'tcp_keepalive = 1\ntcp_keepidle = 18\ntcp_keepintvl = 5\ntcp_keepcnt = 6\ntcp_user_timeout = 32000\n'
	'server_connect_timeout = 59\nquery_wait_timeout = 58\n', 'the settings for PgBouncer')
FROM keepalive_plan_clients('1 min', '350 s') WHERE client = 'PgBouncer';

-- What cannot be planned.
CREATE FUNCTION pg_temp.refusal(call text, OUT message text, OUT detail text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE call;
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END $$;
CREATE TEMP TABLE refused AS
	SELECT * FROM pg_temp.refusal($$SELECT count(*) FROM keepalive_plan_clients('5 s')$$);
SELECT is(message, 'a dead client or server cannot be found within 00:00:05', 'a detection time that is too short is refused')
FROM refused;
SELECT matches(detail, '^The minimum is 00:00:09\.\d+ while ', 'the error has the minimum') FROM refused;
SELECT matches(hint, '^Try keepalive_plan_clients\(''00:00:09\.\d+''\)\.$', 'the hint has a call that is possible') FROM refused;
SELECT lives_ok('SELECT ' || substring(hint FROM '^Try (.*)\.$'), 'it is possible') FROM refused;
SELECT throws_ok($$SELECT keepalive_plan_clients('1 min', '1 s')$$, '22023',
	'keepalive probes cannot keep a path open that drops idle connections after 00:00:01', 'a path timeout that is too short is refused');
SELECT throws_ok(format('SELECT keepalive_plan_clients(%L)', bad), '22023',
	'invalid value for argument "detect_within": ' || bad::interval, 'detect_within = ' || bad || ' is refused')
FROM unnest('{0,-1 s,999 us,1 mon,36526 days}'::text[]) AS bad;
SELECT throws_ok($$SELECT keepalive_plan_clients('1 min', '0')$$, '22023',
	'invalid value for argument "path_idle_timeout": 00:00:00', 'path_idle_timeout = 0 is refused');
SELECT throws_ok($$SELECT keepalive_plan_clients('1 min', '1 year')$$, '22023',
	'invalid value for argument "path_idle_timeout": 1 year', 'path_idle_timeout = 1 year is refused');
SELECT throws_ok('SELECT keepalive_plan_clients(NULL)', '22004', NULL, 'detect_within = NULL is refused');
SELECT throws_ok($$SELECT keepalive_plan_clients('a minute')$$, '22007', NULL, 'what is no interval is refused');

CREATE ROLE test_nobody;
SET LOCAL ROLE test_nobody;
SELECT lives_ok($$SELECT keepalive_plan_clients('1 min')$$, 'keepalive_plan_clients() is allowed for everybody');
RESET ROLE;
SELECT is(count(*), 0::bigint, 'it leaves no policy behind') FROM keepalive_policy WHERE name LIKE 'dead_within%';

SELECT * FROM finish();
ROLLBACK;
