-- keepalive_metrics: each value compared with the function that it comes from, its size
-- and its privileges; keepalive_openmetrics(): the format; keepalive_top: its width.
CREATE ROLE test_metrics LOGIN;
CREATE ROLE test_metrics_with_a_long_name LOGIN;
INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle) VALUES
	(E'one "two" \\three\nfour', 'test_metrics', '61 s'),
	('unused', 'test_metrics_with_a_long_name', '62 s');
INSERT INTO keepalive_policy (name, priority, role, tcp_keepalives_interval)
	VALUES ('baseline', 1000, '/^test_metrics$', '7 s');
DO 'BEGIN PERFORM keepalive_apply(); END';

BEGIN;
CREATE EXTENSION dblink;
CREATE ROLE test_nobody;
CREATE ROLE test_monitor IN ROLE pg_monitor;

CREATE FUNCTION pg_temp.connect(connection text, options text) RETURNS text LANGUAGE sql AS $$
	SELECT dblink_connect(connection, format('host=127.0.0.1 dbname=postgres port=%s %s', current_setting('port'), options))
$$;
SELECT pg_temp.connect('two_policies', 'user=test_metrics'), pg_temp.connect('overridden', 'user=test_metrics'),
	pg_temp.connect('none', 'user=postgres'), pg_temp.connect('long_name', 'user=test_metrics_with_a_long_name'),
	dblink_exec('overridden', 'SET tcp_keepalives_idle = 99');

-- One connection that was lost, and one that was not.
SELECT pg_temp.connect('closes', 'user=test_metrics'), dblink_disconnect('closes');
DO $$
BEGIN
	PERFORM pg_temp.connect('killed', 'user=test_metrics');
	PERFORM pg_terminate_backend(pid, 5000) FROM dblink('killed', 'SELECT pg_backend_pid()') AS session (pid integer);
	PERFORM dblink_disconnect('killed');
	-- Those that have ended, and sessions from before this test, may still have to exit.  Until
	-- the last answer is acknowledged, the state of a connection changes.
	FOR i IN 1 .. 400 LOOP
		EXIT WHEN (SELECT sessions FROM keepalive_stats() WHERE policy = 'baseline') = 2
			AND (SELECT count(*) = 5 AND count(*) FILTER (WHERE timer = 'keepalive') = 4 FROM keepalive_status());
		PERFORM pg_sleep(0.05);
	END LOOP;
END $$;
SELECT pg_sleep(0.3);
CREATE TEMP TABLE metric AS SELECT * FROM keepalive_metrics;
CREATE TEMP TABLE status AS SELECT * FROM keepalive_status();
CREATE FUNCTION pg_temp.metric(name text, labels jsonb DEFAULT '{}') RETURNS double precision LANGUAGE sql RETURN (
	SELECT value FROM metric WHERE metric.name = $1 AND metric.labels = $2);

SELECT plan(40);

-- All rows

SELECT is_empty(
	$$SELECT * FROM metric WHERE (name ~ '^keepalive_guard_[a-z_]+[a-z]$' AND type IN ('gauge', 'counter', 'histogram')
		AND help ~ '^[A-Z].*\.$' AND jsonb_typeof(labels) = 'object' AND value >= 0) IS NOT TRUE$$,
	'each row has a name, a type, a help text, labels and a value');
SELECT is_empty(
	$$SELECT name, key FROM metric CROSS JOIN jsonb_each(labels) AS l
		WHERE key NOT IN ('version', 'library', 'postgresql', 'severity', 'transport', 'health', 'policy', 'state', 'le', 'cause', 'lost')
			OR jsonb_typeof(l.value) <> 'string'$$,
	'the labels are known strings, none of them a pid or an address');
SELECT is_empty('SELECT name, labels FROM metric GROUP BY 1, 2 HAVING count(*) > 1', 'there is one row for a name and labels');
SELECT is_empty(
	'SELECT name FROM metric GROUP BY 1 HAVING count(DISTINCT (type, help, (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(labels) AS k))) > 1',
	'all rows of a metric have the same type, help text and names of labels');
SELECT is_empty($$SELECT name, type FROM metric WHERE (type = 'counter') <> (name ~ '_total$')$$,
	'counters have names with _total');

-- Values

SELECT results_eq(
	$$SELECT labels ->> 'transport', labels ->> 'health', value FROM metric
		WHERE name = 'keepalive_guard_health_sessions' AND value > 0 ORDER BY 1, 2$$,
	$$SELECT transport, coalesce(health, ''), count(*)::double precision FROM status GROUP BY 1, 2 ORDER BY 1, 2$$,
	'keepalive_guard_health_sessions is the number of rows of keepalive_status()');
