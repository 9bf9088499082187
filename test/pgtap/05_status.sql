-- keepalive_status(): the rows of a session over a Unix socket, of a TCP session with a
-- policy and of a walsender, compared with pg_stat_activity, and their visibility.
CREATE ROLE test_status LOGIN;
INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle, tcp_keepalives_interval,
		tcp_keepalives_count, tcp_user_timeout, client_connection_check_interval)
	VALUES ('test status', 'test_status', '61 s', '7 s', 5, '12345 ms', '2500 ms');
DO 'BEGIN PERFORM keepalive_apply(); END';

BEGIN;
CREATE EXTENSION dblink;
CREATE ROLE test_nobody;
CREATE ROLE test_reader IN ROLE pg_read_all_stats;
CREATE ROLE test_member IN ROLE test_status;

CREATE FUNCTION pg_temp.connect(connection text, options text) RETURNS integer
LANGUAGE sql AS $$
	SELECT dblink_connect(connection, format('dbname=postgres port=%s application_name=%s %s',
		current_setting('port'), connection, options));
	SELECT pid FROM dblink(connection, 'SELECT pg_backend_pid()') AS session (pid integer)
$$;
CREATE TEMP TABLE session AS
	SELECT pg_backend_pid() AS self,
		pg_temp.connect('test_tcp', 'host=127.0.0.1 user=test_status') AS tcp,
		pg_temp.connect('test_walsender', 'host=127.0.0.1 user=postgres replication=database')
			AS walsender;
GRANT SELECT ON session TO PUBLIC;

-- Until the last answer is acknowledged, the retransmission timer runs instead of the
-- keepalive timer.  Sessions from before this test may still have to exit.
DO $$
BEGIN
	FOR i IN 1 .. 400 LOOP
		EXIT WHEN (SELECT count(*) = 3 AND count(*) FILTER (WHERE timer = 'keepalive') = 2 FROM keepalive_status());
		PERFORM pg_sleep(0.05);
	END LOOP;
END $$;
SELECT pg_sleep(0.3);
SELECT pg_stat_clear_snapshot();
SELECT set_config('client_connection_check_interval', '1500ms', true);
SELECT plan(34);

-- All rows

CREATE TEMP VIEW activity AS
	SELECT pid, datname::text, usename::text, application_name, backend_type, client_addr, client_port
	FROM pg_stat_activity;
CREATE TEMP VIEW status AS
	SELECT pid, datname::text, usename::text, application_name, backend_type, client_addr, client_port
	FROM keepalive_status();
GRANT SELECT ON status TO PUBLIC;

SELECT set_eq(
	'SELECT * FROM status',
	$$SELECT * FROM activity WHERE backend_type IN ('client backend', 'walsender')$$,
	'there is a row for each client backend and walsender, as in pg_stat_activity');
SELECT is(count(*), 3::bigint, 'there is a row for each of the three sessions')
FROM keepalive_status(), session WHERE pid IN (self, tcp, walsender);

-- A session over a Unix socket: this one

SELECT results_eq(
	$$SELECT transport, client_addr, client_port, policies, policy_state, backend_type
		FROM keepalive_status(), session WHERE pid = self$$,
	$$VALUES ('unix', NULL::inet, -1, NULL::text[], NULL::text, 'client backend')$$,
	'a session over a Unix socket has no address and no policy');
SELECT is(
	(SELECT jsonb_object_agg(key, value)
		FROM keepalive_status() s, session, jsonb_each(to_jsonb(s)) WHERE pid = self AND key IN
			('keepalive', 'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count',
			'tcp_user_timeout', 'tcp_state', 'timer', 'timer_expires', 'unanswered_probes',
			'retransmits', 'silent_for', 'send_queue', 'recv_queue', 'rtt_ms', 'health', 'gives_up_in',
			'detects_idle', 'detects_busy')
			AND value <> 'null'),
	NULL, 'a session over a Unix socket has no TCP columns');
SELECT is(client_connection_check_interval, '1.5 s'::interval, 'a session over a Unix socket has the client check that SET gave it')
FROM keepalive_status(), session WHERE pid = self;

