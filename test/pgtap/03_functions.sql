-- The extension's objects: arguments, columns and types in the documented order, a comment
-- on each object, and privileges.
BEGIN;

-- From PostgreSQL 17 on, a table's row type and its array type are members too.
CREATE TEMP VIEW object AS
	SELECT classid, objid, pg_describe_object(classid, objid, 0) AS description
	FROM pg_depend
	WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'keepalive_guard')
		AND NOT (classid = 'pg_type'::regclass AND EXISTS (
			SELECT FROM pg_type JOIN pg_class relation ON objid IN (reltype, typarray)
			WHERE pg_type.oid = reltype));

-- public: everybody; monitor: pg_monitor; superuser: superusers, unless granted
CREATE TEMP TABLE expected (
	name text COLLATE "C",
	arguments text,
	columns text,
	volatility text DEFAULT 'volatile',
	parallel text DEFAULT 'restricted',
	strict boolean DEFAULT true,
	allowed text DEFAULT 'public'
);

INSERT INTO expected (name, arguments, columns, parallel, strict, allowed) VALUES
	('keepalive_policy_guard', '', 'trigger', 'unsafe', false, 'superuser');

INSERT INTO expected (name, arguments, columns) VALUES
	('keepalive_status', '',
		'pid integer, datname name, usename name, application_name text, backend_type text, '
		'client_addr inet, client_port integer, transport text, policies text[], policy_state text, '
		'keepalive boolean, tcp_keepalives_idle interval, tcp_keepalives_interval interval, '
		'tcp_keepalives_count integer, tcp_user_timeout interval, '
		'client_connection_check_interval interval, tcp_state text, timer text, '
		'timer_expires interval, unanswered_probes integer, retransmits integer, silent_for interval, '
		'send_queue bigint, recv_queue bigint, rtt_ms double precision, health text, gives_up_in interval, '
		'detects_idle interval, detects_busy interval');

INSERT INTO expected (name, arguments, columns) VALUES
	('keepalive_events', '',
		'ended_at timestamp with time zone, pid integer, cause text, policies text[], datname name, '
		'usename name, application_name text, backend_type text, client_addr inet, client_port integer, '
		'connected_for interval, silent_for interval, state text, transaction_age interval, '
		'unanswered_probes integer, retransmits integer, rtt_ms double precision, bytes_sent bigint, '
		'bytes_received bigint, detail text'),
	('keepalive_stats', '',
		'policy text, sessions bigint, sessions_total bigint, client_closed bigint, '
		'client_vanished bigint, reset bigint, keepalive_timeout bigint, user_timeout bigint, '
		'retransmit_timeout bigint, unreachable bigint, dead_after bigint, stall_timeout bigint, '
		'terminated bigint, server_shutdown bigint, authentication_failed bigint, unknown bigint, '
		'would_end bigint, stats_reset timestamp with time zone');

CREATE TEMP TABLE explain AS SELECT
	'"position" integer, kind text, policy text, priority integer, matches boolean, reason text, gives text[], '
	'enforcement text, final boolean, log_only boolean, keepalive boolean, tcp_keepalives_idle interval, '
	'tcp_keepalives_interval interval, tcp_keepalives_count integer, tcp_user_timeout interval, '
	'client_connection_check_interval interval, dead_after interval, stall_timeout interval, '
	'detects_idle interval, detects_busy interval' AS columns;
INSERT INTO expected (name, arguments, columns, strict, allowed) VALUES
	('keepalive_explain',
		'database text, role text, client_addr inet DEFAULT NULL::inet, '
		'backend text DEFAULT ''client''::text',
		(SELECT columns FROM explain), false, 'monitor'),
	('keepalive_explain', 'pid integer', (SELECT columns FROM explain), true, 'monitor'),
	('keepalive_preview', '',
		'pid integer, datname name, usename name, client_addr inet, policies_now text[], policies_then text[], '
		'changes jsonb, detects_idle_now interval, detects_idle_then interval, '
		'detects_busy_now interval, detects_busy_then interval', true, 'monitor');