SELECT results_eq(
	$$SELECT labels ->> 'health' FROM metric WHERE name = 'keepalive_guard_health_sessions' AND labels ->> 'transport' = 'tcp' ORDER BY (labels ->> 'health') COLLATE "C"$$,
	$$VALUES (''), ('alive'), ('closed_by_peer'), ('dead'), ('probing'), ('retransmitting'), ('zero_window')$$,
	'keepalive_guard_health_sessions has each state of a connection, also with 0');
SELECT results_eq(
	$$SELECT labels ->> 'policy', sum(value) FROM metric
		WHERE name = 'keepalive_guard_policy_sessions' GROUP BY labels ->> 'policy' ORDER BY (labels ->> 'policy') COLLATE "C"$$,
	$$SELECT coalesce(policy, ''), sessions::double precision FROM keepalive_stats() WHERE sessions > 0 ORDER BY coalesce(policy, '') COLLATE "C"$$,
	'keepalive_guard_policy_sessions is the number of sessions in keepalive_stats()');
SELECT is(pg_temp.metric('keepalive_guard_policy_sessions', '{"policy": "baseline", "transport": "tcp", "health": "alive"}'), 2::double precision,
	'a session counts under each of its policies');
SELECT results_eq(
	$$SELECT labels ->> 'transport', labels ->> 'state', value FROM metric
		WHERE name = 'keepalive_guard_policy_state_sessions' ORDER BY 1, 2$$,
	$$SELECT transport, state, (SELECT count(*) FROM status WHERE status.transport = t.transport
			AND coalesce(policy_state, 'none') = state)::double precision
		FROM unnest('{tcp,unix}'::text[]) AS t (transport)
			CROSS JOIN unnest('{applied,failed,none,overridden,pending}'::text[]) AS s (state) ORDER BY 1, 2$$,
	'keepalive_guard_policy_state_sessions counts the sessions by policy_state');
SELECT is(pg_temp.metric('keepalive_guard_policy_state_sessions', '{"transport": "tcp", "state": "overridden"}'), 1::double precision,
	'one of them is overridden');
SELECT ok(pg_temp.metric('keepalive_guard_longest_silence_seconds') BETWEEN 0.2
	AND (SELECT extract(epoch FROM max(silent_for)) FROM status), 'keepalive_guard_longest_silence_seconds is the longest silent_for');
SELECT results_eq(
	$$SELECT name, labels ->> 'state', value FROM metric WHERE name ~ 'detection' ORDER BY 1, 2$$,
	$$VALUES ('keepalive_guard_detection_unlimited_sessions', 'busy', 0::double precision), ('keepalive_guard_detection_unlimited_sessions', 'idle', 0),
		('keepalive_guard_detection_worst_seconds', 'busy', 0), ('keepalive_guard_detection_worst_seconds', 'idle', 0)$$,
	'clients on the same host do not count for detection');
SELECT is(pg_temp.metric('keepalive_guard_rtt_seconds_count'), (SELECT count(rtt_ms) FROM status)::double precision,
	'the histogram counts the sessions with a round-trip time');
SELECT ok(abs(pg_temp.metric('keepalive_guard_rtt_seconds_sum') - (SELECT sum(rtt_ms) / 1000 FROM status)) < 0.01,
	'its sum is that of the round-trip times in seconds');
SELECT is(pg_temp.metric('keepalive_guard_rtt_seconds_bucket', '{"le": "+Inf"}'), pg_temp.metric('keepalive_guard_rtt_seconds_count'),
	'its last bucket has all sessions');
SELECT is_empty(
	$$SELECT * FROM (SELECT value, lag(value) OVER (ORDER BY (labels ->> 'le')::double precision) AS before
		FROM metric WHERE name = 'keepalive_guard_rtt_seconds_bucket') AS bucket WHERE value < before$$,
	'its buckets are cumulative');
SELECT results_eq(
	$$SELECT name, value FROM metric WHERE name IN ('keepalive_guard_blockers', 'keepalive_guard_blocked_sessions',
		'keepalive_guard_longest_blocked_seconds', 'keepalive_guard_xmin_holders') ORDER BY 1$$,
	$$VALUES ('keepalive_guard_blocked_sessions', 0::double precision), ('keepalive_guard_blockers', 0),
		('keepalive_guard_longest_blocked_seconds', 0), ('keepalive_guard_xmin_holders', 0)$$,
	'without dead clients nobody is blocked');
