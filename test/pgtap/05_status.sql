-- keepalive_status(): the rows of a Unix-socket session, of a TCP session with a
-- policy and of a walsender, beside pg_stat_activity, and who may see them.
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

-- Until the last answer's ACK has come, a retransmission timer hides that of keepalive.
SELECT pg_sleep(0.3);
SELECT pg_stat_clear_snapshot();
SELECT set_config('client_connection_check_interval', '1500ms', true);
SELECT plan(34);

-- All of them

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
	'a row for each client backend and walsender, as in pg_stat_activity');
SELECT is(count(*), 3::bigint, 'these are the three')
FROM keepalive_status(), session WHERE pid IN (self, tcp, walsender);

-- A session of a Unix socket: this one

SELECT results_eq(
	$$SELECT transport, client_addr, client_port, policy, policy_state, backend_type
		FROM keepalive_status(), session WHERE pid = self$$,
	$$VALUES ('unix', NULL::inet, -1, NULL::text, NULL::text, 'client backend')$$,
	'a Unix socket, ungoverned');
SELECT is(
	(SELECT jsonb_object_agg(key, value)
		FROM keepalive_status() s, session, jsonb_each(to_jsonb(s)) WHERE pid = self AND key IN
			('keepalive', 'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count',
			'tcp_user_timeout', 'tcp_state', 'timer', 'timer_expires', 'unanswered_probes',
			'retransmits', 'silent_for', 'send_queue', 'recv_queue', 'rtt_ms', 'health', 'gives_up_in',
			'detects_idle', 'detects_busy')
			AND value <> 'null'),
	NULL, 'has nothing of TCP');
SELECT is(client_connection_check_interval, '1.5 s'::interval, 'but the client check that SET gave it')
FROM keepalive_status(), session WHERE pid = self;

-- A session of TCP with a policy

SELECT results_eq(
	$$SELECT transport, client_addr, policy, policy_state, backend_type
		FROM keepalive_status(), session WHERE pid = tcp$$,
	$$VALUES ('tcp', '127.0.0.1'::inet, 'test status', 'applied', 'client backend')$$,
	'TCP, governed by its policy');
SELECT results_eq(
	$$SELECT keepalive, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count,
			tcp_user_timeout, client_connection_check_interval
		FROM keepalive_status(), session WHERE pid = tcp$$,
	$$VALUES (true, '61 s'::interval, '7 s'::interval, 5, '12.345 s'::interval, '2.5 s'::interval)$$,
	'the policy''s values are in force');
SELECT results_eq(
	$$SELECT tcp_state, timer, unanswered_probes, retransmits, send_queue, recv_queue
		FROM keepalive_status(), session WHERE pid = tcp$$,
	$$VALUES ('ESTABLISHED', 'keepalive', 0, 0, 0::bigint, 0::bigint)$$,
	'an idle connection');
SELECT ok(timer_expires > '50 s' AND timer_expires <= '61.5 s',
	'whose first probe is due as the policy says: ' || timer_expires)
FROM keepalive_status(), session WHERE pid = tcp;
SELECT ok(silent_for >= '0.2 s' AND silent_for < '10 s', 'silent for a moment: ' || silent_for)
FROM keepalive_status(), session WHERE pid = tcp;
SELECT ok(rtt_ms > 0 AND rtt_ms < 1000, 'not far away: ' || rtt_ms)
FROM keepalive_status(), session WHERE pid = tcp;
SELECT ok(health = 'alive' AND gives_up_in > timer_expires AND gives_up_in <= detects_idle AND detects_busy < '30 s',
	format('alive: should it fall silent, it dies in %s (of %s; at work %s)', gives_up_in, detects_idle, detects_busy))
FROM keepalive_status(), session WHERE pid = tcp;
SELECT is(
	(SELECT value FROM dblink('test_tcp', 'SHOW tcp_keepalives_idle') AS shown (value text)),
	'61', 'SHOW agrees');