INSERT INTO expected (name, arguments, columns, allowed) VALUES
	('keepalive_apply', 'timeout interval DEFAULT ''00:00:05''::interval',
		'sessions bigint, applied bigint, overridden bigint, failed bigint, pending bigint, without_policy bigint',
		'superuser'),
	('keepalive_stats_reset', '', 'void', 'superuser');

INSERT INTO expected (name, arguments, columns) VALUES
	('keepalive_tcp_info', '',
		'pid integer, local_addr inet, local_port integer, remote_addr inet, remote_port integer, '
		'state integer, ca_state integer, retransmits integer, probes integer, backoff integer, '
		'options integer, snd_wscale integer, rcv_wscale integer, delivery_rate_app_limited '
		'integer, fastopen_client_fail integer, rto bigint, ato bigint, snd_mss bigint, rcv_mss '
		'bigint, unacked bigint, sacked bigint, lost bigint, retrans bigint, fackets bigint, '
		'last_data_sent bigint, last_ack_sent bigint, last_data_recv bigint, last_ack_recv '
		'bigint, pmtu bigint, rcv_ssthresh bigint, rtt bigint, rttvar bigint, snd_ssthresh '
		'bigint, snd_cwnd bigint, advmss bigint, reordering bigint, rcv_rtt bigint, rcv_space '
		'bigint, total_retrans bigint, pacing_rate numeric, max_pacing_rate numeric, bytes_acked '
		'bigint, bytes_received bigint, segs_out bigint, segs_in bigint, notsent_bytes bigint, '
		'min_rtt bigint, data_segs_in bigint, data_segs_out bigint, delivery_rate bigint, '
		'busy_time bigint, rwnd_limited bigint, sndbuf_limited bigint, delivered bigint, '
		'delivered_ce bigint, bytes_sent bigint, bytes_retrans bigint, dsack_dups bigint, '
		'reord_seen bigint, rcv_ooopack bigint, snd_wnd bigint, rcv_wnd bigint, rehash bigint, '
		'total_rto integer, total_rto_recoveries integer, total_rto_time bigint, received_ce '
		'bigint, delivered_e1_bytes bigint, delivered_e0_bytes bigint, delivered_ce_bytes bigint, '
		'received_e1_bytes bigint, received_e0_bytes bigint, received_ce_bytes bigint, '
		'accecn_fail_mode integer, accecn_opt_seen integer, options2 bigint, ecn_mode integer, '
		'congestion text, rmem_alloc bigint, rcvbuf bigint, wmem_alloc bigint, sndbuf bigint, '
		'fwd_alloc bigint, wmem_queued bigint, optmem bigint, backlog bigint, drops bigint');
INSERT INTO expected (name, arguments, columns, allowed) VALUES
	('keepalive_path_evidence', '',
		'client_addr inet, last_heard timestamp with time zone, idle_for interval, outcome text', 'monitor'),
	('keepalive_kernel', '',
		'name text, setting text, unit text, source text, description text', 'monitor'),
	('keepalive_sockets', '',
		'pid integer, backend_type text, kind text, local_addr inet, local_port integer, '
		'remote_addr inet, remote_port integer, tcp_state text, timer text, timer_expires '
		'interval, recv_queue bigint, send_queue bigint, accept_queue bigint, accept_queue_limit '
		'bigint, rtt_ms double precision', 'monitor');

INSERT INTO expected (name, arguments, columns, strict) VALUES
	('keepalive_plan', 'detect_within interval, path_idle_timeout interval DEFAULT NULL::interval, '
		'end_slow_readers boolean DEFAULT false',
		'tcp_keepalives_idle interval, tcp_keepalives_interval interval, '
		'tcp_keepalives_count integer, tcp_user_timeout interval, '
		'client_connection_check_interval interval, dead_after interval, stall_timeout interval, '
		'earliest_idle interval, detects_idle interval, earliest_busy interval, '
		'detects_busy interval, earliest_late_write interval, detects_late_write interval, '
		'earliest_stalled interval, detects_stalled interval, '
		'probes_per_hour integer, libpq_options text, sysctl text, policy text', false),
	('keepalive_plan_clients', 'detect_within interval, path_idle_timeout interval DEFAULT NULL::interval',
		'client text, settings text, needs text, covers text[], detects_idle interval, '
		'detects_busy interval, detects_connecting interval, limits text, source text', false);