SELECT is(pg_temp.metric('keepalive_guard_accept_queue_connections'), 0::double precision, 'nobody waits to be accepted');
SELECT is(pg_temp.metric('keepalive_guard_accept_queue_use_ratio'), 0::double precision, 'the accept queue is empty');
SELECT results_eq(
	$$SELECT labels ->> 'severity', value FROM metric WHERE name = 'keepalive_guard_check_findings' ORDER BY 1$$,
	$$SELECT severity, (SELECT count(*) FROM keepalive_check() AS c WHERE c.severity = s.severity)::double precision
		FROM unnest('{error,info,warning}'::text[]) AS s (severity)$$,
	'keepalive_guard_check_findings counts the findings of keepalive_check()');
SELECT cmp_ok(pg_temp.metric('keepalive_guard_check_findings', '{"severity": "info"}'), '>', 0::double precision, 'there are findings');
SELECT results_eq(
	$$SELECT name, value FROM metric WHERE name IN ('keepalive_guard_preloaded', 'keepalive_guard_worker_up', 'keepalive_guard_enabled',
		'keepalive_guard_policies', 'keepalive_guard_invalid_policies', 'keepalive_guard_policies_up_to_date',
		'keepalive_guard_standby_outdated') ORDER BY 1$$,
	$$VALUES ('keepalive_guard_enabled', 1::double precision), ('keepalive_guard_invalid_policies', 0),
		('keepalive_guard_policies', (SELECT count(*) FROM keepalive_policy)), ('keepalive_guard_policies_up_to_date', 1),
		('keepalive_guard_preloaded', 1), ('keepalive_guard_standby_outdated', 0), ('keepalive_guard_worker_up', 1)$$,
	'the state of the guard is that of keepalive_condition()');
SELECT ok(to_timestamp(pg_temp.metric('keepalive_guard_policies_changed_timestamp_seconds')) BETWEEN now() - interval '1 min' AND now(),
	'keepalive_guard_policies_changed_timestamp_seconds is the time of the last change');
SELECT is(pg_temp.metric('keepalive_guard_build_info', jsonb_build_object(
		'version', (SELECT extversion FROM pg_extension WHERE extname = 'keepalive_guard'),
		'library', (SELECT version FROM keepalive_condition()),
		'postgresql', (regexp_match(version(), '^PostgreSQL (\S+)'))[1])), 1::double precision,
	'keepalive_guard_build_info has the versions');

-- Counters

SELECT results_eq(
	$$SELECT labels ->> 'policy', value FROM metric WHERE name = 'keepalive_guard_policy_connections_total' ORDER BY (labels ->> 'policy') COLLATE "C"$$,
	$$SELECT coalesce(policy, ''), sessions_total::double precision FROM keepalive_stats() ORDER BY coalesce(policy, '') COLLATE "C"$$,
	'keepalive_guard_policy_connections_total is sessions_total of keepalive_stats()');
SELECT results_eq(
	$$SELECT labels ->> 'cause', labels ->> 'lost', value FROM metric WHERE name = 'keepalive_guard_connections_ended_total' ORDER BY 1$$,
	$$SELECT cause, lost::text, connections::double precision FROM keepalive_ended() ORDER BY 1$$,
	'keepalive_guard_connections_ended_total has every cause');
SELECT is_empty(
	$$WITH stats AS (SELECT key AS cause, sum(value::bigint) AS counted, max(value::bigint) AS most
			FROM keepalive_stats() AS s CROSS JOIN jsonb_each_text(to_jsonb(s)) WHERE key <> 'policy' AND key NOT LIKE '%stats_reset'
			GROUP BY key)
		SELECT cause, connections, counted FROM keepalive_ended() LEFT JOIN stats USING (cause)
		WHERE (connections BETWEEN most AND counted) IS NOT TRUE$$,
	'each ended connection counts once, and under each of its policies in keepalive_stats()');
SELECT cmp_ok((SELECT connections FROM keepalive_ended() WHERE cause = 'client_closed'), '<',
	(SELECT sum(client_closed)::bigint FROM keepalive_stats()), 'a connection with two policies ended');

-- Size, cost and privileges

INSERT INTO metric
	SELECT 'many policies', '', '', '{}', count(*) FROM keepalive_metrics;
SELECT ok(pg_temp.metric('many policies') <= 80 + 20 * (SELECT count(*) + 1 FROM keepalive_policy),
	'there are at most 80 rows, and 20 for each policy: ' || pg_temp.metric('many policies'));