SELECT is(dblink_exec('test_tcp', 'SET tcp_keepalives_idle = 99'), 'SET', 'the session overrides a setting');
SELECT results_eq(
	$$SELECT policy, policy_state, tcp_keepalives_idle, tcp_keepalives_interval
		FROM keepalive_status(), session WHERE pid = tcp$$,
	$$VALUES ('test status', 'overridden', '99 s'::interval, '7 s'::interval)$$,
	'status tells what is in force');
SELECT is(dblink_exec('test_tcp', 'RESET tcp_keepalives_idle'), 'RESET', 'RESET');
SELECT results_eq(
	$$SELECT policy, policy_state, tcp_keepalives_idle FROM keepalive_status(), session WHERE pid = tcp$$,
	$$VALUES ('test status', 'applied', '61 s'::interval)$$,
	'goes back to the policy');

-- A walsender, ungoverned: the system's defaults

SELECT results_eq(
	$$SELECT backend_type, transport, policy, policy_state, keepalive
		FROM keepalive_status(), session WHERE pid = walsender$$,
	$$VALUES ('walsender', 'tcp', NULL::text, NULL::text, true)$$,
	'a walsender without a policy');
SELECT results_eq(
	$$SELECT tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count
		FROM keepalive_status(), session WHERE pid = walsender$$,
	$$SELECT (pg_read_file('/proc/sys/net/ipv4/tcp_keepalive_time')::int || ' s')::interval,
		(pg_read_file('/proc/sys/net/ipv4/tcp_keepalive_intvl')::int || ' s')::interval,
		pg_read_file('/proc/sys/net/ipv4/tcp_keepalive_probes')::int$$,
	'has the system''s numbers');

-- Who sees what

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
	'so does a member of pg_read_all_stats');
SELECT results_eq($$SELECT * FROM pg_temp.visible('test_status')$$, 'VALUES (false, true, false)',
	'a role sees its own');
SELECT results_eq($$SELECT * FROM pg_temp.visible('test_member')$$, 'VALUES (false, true, false)',
	'and those of the roles it is a member of');
SELECT results_eq($$SELECT * FROM pg_temp.visible('test_nobody')$$, 'VALUES (false, false, false)',
	'another one none');

SET LOCAL ROLE test_nobody;
SELECT is(count(*), 3::bigint, 'it still sees that they are there')
FROM keepalive_status(), session WHERE pid IN (self, tcp, walsender);
SELECT is_empty(
	'SELECT * FROM status EXCEPT
		SELECT pid, datname::text, usename::text, application_name, backend_type, client_addr, client_port
		FROM pg_stat_activity',
	'with what pg_stat_activity shows');
SELECT is(
	(SELECT jsonb_object_agg(key, value) - '{pid,datname,usename,application_name}'::text[]
		FROM keepalive_status() s, session, jsonb_each(to_jsonb(s))
		WHERE pid = tcp AND value <> 'null'),
	'{}', 'and nothing else');
RESET ROLE;

SELECT throws_ok(
	$$SET LOCAL ROLE test_nobody; SELECT * FROM keepalive_apply()$$, '42501', NULL,
	'applying is not for everybody');
SELECT throws_ok(
	$$SET LOCAL ROLE test_nobody; SELECT * FROM keepalive_explain('postgres', 'postgres')$$, '42501', NULL,
	'nor are the policies');
SELECT throws_ok(
	$$SET LOCAL ROLE test_nobody; SELECT * FROM keepalive_policy$$, '42501', NULL,
	'nor is their table');
GRANT EXECUTE ON FUNCTION keepalive_apply(interval) TO test_nobody;
SET LOCAL ROLE test_nobody;
SELECT ok(sessions >= 3 AND applied >= 1 AND overridden = 0 AND failed = 0 AND pending = 0,
	'applying can be granted')
FROM keepalive_apply();
RESET ROLE;

-- The end

SELECT is(dblink_disconnect('test_tcp') || dblink_disconnect('test_walsender'), 'OKOK', 'both disconnect');
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
SELECT ok(pg_temp.gone(), 'their rows are gone');
SELECT is(count(*), 1::bigint, 'this session''s is not') FROM keepalive_status(), session WHERE pid = self;

SELECT * FROM finish();
ROLLBACK;

DELETE FROM keepalive_policy WHERE name = 'test status';
DROP ROLE test_status;