INSERT INTO expected (name, arguments, columns, allowed) VALUES
	('keepalive_condition', '',
		'version text, preloaded boolean, worker boolean, enabled boolean, policies text, up_to_date boolean, '
		'skipped integer, in_force integer, found integer, changed_at timestamp with time zone, netlink_refused text, sockets_unreadable text', 'monitor'),
	('keepalive_ended', '', 'cause text, lost boolean, connections bigint', 'monitor'),
	('keepalive_listeners', '', 'local_port integer, accept_queue bigint, accept_queue_limit bigint', 'monitor'),
	('keepalive_startups', '', 'pid integer, backend_start timestamp with time zone, plain boolean', 'monitor'),
	('keepalive_likely_mistakes', '', 'severity text, policy text, problem text, hint text', 'monitor'),
	('keepalive_policy_problems', '',
		'policy text, replication_only boolean, problem text, hint text, gives text[], given_before jsonb, '
		'keepalive boolean, tcp_keepalives_idle interval, tcp_keepalives_interval interval, '
		'tcp_keepalives_count integer, tcp_user_timeout interval, '
		'client_connection_check_interval interval, dead_after interval, stall_timeout interval, '
		'detects_idle interval, detects_busy interval', 'monitor');
INSERT INTO expected (name, arguments, columns, strict, allowed) VALUES
	('keepalive_check', '', 'severity text, subject text, problem text, hint text', false, 'monitor'),
	('keepalive_openmetrics', '', 'text', false, 'monitor'),
	('keepalive_check_guard', '', 'severity text, subject text, problem text, hint text', false, 'monitor'),
	('keepalive_check_policies', '', 'severity text, subject text, problem text, hint text', false, 'monitor'),
	('keepalive_check_sessions', '', 'severity text, subject text, problem text, hint text', false, 'monitor'),
	('keepalive_check_outbound', '', 'severity text, subject text, problem text, hint text', false, 'monitor');
INSERT INTO expected (name, arguments, columns, volatility, parallel, strict, allowed) VALUES
	('keepalive_outbound', '',
		'kind text, name text, database name, keepalive boolean, idle integer, probe_interval integer, probes integer, '
		'options text[]', 'stable', 'restricted', false, 'monitor'),
	('keepalive_check_values',
		'keepalive boolean, idle interval, probe_interval interval, probes integer, user_timeout interval, '
		'stall_timeout interval, detects_idle interval, detects_busy interval, for_sessions boolean',
		'severity text, problem text, concerns text[], setting text, value text', 'stable', 'safe', false, 'monitor');
INSERT INTO expected (name, arguments, columns, strict, allowed) VALUES
	('keepalive_report', '', 'text', false, 'monitor'),
	('keepalive_report_health', '',
		'html text, sessions bigint, silent bigint, never_given_up bigint, longest interval, without_policy bigint', false, 'monitor'),
	('keepalive_report_blockers', '', 'html text, blocked bigint', false, 'monitor'),
	('keepalive_report_lost', '', 'html text, lost_last_day bigint', false, 'monitor'),
	('keepalive_report_policies', '', 'text', false, 'monitor'),
	('keepalive_report_round_trips', '', 'text', false, 'monitor'),
	('keepalive_report_paths', '', 'text', false, 'monitor'),
	('keepalive_report_findings', '', 'html text, errors bigint, warnings bigint', false, 'monitor');
INSERT INTO expected (name, arguments, columns, volatility, parallel, strict, allowed) VALUES
	('keepalive_report_text', 'name text', 'text', 'immutable', 'safe', true, 'monitor'),
	('keepalive_report_position', 'duration interval', 'numeric', 'immutable', 'safe', false, 'monitor'),
	('keepalive_report_style', '', 'text', 'immutable', 'safe', false, 'monitor'),
	('keepalive_report_time', 'duration interval', 'text', 'stable', 'safe', true, 'monitor'),
	('keepalive_report_milliseconds', 'milliseconds double precision', 'text', 'stable', 'safe', true, 'monitor'),
	('keepalive_report_count', 'number bigint, one text, many text', 'text', 'stable', 'safe', true, 'monitor'),
	('keepalive_report_session',
		'pid integer, application_name text, usename text, datname text, client_addr inet, client_port integer',
		'text', 'stable', 'safe', false, 'monitor'),
	('keepalive_report_names', 'names text[]', 'text', 'stable', 'safe', false, 'monitor'),
	('keepalive_report_bar', 'title text, number bigint, most bigint, class text', 'text', 'stable', 'safe', true, 'monitor');