CREATE FUNCTION pg_temp.plan_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line text;
	plan text := '';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) ' || query LOOP
		plan := plan || line || E'\n';
	END LOOP;
	RETURN plan;
END $$;
SELECT unalike(pg_temp.plan_of('SELECT * FROM keepalive_metrics'), '%JIT:%', 'keepalive_metrics does not use JIT compilation');
SELECT doesnt_match(pg_temp.plan_of($$SELECT * FROM keepalive_metrics WHERE name = 'keepalive_guard_worker_up'$$),
	'Function Scan on keepalive_(status|stats|sockets)[^\n]*\(actual', 'a metric by its name reads only what it needs');

SET LOCAL ROLE test_nobody;
SELECT throws_ok('SELECT * FROM keepalive_metrics', '42501', NULL, 'keepalive_metrics is refused for an ordinary role');
SELECT throws_ok('SELECT keepalive_openmetrics()', '42501', NULL, 'keepalive_openmetrics() is refused for an ordinary role');
SET LOCAL ROLE test_monitor;
SELECT cmp_ok((SELECT count(*) FROM keepalive_metrics), '>=', 80::bigint, 'pg_monitor sees keepalive_metrics');
RESET ROLE;

-- keepalive_openmetrics()

CREATE TEMP TABLE line AS
	SELECT n, line, (regexp_match(line, '^(?:# (?:HELP|TYPE|UNIT) )?([a-z_]+)'))[1] AS name, line ~ '^#' AS is_comment
	FROM regexp_split_to_table((SELECT keepalive_openmetrics()), E'\n') WITH ORDINALITY AS t (line, n);
SELECT results_eq(
	$$SELECT line FROM (SELECT name || coalesce('{' || (SELECT string_agg(format('%s="%s"', key,
				replace(replace(replace(value, '\', '\\'), '"', '\"'), E'\n', '\n')), ',' ORDER BY key) FROM jsonb_each_text(labels)) || '}', '') AS line
			FROM keepalive_metrics) AS m ORDER BY line COLLATE "C"$$,
	$$SELECT regexp_replace(line, ' [0-9.e+-]+$', '') AS line FROM line WHERE NOT is_comment ORDER BY regexp_replace(line, ' [0-9.e+-]+$', '') COLLATE "C"$$,
	'there is a line for each metric, with escaped labels');
SELECT is_empty(
	$$SELECT line FROM line WHERE NOT is_comment AND n < (SELECT n FROM line AS type
			WHERE type.line ~ '^# TYPE' AND line.name IN (type.name, type.name || '_total', type.name || '_bucket', type.name || '_sum', type.name || '_count'))
		UNION ALL
		SELECT line FROM line WHERE line !~ '^(# (HELP [a-z_]+ [A-Z].*\.|TYPE [a-z_]+ (gauge|counter|histogram)|UNIT [a-z_]+_(seconds|ratio) (seconds|ratio)|EOF)|[a-z_]+(\{([a-z]+="([^"\\]|\\[\\n"])*",?)+\})? [0-9.e+-]+)$'$$,
	'each line has the form of OpenMetrics, and the type comes before the values');
SELECT is((SELECT line FROM line ORDER BY n DESC LIMIT 1), '# EOF', 'the last line is # EOF');

-- keepalive_top

SELECT results_eq(
	$$SELECT count(*), true FROM information_schema.columns WHERE table_name = 'keepalive_top'$$,
	$$SELECT 10::bigint, sum(greatest(length(key), width)) + 3 * 10 - 1 <= 100 FROM (
		SELECT key, max(length(value)) AS width FROM keepalive_top AS t CROSS JOIN jsonb_each_text(to_jsonb(t)) GROUP BY key) AS c$$,
	'keepalive_top has ten columns and fits 100 characters');
SELECT results_eq(
	$$SELECT usename COLLATE "default", client, policy, health FROM keepalive_top WHERE usename ~ '~' OR client = '[local]' ORDER BY 2, 3$$,
	$$VALUES ('test_me~', '127.0.0.1', 'one "tw~', 'alive'), ('test_me~', '127.0.0.1', 'one "tw~', 'alive'),
		('test_me~', '127.0.0.1', 'unused', 'alive'), ('postgres', '[local]', NULL, NULL)$$,
	'keepalive_top cuts off long names');

SELECT dblink_disconnect(unnest(dblink_get_connections()));
SELECT * FROM finish();
ROLLBACK;

DELETE FROM keepalive_policy;
DROP ROLE test_metrics, test_metrics_with_a_long_name;