-- A TCP session with a policy

SELECT results_eq(
	$$SELECT transport, client_addr, policies, policy_state, backend_type
		FROM keepalive_status(), session WHERE pid = tcp$$,
	$$VALUES ('tcp', '127.0.0.1'::inet, '{"test status"}'::text[], 'applied', 'client backend')$$,
	'a TCP session has its policy applied');
SELECT results_eq(
	$$SELECT keepalive, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count,
			tcp_user_timeout, client_connection_check_interval
		FROM keepalive_status(), session WHERE pid = tcp$$,
	$$VALUES (true, '61 s'::interval, '7 s'::interval, 5, '12.345 s'::interval, '2.5 s'::interval)$$,
	'a TCP session has the policy''s values');
SELECT results_eq(
	$$SELECT tcp_state, timer, unanswered_probes, retransmits, send_queue, recv_queue
		FROM keepalive_status(), session WHERE pid = tcp$$,
	$$VALUES ('ESTABLISHED', 'keepalive', 0, 0, 0::bigint, 0::bigint)$$,
	'an idle connection has the keepalive timer and empty queues');
SELECT ok(timer_expires > '50 s' AND timer_expires <= '61.5 s',
	'timer_expires follows from tcp_keepalives_idle: ' || timer_expires)
FROM keepalive_status(), session WHERE pid = tcp;
SELECT ok(silent_for >= '0.2 s' AND silent_for < '10 s', 'silent_for counts from the last packet: ' || silent_for)
FROM keepalive_status(), session WHERE pid = tcp;
SELECT ok(rtt_ms > 0 AND rtt_ms < 1000, 'rtt_ms is that of the loopback: ' || rtt_ms)
FROM keepalive_status(), session WHERE pid = tcp;
SELECT ok(health = 'alive' AND gives_up_in > timer_expires AND gives_up_in <= detects_idle AND detects_busy < '30 s',
	format('an idle session is alive and gives_up_in is within the worst cases (%s, %s, %s)', gives_up_in, detects_idle, detects_busy))
FROM keepalive_status(), session WHERE pid = tcp;
SELECT is(
	(SELECT value FROM dblink('test_tcp', 'SHOW tcp_keepalives_idle') AS shown (value text)),
	'61', 'SHOW shows the policy''s value');

SELECT is(dblink_exec('test_tcp', 'SET tcp_keepalives_idle = 99'), 'SET', 'the session runs SET');
SELECT results_eq(
	$$SELECT policies, policy_state, tcp_keepalives_idle, tcp_keepalives_interval
		FROM keepalive_status(), session WHERE pid = tcp$$,
	$$VALUES ('{"test status"}'::text[], 'overridden', '99 s'::interval, '7 s'::interval)$$,
	'after SET, policy_state is overridden and the session''s value is shown');
SELECT is(dblink_exec('test_tcp', 'RESET tcp_keepalives_idle'), 'RESET', 'the session runs RESET');
SELECT results_eq(
	$$SELECT policies, policy_state, tcp_keepalives_idle FROM keepalive_status(), session WHERE pid = tcp$$,
	$$VALUES ('{"test status"}'::text[], 'applied', '61 s'::interval)$$,
	'after RESET, policy_state is applied and the policy''s value is shown');

-- A walsender without a policy: the system's defaults

SELECT results_eq(
	$$SELECT backend_type, transport, policies, policy_state, keepalive
		FROM keepalive_status(), session WHERE pid = walsender$$,
	$$VALUES ('walsender', 'tcp', NULL::text[], NULL::text, true)$$,
	'a walsender has a row without a policy');
SELECT results_eq(
	$$SELECT tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count
		FROM keepalive_status(), session WHERE pid = walsender$$,
	$$SELECT (pg_read_file('/proc/sys/net/ipv4/tcp_keepalive_time')::int || ' s')::interval,
		(pg_read_file('/proc/sys/net/ipv4/tcp_keepalive_intvl')::int || ' s')::interval,
		pg_read_file('/proc/sys/net/ipv4/tcp_keepalive_probes')::int$$,
	'a walsender without a policy has the system''s defaults');