CREATE TEMP VIEW actual AS
	SELECT p.oid, proname::text COLLATE "C" AS name,
		concat_ws(', ', VARIADIC ARRAY(
			SELECT argument
			FROM regexp_split_to_table(nullif(pg_get_function_arguments(p.oid), ''), ', ') argument
			WHERE argument NOT LIKE 'OUT %')) AS arguments,
		coalesce(nullif(concat_ws(', ', VARIADIC ARRAY(
			SELECT substr(argument, 5)
			FROM regexp_split_to_table(nullif(pg_get_function_arguments(p.oid), ''), ', ') argument
			WHERE argument LIKE 'OUT %')), ''), pg_get_function_result(p.oid)) AS columns,
		CASE provolatile WHEN 'v' THEN 'volatile' WHEN 's' THEN 'stable' ELSE 'immutable' END AS volatility,
		CASE proparallel WHEN 'u' THEN 'unsafe' WHEN 'r' THEN 'restricted' ELSE 'safe' END AS parallel,
		proisstrict AS strict
	FROM pg_proc p JOIN object ON classid = 'pg_proc'::regclass AND objid = p.oid;

CREATE ROLE test_nobody;
CREATE ROLE test_monitor IN ROLE pg_monitor;

SELECT plan(6 + 3 * count(*)::int) FROM expected;

SELECT is_empty(
	$$SELECT description FROM object
		WHERE coalesce(obj_description(objid, classid::regclass::name), '') = ''$$,
	'every object of the extension has a comment');
SELECT is_empty(
	$$SELECT tgname FROM pg_trigger JOIN object ON classid = 'pg_class'::regclass AND objid = tgrelid
		WHERE NOT tgisinternal AND obj_description(pg_trigger.oid, 'pg_trigger') IS NULL$$,
	'every trigger of the extension has a comment');
SELECT isnt(obj_description(oid, 'pg_extension'), NULL, 'the extension has a comment')
FROM pg_extension WHERE extname = 'keepalive_guard';
SELECT is_empty(
	$$SELECT description FROM object
		WHERE obj_description(objid, classid::regclass::name) ~ '(^\s|[.\s]$)'$$,
	'each comment is a phrase without a full stop');

SELECT results_eq(
	'SELECT name, arguments FROM actual ORDER BY 1, 2',
	'SELECT name, arguments FROM expected ORDER BY 1, 2',
	'the extension has exactly the expected functions');
SELECT results_eq(
	$$SELECT description FROM object WHERE classid <> 'pg_proc'::regclass ORDER BY 1$$,
	$$VALUES ('table keepalive_policy'), ('view keepalive_blockers'), ('view keepalive_metrics'),
		('view keepalive_paths'), ('view keepalive_paths_observed'), ('view keepalive_top')$$,
	'the extension has exactly the expected other objects');

SELECT is(actual.columns, expected.columns, name || ': columns')
FROM expected LEFT JOIN actual USING (name, arguments) ORDER BY name, arguments;

SELECT is(
	format('%s, parallel %s, strict %s', actual.volatility, actual.parallel, actual.strict),
	format('%s, parallel %s, strict %s', expected.volatility, expected.parallel, expected.strict),
	name || ': volatility, parallel safety and strictness')
FROM expected LEFT JOIN actual USING (name, arguments) ORDER BY name, arguments;

SELECT is(
	CASE
		WHEN has_function_privilege('test_nobody', oid, 'EXECUTE') THEN 'public'
		WHEN has_function_privilege('test_monitor', oid, 'EXECUTE') THEN 'monitor'
		ELSE 'superuser'
	END,
	allowed, name || ': privileges')
FROM expected LEFT JOIN actual USING (name, arguments) ORDER BY name, arguments;

SELECT * FROM finish();
ROLLBACK;