-- Visibility

CREATE FUNCTION pg_temp.visible(role text) RETURNS TABLE (self boolean, tcp boolean, walsender boolean)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	RETURN QUERY
		SELECT bool_or(transport IS NOT NULL) FILTER (WHERE pid = session.self),
			bool_or(transport IS NOT NULL) FILTER (WHERE pid = session.tcp),
			bool_or(transport IS NOT NULL) FILTER (WHERE pid = session.walsender)
		FROM keepalive_status(), session;
	RESET ROLE;
END $$;

SELECT results_eq($$SELECT * FROM pg_temp.visible('postgres')$$, 'VALUES (true, true, true)',
	'a superuser sees all sessions');
SELECT results_eq($$SELECT * FROM pg_temp.visible('test_reader')$$, 'VALUES (true, true, true)',
	'a member of pg_read_all_stats sees all sessions');
SELECT results_eq($$SELECT * FROM pg_temp.visible('test_status')$$, 'VALUES (false, true, false)',
	'a role sees its own sessions');
SELECT results_eq($$SELECT * FROM pg_temp.visible('test_member')$$, 'VALUES (false, true, false)',
	'a role sees the sessions of roles that it is a member of');
SELECT results_eq($$SELECT * FROM pg_temp.visible('test_nobody')$$, 'VALUES (false, false, false)',
	'a role does not see the details of other roles'' sessions');

SET LOCAL ROLE test_nobody;
SELECT is(count(*), 3::bigint, 'a role sees a row for each session of other roles')
FROM keepalive_status(), session WHERE pid IN (self, tcp, walsender);
SELECT is_empty(
	'SELECT * FROM status EXCEPT
		SELECT pid, datname::text, usename::text, application_name, backend_type, client_addr, client_port
		FROM pg_stat_activity',
	'the rows of other roles'' sessions have what pg_stat_activity shows');
SELECT is(
	(SELECT jsonb_object_agg(key, value) - '{pid,datname,usename,application_name}'::text[]
		FROM keepalive_status() s, session, jsonb_each(to_jsonb(s))
		WHERE pid = tcp AND value <> 'null'),
	'{}', 'the other columns of other roles'' sessions are NULL');
RESET ROLE;

SELECT throws_ok(
	$$SET LOCAL ROLE test_nobody; SELECT * FROM keepalive_apply()$$, '42501', NULL,
	'keepalive_apply() is refused for an ordinary role');
SELECT throws_ok(
	$$SET LOCAL ROLE test_nobody; SELECT * FROM keepalive_explain('postgres', 'postgres')$$, '42501', NULL,
	'keepalive_explain() is refused for an ordinary role');
SELECT throws_ok(
	$$SET LOCAL ROLE test_nobody; SELECT * FROM keepalive_policy$$, '42501', NULL,
	'the policy table is refused for an ordinary role');
GRANT EXECUTE ON FUNCTION keepalive_apply(interval) TO test_nobody;
SET LOCAL ROLE test_nobody;
SELECT ok(sessions >= 3 AND applied >= 1 AND overridden = 0 AND failed = 0 AND pending = 0,
	'keepalive_apply() works for a role with EXECUTE privilege')
FROM keepalive_apply();
RESET ROLE;

-- The end

SELECT is(dblink_disconnect('test_tcp') || dblink_disconnect('test_walsender'), 'OKOK', 'the two sessions disconnect');
CREATE FUNCTION pg_temp.gone() RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 100 LOOP
		PERFORM pg_stat_clear_snapshot();
		IF NOT EXISTS (SELECT FROM keepalive_status(), session WHERE pid IN (tcp, walsender)) THEN
			RETURN true;
		END IF;
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN false;
END $$;
SELECT ok(pg_temp.gone(), 'the rows of ended sessions disappear');
SELECT is(count(*), 1::bigint, 'the row of this session stays') FROM keepalive_status(), session WHERE pid = self;

SELECT * FROM finish();
ROLLBACK;

DELETE FROM keepalive_policy WHERE name = 'test status';
DROP ROLE test_status;
