\echo Use "CREATE EXTENSION keepalive_guard" to load this file. \quit

-- Others may have created functions and operators in the extension's schema.  So nothing
-- is looked up there by its bare name, neither now nor in what is defined here: the
-- bodies of views and SQL functions are bound to their objects now.
SET LOCAL search_path = pg_catalog, pg_temp;

--
-- The policies
--

CREATE TABLE @extschema@.keepalive_policy (
	name text COLLATE "C" PRIMARY KEY,
	priority integer NOT NULL DEFAULT 100,
	database text,
	role text,
	client cidr,
	backend text,
	keepalive boolean,
	tcp_keepalives_idle interval,
	tcp_keepalives_interval interval,
	tcp_keepalives_count integer,
	tcp_user_timeout interval,
	client_connection_check_interval interval,
	dead_after interval,
	stall_timeout interval,
	enforcement text NOT NULL DEFAULT 'default',
	final boolean NOT NULL DEFAULT false,
	log_only boolean NOT NULL DEFAULT false,
	enabled boolean NOT NULL DEFAULT true,
	comment text
);

COMMENT ON TABLE @extschema@.keepalive_policy IS
	'which connections get which keepalive, user-timeout and client-check settings; each setting comes from the first matching policy that sets it';
COMMENT ON COLUMN @extschema@.keepalive_policy.name IS
	'what status, logs and events call the policy; at most 63 bytes';
COMMENT ON COLUMN @extschema@.keepalive_policy.priority IS
	'lower is tried first';
COMMENT ON COLUMN @extschema@.keepalive_policy.database IS
	'a database, or /regex; NULL: any';
COMMENT ON COLUMN @extschema@.keepalive_policy.role IS
	'a role, +group for its direct and indirect members, or /regex; NULL: any';
COMMENT ON COLUMN @extschema@.keepalive_policy.client IS
	'network of the client; NULL: any, Unix sockets too';
COMMENT ON COLUMN @extschema@.keepalive_policy.backend IS
	'client, or replication (walsenders, physical and logical); NULL: both';
COMMENT ON COLUMN @extschema@.keepalive_policy.keepalive IS
	'false switches SO_KEEPALIVE off; NULL leaves it to PostgreSQL, which switches it on';
COMMENT ON COLUMN @extschema@.keepalive_policy.tcp_keepalives_idle IS
	'silence before the first probe, in whole seconds up to 32767; 0: the system''s default; NULL: left to the next policy that matches, then to PostgreSQL';
COMMENT ON COLUMN @extschema@.keepalive_policy.tcp_keepalives_interval IS
	'time between probes, in whole seconds up to 32767; 0: the system''s default; NULL: left to the next policy that matches, then to PostgreSQL';
COMMENT ON COLUMN @extschema@.keepalive_policy.tcp_keepalives_count IS
	'unanswered probes before the connection is given up, up to 127; 0: the system''s default; NULL: left to the next policy that matches, then to PostgreSQL';
COMMENT ON COLUMN @extschema@.keepalive_policy.tcp_user_timeout IS
	'how long sent data may stay unacknowledged, in whole milliseconds; 0: off; NULL: left to the next policy that matches, then to PostgreSQL; also ends living clients that do not read for that long';
COMMENT ON COLUMN @extschema@.keepalive_policy.client_connection_check_interval IS
	'how often a running query looks whether its client is still there, in whole milliseconds; 0: off; NULL: left to the next policy that matches, then to PostgreSQL';
COMMENT ON COLUMN @extschema@.keepalive_policy.dead_after IS
	'the guard ends a session whose client has not answered the kernel''s probes or retransmissions for this long; 0: never; NULL: left to the next policy';
COMMENT ON COLUMN @extschema@.keepalive_policy.stall_timeout IS
	'the guard ends a session whose living client has read nothing for this long; 0: never; NULL: left to the next policy';
COMMENT ON COLUMN @extschema@.keepalive_policy.enforcement IS
	'default: sessions may override; ceiling: sessions may only be stricter; locked: sessions may not change what the policy sets';
COMMENT ON COLUMN @extschema@.keepalive_policy.final IS
	'true: what this policy leaves NULL is PostgreSQL''s; no later policy is asked';
COMMENT ON COLUMN @extschema@.keepalive_policy.log_only IS
	'true: dead_after and stall_timeout of this policy end nothing; the guard logs, records and counts what they would have ended';
COMMENT ON COLUMN @extschema@.keepalive_policy.enabled IS
	'false: the policy is ignored';
COMMENT ON COLUMN @extschema@.keepalive_policy.comment IS
	'free-form comment';

CREATE FUNCTION @extschema@.keepalive_policy_guard() RETURNS trigger
	LANGUAGE C
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_policy_guard() IS
	'trigger of keepalive_policy only: refuses invalid policies and tells the worker of committed changes';

REVOKE ALL ON FUNCTION @extschema@.keepalive_policy_guard() FROM PUBLIC;

CREATE TRIGGER keepalive_policy_guard
	BEFORE INSERT OR UPDATE OR DELETE ON @extschema@.keepalive_policy
	FOR EACH ROW EXECUTE FUNCTION @extschema@.keepalive_policy_guard();
CREATE TRIGGER keepalive_policy_guard_count
	AFTER INSERT OR UPDATE OR DELETE ON @extschema@.keepalive_policy
	FOR EACH ROW EXECUTE FUNCTION @extschema@.keepalive_policy_guard();
CREATE TRIGGER keepalive_policy_guard_truncate
	BEFORE TRUNCATE ON @extschema@.keepalive_policy
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.keepalive_policy_guard();
ALTER TABLE @extschema@.keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard;
ALTER TABLE @extschema@.keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard_count;
ALTER TABLE @extschema@.keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard_truncate;
COMMENT ON TRIGGER keepalive_policy_guard ON @extschema@.keepalive_policy IS
	'refuses invalid policies and tells the worker of committed changes';
COMMENT ON TRIGGER keepalive_policy_guard_count ON @extschema@.keepalive_policy IS
	'counts the changed rows for the server log, and warns of values that are most likely a mistake';
COMMENT ON TRIGGER keepalive_policy_guard_truncate ON @extschema@.keepalive_policy IS
	'tells the worker of committed changes';

GRANT SELECT ON @extschema@.keepalive_policy TO pg_monitor;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.keepalive_policy', '');

--
-- Reading
--

CREATE FUNCTION @extschema@.keepalive_status(
	OUT pid integer,
	OUT datname name,
	OUT usename name,
	OUT application_name text,
	OUT backend_type text,
	OUT client_addr inet,
	OUT client_port integer,
	OUT transport text,
	OUT policies text[],
	OUT policy_state text,
	OUT keepalive boolean,
	OUT tcp_keepalives_idle interval,
	OUT tcp_keepalives_interval interval,
	OUT tcp_keepalives_count integer,
	OUT tcp_user_timeout interval,
	OUT client_connection_check_interval interval,
	OUT tcp_state text,
	OUT timer text,
	OUT timer_expires interval,
	OUT unanswered_probes integer,
	OUT retransmits integer,
	OUT silent_for interval,
	OUT send_queue bigint,
	OUT recv_queue bigint,
	OUT rtt_ms double precision,
	OUT health text,
	OUT gives_up_in interval,
	OUT detects_idle interval,
	OUT detects_busy interval)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 100
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_status() IS
	'each client backend and walsender: its policies, the settings in force in the kernel, and the state of its connection in the kernel';

CREATE FUNCTION @extschema@.keepalive_tcp_info(
	OUT pid integer,
	OUT local_addr inet,
	OUT local_port integer,
	OUT remote_addr inet,
	OUT remote_port integer,
	OUT state integer,
	OUT ca_state integer,
	OUT retransmits integer,
	OUT probes integer,
	OUT backoff integer,
	OUT options integer,
	OUT snd_wscale integer,
	OUT rcv_wscale integer,
	OUT delivery_rate_app_limited integer,
	OUT fastopen_client_fail integer,
	OUT rto bigint,
	OUT ato bigint,
	OUT snd_mss bigint,
	OUT rcv_mss bigint,
	OUT unacked bigint,
	OUT sacked bigint,
	OUT lost bigint,
	OUT retrans bigint,
	OUT fackets bigint,
	OUT last_data_sent bigint,
	OUT last_ack_sent bigint,
	OUT last_data_recv bigint,
	OUT last_ack_recv bigint,
	OUT pmtu bigint,
	OUT rcv_ssthresh bigint,
	OUT rtt bigint,
	OUT rttvar bigint,
	OUT snd_ssthresh bigint,
	OUT snd_cwnd bigint,
	OUT advmss bigint,
	OUT reordering bigint,
	OUT rcv_rtt bigint,
	OUT rcv_space bigint,
	OUT total_retrans bigint,
	OUT pacing_rate numeric,
	OUT max_pacing_rate numeric,
	OUT bytes_acked bigint,
	OUT bytes_received bigint,
	OUT segs_out bigint,
	OUT segs_in bigint,
	OUT notsent_bytes bigint,
	OUT min_rtt bigint,
	OUT data_segs_in bigint,
	OUT data_segs_out bigint,
	OUT delivery_rate bigint,
	OUT busy_time bigint,
	OUT rwnd_limited bigint,
	OUT sndbuf_limited bigint,
	OUT delivered bigint,
	OUT delivered_ce bigint,
	OUT bytes_sent bigint,
	OUT bytes_retrans bigint,
	OUT dsack_dups bigint,
	OUT reord_seen bigint,
	OUT rcv_ooopack bigint,
	OUT snd_wnd bigint,
	OUT rcv_wnd bigint,
	OUT rehash bigint,
	OUT total_rto integer,
	OUT total_rto_recoveries integer,
	OUT total_rto_time bigint,
	OUT received_ce bigint,
	OUT delivered_e1_bytes bigint,
	OUT delivered_e0_bytes bigint,
	OUT delivered_ce_bytes bigint,
	OUT received_e1_bytes bigint,
	OUT received_e0_bytes bigint,
	OUT received_ce_bytes bigint,
	OUT accecn_fail_mode integer,
	OUT accecn_opt_seen integer,
	OUT options2 bigint,
	OUT ecn_mode integer,
	OUT congestion text,
	OUT rmem_alloc bigint,
	OUT rcvbuf bigint,
	OUT wmem_alloc bigint,
	OUT sndbuf bigint,
	OUT fwd_alloc bigint,
	OUT wmem_queued bigint,
	OUT optmem bigint,
	OUT backlog bigint,
	OUT drops bigint)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 100
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_tcp_info() IS
	'each TCP session: the kernel''s struct tcp_info under its own names and in its own units, congestion algorithm and socket memory; NULL what the running kernel does not have';

CREATE FUNCTION @extschema@.keepalive_sockets(
	OUT pid integer,
	OUT backend_type text,
	OUT kind text,
	OUT local_addr inet,
	OUT local_port integer,
	OUT remote_addr inet,
	OUT remote_port integer,
	OUT tcp_state text,
	OUT timer text,
	OUT timer_expires interval,
	OUT recv_queue bigint,
	OUT send_queue bigint,
	OUT accept_queue bigint,
	OUT accept_queue_limit bigint,
	OUT rtt_ms double precision)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 100
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_sockets() IS
	'each TCP socket of every process of this server: listeners with their accept queues, clients'' connections, and connections to elsewhere';
REVOKE ALL ON FUNCTION @extschema@.keepalive_sockets() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_sockets() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_kernel(
	OUT name text,
	OUT setting text,
	OUT unit text,
	OUT source text,
	OUT description text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 30
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_kernel() IS
	'the kernel''s defaults, limits and counts that matter to connections; NULL what it does not show, with the reason in the description';
REVOKE ALL ON FUNCTION @extschema@.keepalive_kernel() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_kernel() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_explain(
	database text,
	role text,
	client_addr inet DEFAULT NULL,
	backend text DEFAULT 'client',
	OUT "position" integer,
	OUT kind text,
	OUT policy text,
	OUT priority integer,
	OUT matches boolean,
	OUT reason text,
	OUT gives text[],
	OUT enforcement text,
	OUT final boolean,
	OUT log_only boolean,
	OUT keepalive boolean,
	OUT tcp_keepalives_idle interval,
	OUT tcp_keepalives_interval interval,
	OUT tcp_keepalives_count integer,
	OUT tcp_user_timeout interval,
	OUT client_connection_check_interval interval,
	OUT dead_after interval,
	OUT stall_timeout interval,
	OUT detects_idle interval,
	OUT detects_busy interval)
	RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_explain(text, text, inet, text) IS
	'every policy in match order (kind policy): whether it matches such a connection, and which settings a session takes from it; then PostgreSQL without policies (postgresql), and what the session gets (outcome)';
REVOKE ALL ON FUNCTION @extschema@.keepalive_explain(text, text, inet, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_explain(text, text, inet, text) TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_explain(
	pid integer,
	OUT "position" integer,
	OUT kind text,
	OUT policy text,
	OUT priority integer,
	OUT matches boolean,
	OUT reason text,
	OUT gives text[],
	OUT enforcement text,
	OUT final boolean,
	OUT log_only boolean,
	OUT keepalive boolean,
	OUT tcp_keepalives_idle interval,
	OUT tcp_keepalives_interval interval,
	OUT tcp_keepalives_count integer,
	OUT tcp_user_timeout interval,
	OUT client_connection_check_interval interval,
	OUT dead_after interval,
	OUT stall_timeout interval,
	OUT detects_idle interval,
	OUT detects_busy interval)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10
	AS 'MODULE_PATHNAME', 'keepalive_explain_session';
COMMENT ON FUNCTION @extschema@.keepalive_explain(integer) IS
	'the same for a connected session, with what it has chosen itself';
REVOKE ALL ON FUNCTION @extschema@.keepalive_explain(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_explain(integer) TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_preview(
	OUT pid integer,
	OUT datname name,
	OUT usename name,
	OUT client_addr inet,
	OUT policies_now text[],
	OUT policies_then text[],
	OUT changes jsonb,
	OUT detects_idle_now interval,
	OUT detects_idle_then interval,
	OUT detects_busy_now interval,
	OUT detects_busy_then interval)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 100
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_preview() IS
	'what COMMIT of the current transaction would do: each connected session that would change, with its policies and each setting that changes as [from, to]';
REVOKE ALL ON FUNCTION @extschema@.keepalive_preview() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_preview() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_events(
	OUT ended_at timestamptz,
	OUT pid integer,
	OUT cause text,
	OUT policies text[],
	OUT datname name,
	OUT usename name,
	OUT application_name text,
	OUT backend_type text,
	OUT client_addr inet,
	OUT client_port integer,
	OUT connected_for interval,
	OUT silent_for interval,
	OUT state text,
	OUT transaction_age interval,
	OUT unanswered_probes integer,
	OUT retransmits integer,
	OUT rtt_ms double precision,
	OUT bytes_sent bigint,
	OUT bytes_received bigint,
	OUT detail text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 1000
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_events() IS
	'ended connections, newest first, and why they ended; the last keepalive_guard.max_events that were lost, and as many others';

CREATE FUNCTION @extschema@.keepalive_stats(
	OUT policy text,
	OUT sessions bigint,
	OUT sessions_total bigint,
	OUT client_closed bigint,
	OUT client_vanished bigint,
	OUT reset bigint,
	OUT keepalive_timeout bigint,
	OUT user_timeout bigint,
	OUT retransmit_timeout bigint,
	OUT unreachable bigint,
	OUT dead_after bigint,
	OUT stall_timeout bigint,
	OUT terminated bigint,
	OUT server_shutdown bigint,
	OUT authentication_failed bigint,
	OUT unknown bigint,
	OUT would_end bigint,
	OUT stats_reset timestamptz)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_stats() IS
	'sessions of each policy, and of none (NULL): how many there are, how many there were, and how many ended for which cause; a session counts under each of its policies; only those who may read keepalive_policy or are members of pg_read_all_stats see other rows than that for none';

CREATE FUNCTION @extschema@.keepalive_stats_reset() RETURNS void
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_stats_reset() IS
	'sets the counters of keepalive_stats() to zero';
REVOKE ALL ON FUNCTION @extschema@.keepalive_stats_reset() FROM PUBLIC;

CREATE FUNCTION @extschema@.keepalive_ended(
	OUT cause text,
	OUT lost boolean,
	OUT connections bigint)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 13
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_ended() IS
	'for keepalive_metrics: how many connections ended for which cause, each counted once, since the counters of keepalive_stats() were zero';
REVOKE ALL ON FUNCTION @extschema@.keepalive_ended() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_ended() TO pg_monitor;

--
-- Learning the paths
--

CREATE FUNCTION @extschema@.keepalive_path_evidence(
	OUT client_addr inet,
	OUT last_heard timestamptz,
	OUT idle_for interval,
	OUT outcome text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 1000
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_path_evidence() IS
	'for keepalive_paths_observed: how long the path of an idle TCP session, connected or ended, was idle at least, and the outcome (survived: packets of the client arrived; lost: the first probe got no answer or a reset; reset: a reset arrived without a probe)';
REVOKE ALL ON FUNCTION @extschema@.keepalive_path_evidence() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_path_evidence() TO pg_read_all_stats;

-- An idle timeout is only named where nothing else explains the losses as well:
-- clients or devices that fail take whatever is idle with them, at a few moments,
-- some of many, and after any idleness.  A path broke at some moment between the last
-- sign of life and the first probe, which is late by an eighth at most: `third` is the
-- third of the fewest moments that explain all losses.
CREATE VIEW @extschema@.keepalive_paths_observed AS
WITH networks AS (
	SELECT
		network(set_masklen(client_addr, CASE family(client_addr) WHEN 4 THEN 24 ELSE 64 END)) AS network,
		count(*) FILTER (WHERE outcome = 'survived') AS survived,
		count(*) FILTER (WHERE outcome = 'lost') AS lost,
		count(*) FILTER (WHERE outcome = 'reset') AS resets,
		max(idle_for) FILTER (WHERE outcome = 'survived') AS longest_survived,
		min(idle_for) FILTER (WHERE outcome = 'lost') AS shortest_lost,
		max(idle_for) FILTER (WHERE outcome = 'lost') AS longest_lost,
		min(idle_for) FILTER (WHERE outcome = 'reset') AS shortest_reset,
		max(idle_for) FILTER (WHERE outcome = 'reset') AS longest_reset,
		array_agg(idle_for ORDER BY idle_for DESC) FILTER (WHERE outcome = 'survived') AS survivals,
		array_agg(tstzrange(last_heard, last_heard + idle_for * 1.125)) FILTER (WHERE outcome = 'lost') AS breaks
	FROM @extschema@.keepalive_path_evidence()
	GROUP BY 1
	HAVING count(*) >= 5
), verdicts AS (
	SELECT
		*,
		survivals[5] AS safe,
		CASE
			WHEN lost = 0 THEN 'no losses'
			WHEN lost < 5 THEN 'too few losses'
			WHEN longest_survived >= shortest_lost
				THEN 'not clear: a connection survived as long an idleness as others were lost after'
			WHEN third.moment IS NULL
				THEN 'not clear: two failures of clients or devices explain all losses'
			WHEN survivals[5] IS NULL OR shortest_lost > 4 * survivals[5]
				THEN 'not clear: too few connections survived an idleness of comparable length'
			WHEN 10 * lost < comparable.number
				THEN 'not clear: few losses among many connections of comparable idleness'
			WHEN survivals[5] < '1.125s'
				THEN 'too short for tcp_keepalives_idle'
			ELSE 'idle timeout'
		END AS verdict
	FROM networks
		CROSS JOIN LATERAL (
			SELECT count(*) AS number FROM unnest(survivals) AS s (idle_for)
			WHERE 4 * s.idle_for >= shortest_lost) AS comparable
		CROSS JOIN LATERAL (SELECT min(upper(b)) AS moment FROM unnest(breaks) AS b) AS first
		CROSS JOIN LATERAL (
			SELECT min(upper(b)) AS moment FROM unnest(breaks) AS b
			WHERE lower(b) > first.moment) AS second
		CROSS JOIN LATERAL (
			SELECT min(upper(b)) AS moment FROM unnest(breaks) AS b
			WHERE lower(b) > second.moment) AS third
)
SELECT
	network,
	survived,
	lost,
	resets,
	longest_survived,
	shortest_lost,
	longest_lost,
	shortest_reset,
	longest_reset,
	CASE WHEN verdict = 'idle timeout' THEN shortest_lost * 1.125 END AS idle_timeout,
	CASE WHEN verdict = 'idle timeout' THEN date_trunc('second', safe / 1.125) END AS tcp_keepalives_idle,
	verdict
FROM verdicts;

COMMENT ON VIEW @extschema@.keepalive_paths_observed IS
	'whether a device on the path to a client network (/24, /64) drops idle connections, as observed in at least 5 ended and connected sessions';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.network IS
	'client network: /24 for IPv4, /64 for IPv6';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.survived IS
	'connections with packets of the client, including answers to probes, after the path had been idle for a second or more';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.lost IS
	'connections of which the first keepalive probe, after the path had been idle, got no answer or a reset';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.resets IS
	'connections that were reset without a probe while the path was idle: by the client or by a device, which cannot be distinguished, so idle_timeout does not include them';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.longest_survived IS
	'the longest idleness of the path that a connection survived, as far as the server knows: it does not see keepalive probes of the client';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.shortest_lost IS
	'the shortest idleness (tcp_keepalives_idle) after which a connection was lost';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.longest_lost IS
	'the longest idleness (tcp_keepalives_idle) after which a connection was lost';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.shortest_reset IS
	'the shortest idleness after which a connection was reset without a probe';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.longest_reset IS
	'the longest idleness after which a connection was reset without a probe';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.idle_timeout IS
	'the idle timeout that something on the path seems to have: above longest_survived, and at most this; NULL unless the pattern is clear: 5 or more losses that no two moments explain, all after a longer idleness than any survival, and for 5 survivals or more not over four times as long, and not less than a tenth as many as these';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.tcp_keepalives_idle IS
	'where idle_timeout is not NULL: what, with a tcp_keepalives_interval that is not longer, keeps the path open; 5 connections survived that idleness and the eighth by which probes may be late';
COMMENT ON COLUMN @extschema@.keepalive_paths_observed.verdict IS
	'idle timeout; or why there is none (yet): no losses, too few losses (fewer than 5), not clear (with the reason), too short for tcp_keepalives_idle';
GRANT SELECT ON @extschema@.keepalive_paths_observed TO pg_read_all_stats;

--
-- Doing
--

CREATE FUNCTION @extschema@.keepalive_apply(
	timeout interval DEFAULT '5s',
	OUT sessions bigint,
	OUT applied bigint,
	OUT overridden bigint,
	OUT failed bigint,
	OUT pending bigint,
	OUT without_policy bigint)
	RETURNS record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_apply(interval) IS
	'reads the policies again, applies them to every session, and waits for the sessions to confirm';
REVOKE ALL ON FUNCTION @extschema@.keepalive_apply(interval) FROM PUBLIC;

--
-- Advice
--

CREATE FUNCTION @extschema@.keepalive_plan(
	detect_within interval,
	path_idle_timeout interval DEFAULT NULL,
	end_slow_readers boolean DEFAULT false,
	OUT tcp_keepalives_idle interval,
	OUT tcp_keepalives_interval interval,
	OUT tcp_keepalives_count integer,
	OUT tcp_user_timeout interval,
	OUT client_connection_check_interval interval,
	OUT dead_after interval,
	OUT stall_timeout interval,
	OUT earliest_idle interval,
	OUT detects_idle interval,
	OUT earliest_busy interval,
	OUT detects_busy interval,
	OUT earliest_late_write interval,
	OUT detects_late_write interval,
	OUT earliest_stalled interval,
	OUT detects_stalled interval,
	OUT probes_per_hour integer,
	OUT libpq_options text,
	OUT sysctl text,
	OUT policy text)
	RETURNS record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_plan(interval, interval, boolean) IS
	'settings that find a dead client within that time and keep a path with that idle timeout open, and the detection times that follow; the same as libpq options, sysctl settings and an INSERT into keepalive_policy; living clients that do not read are ended only with end_slow_readers';

CREATE FUNCTION @extschema@.keepalive_plan_clients(
	detect_within interval,
	path_idle_timeout interval DEFAULT NULL,
	OUT client text,
	OUT settings text,
	OUT needs text,
	OUT covers text[],
	OUT detects_idle interval,
	OUT detects_busy interval,
	OUT detects_connecting interval,
	OUT limits text,
	OUT source text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 25
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_plan_clients(interval, interval) IS
	'the client''s side of keepalive_plan(): for each kind of client, pooler and proxy, the settings with which it finds a dead server within that time, the other row that it needs, in which states it does, its detection times, and its limits';

CREATE VIEW @extschema@.keepalive_paths (path, idle_timeout, what_happens, source) AS VALUES
	('AWS Network Load Balancer', interval '350 s', 'reset; the timeout can be set from 60 s to 6000 s',
		'https://docs.aws.amazon.com/elasticloadbalancing/latest/network/update-idle-timeout.html'),
	('AWS NAT gateway', '350 s', 'reset',
		'https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-troubleshooting.html'),
	('AWS security group, Nitro v6 instances', '350 s', 'silent',
		'https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ConnectionTrackingConfiguration.html'),
	('AWS security group, older instances', '432000 s', 'silent',
		'https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ConnectionTrackingConfiguration.html'),
	('Azure Load Balancer and NAT', '240 s', 'silent unless TCP reset is on; the timeout can be set up to 6000 s',
		'https://learn.microsoft.com/en-us/azure/load-balancer/load-balancer-tcp-idle-timeout'),
	('Google Cloud VPC', '600 s', 'silent',
		'https://cloud.google.com/compute/docs/troubleshooting/general-tips'),
	('Kubernetes kube-proxy, IPVS', '900 s', 'silent',
		'https://github.com/kubernetes/kubernetes/issues/84041'),
	('Kubernetes kube-proxy, conntrack', '86400 s', 'silent',
		'https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/'),
	('Linux conntrack', '432000 s', 'silent',
		'https://docs.kernel.org/networking/nf_conntrack-sysctl.html');
COMMENT ON VIEW @extschema@.keepalive_paths IS
	'well-known networks that drop idle connections, and after how long by default';
COMMENT ON COLUMN @extschema@.keepalive_paths.path IS
	'what is between client and server';
COMMENT ON COLUMN @extschema@.keepalive_paths.idle_timeout IS
	'how long a connection can be idle before it is dropped, by default';
COMMENT ON COLUMN @extschema@.keepalive_paths.what_happens IS
	'reset: one or both ends get a reset, at the latest when they send again; silent: packets are dropped from then on';
COMMENT ON COLUMN @extschema@.keepalive_paths.source IS
	'reference URL';
GRANT SELECT ON @extschema@.keepalive_paths TO PUBLIC;

CREATE FUNCTION @extschema@.keepalive_condition(
	OUT version text,
	OUT preloaded boolean,
	OUT worker boolean,
	OUT enabled boolean,
	OUT policies text,
	OUT up_to_date boolean,
	OUT skipped integer,
	OUT in_force integer,
	OUT found integer,
	OUT changed_at timestamptz,
	OUT netlink_refused text,
	OUT sockets_unreadable text)
	RETURNS record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_condition() IS
	'internal state, for keepalive_check()';
REVOKE ALL ON FUNCTION @extschema@.keepalive_condition() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_condition() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_policy_problems(
	OUT policy text,
	OUT replication_only boolean,
	OUT problem text,
	OUT hint text,
	OUT gives text[],
	OUT given_before jsonb,
	OUT keepalive boolean,
	OUT tcp_keepalives_idle interval,
	OUT tcp_keepalives_interval interval,
	OUT tcp_keepalives_count integer,
	OUT tcp_user_timeout interval,
	OUT client_connection_check_interval interval,
	OUT dead_after interval,
	OUT stall_timeout interval,
	OUT detects_idle interval,
	OUT detects_busy interval)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_policy_problems() IS
	'for keepalive_check(): each enabled policy, why it has no effect, and what every session gets that matches it; NULL: PostgreSQL without policies';
REVOKE ALL ON FUNCTION @extschema@.keepalive_policy_problems() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_policy_problems() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_likely_mistakes(
	OUT severity text,
	OUT policy text,
	OUT problem text,
	OUT hint text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_likely_mistakes() IS
	'for keepalive_check(): values of enabled policies that are valid and most likely a mistake, and policies that only their names put in order';
REVOKE ALL ON FUNCTION @extschema@.keepalive_likely_mistakes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_likely_mistakes() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_check_guard(
	OUT severity text,
	OUT subject text,
	OUT problem text,
	OUT hint text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
WITH condition AS MATERIALIZED (
	SELECT
		*,
		current_setting('keepalive_guard.database', true) AS policy_database,
		current_setting('keepalive_guard.database', true) = current_database() AS here,
		CASE in_force
			WHEN 0 THEN 'no policy is in force'
			WHEN 1 THEN 'the policy that was read before stays in force'
			ELSE format('the %s policies that were read before stay in force', in_force)
		END AS still_in_force
	FROM @extschema@.keepalive_condition()
)
SELECT 'error', 'shared_preload_libraries',
	'keepalive_guard is not loaded via shared_preload_libraries: no policy is in force',
	format('ALTER SYSTEM SET shared_preload_libraries = %s; -- then restart the server',
		(SELECT string_agg(quote_literal(btrim(library, ' "')), ', ' ORDER BY position)
			FROM unnest(string_to_array(current_setting('shared_preload_libraries'), ',') || '{keepalive_guard}')
				WITH ORDINALITY AS list (library, position)
			WHERE btrim(library) <> ''))
FROM condition WHERE NOT preloaded
UNION ALL
SELECT 'warning', 'version',
	format('the extension in this database is of version %s, the loaded library of version %s', extversion, version),
	CASE WHEN EXISTS (SELECT FROM pg_extension_update_paths('keepalive_guard')
			WHERE source = extversion AND target = version AND path IS NOT NULL)
		THEN format('ALTER EXTENSION keepalive_guard UPDATE TO %L;', version)
		ELSE format('SELECT pg_postmaster_start_time(); -- if the package was updated after this, restart the server; otherwise install version %s', extversion)
	END
FROM condition JOIN pg_extension ON extname = 'keepalive_guard' AND extversion <> version
UNION ALL
SELECT 'error', 'worker',
	'the keepalive_guard worker is not running: changes of policies do not reach the sessions, dead_after and stall_timeout are not enforced',
	'grep -E ''keepalive_guard|background worker'' server.log # it is restarted after a second; it needs two places of max_worker_processes'
FROM condition WHERE NOT worker
UNION ALL
SELECT CASE policies WHEN 'not_read' THEN 'error' ELSE 'warning' END, 'worker',
	CASE policies
		WHEN 'not_read' THEN 'the policies have not been read since the server started: no policy is in force'
		ELSE 'the last change of policies is not in force yet'
	END,
	'SELECT pg_blocking_pids(pid), * FROM pg_stat_activity WHERE backend_type LIKE ''keepalive_guard%'';'
FROM condition WHERE worker AND NOT up_to_date
UNION ALL
SELECT 'warning', 'keepalive_guard.enabled', 'policies are not applied to any session',
	'ALTER SYSTEM RESET keepalive_guard.enabled; SELECT pg_reload_conf();'
FROM condition WHERE NOT enabled
UNION ALL
SELECT 'warning', 'netlink',
	format('netlink is unavailable, using /proc/net/tcp: %s', netlink_refused),
	'systemctl edit postgresql # allow AF_NETLINK in RestrictAddressFamilies=, or in the container''s seccomp profile'
FROM condition WHERE netlink_refused IS NOT NULL
UNION ALL
SELECT 'error', 'sockets',
	format('the state of connections is not known: %s', sockets_unreadable),
	'systemctl edit postgresql # allow AF_NETLINK in RestrictAddressFamilies=, or in the container''s seccomp profile'
FROM condition WHERE sockets_unreadable IS NOT NULL

-- The table and its compilation.
UNION ALL
SELECT 'error', 'keepalive_guard.database',
	format('policies are read from database "%s", which does not exist', policy_database),
	format('ALTER SYSTEM SET keepalive_guard.database = %L; -- then restart the server', current_database())
FROM condition WHERE policies = 'no_database'
UNION ALL
SELECT 'error', 'keepalive_guard.database',
	format('policies are read from database "%s", which does not have the extension', policy_database),
	format(E'\\connect %I\nCREATE EXTENSION keepalive_guard;', policy_database)
FROM condition WHERE policies = 'no_extension'
UNION ALL
SELECT 'error', 'keepalive_guard.max_policies',
	format('there are more policies than %s: %s', current_setting('keepalive_guard.max_policies'), still_in_force),
	format('ALTER SYSTEM SET keepalive_guard.max_policies = %s; -- then restart the server',
		least(greatest(2 * current_setting('keepalive_guard.max_policies')::integer, found), 100000))
FROM condition WHERE policies = 'no_room'
UNION ALL
SELECT 'error', 'keepalive_policy',
	format('the table could not be read: %s', still_in_force),
	'grep keepalive_guard server.log'
FROM condition WHERE policies = 'unreadable'
UNION ALL
SELECT 'error', 'keepalive_policy',
	format('extension keepalive_guard in database "%s" has no table keepalive_policy: %s', policy_database, still_in_force),
	CASE
		WHEN NOT here THEN format(E'\\connect %I\nSELECT * FROM keepalive_check();', policy_database)
		WHEN relname <> 'keepalive_policy' THEN format('ALTER TABLE %s RENAME TO keepalive_policy;', pg_class.oid::regclass)
		WHEN relnamespace <> extnamespace
			THEN format('ALTER TABLE %s SET SCHEMA %s;', pg_class.oid::regclass, extnamespace::regnamespace)
		ELSE format('ALTER EXTENSION keepalive_guard ADD TABLE %s;', pg_class.oid::regclass)
	END
FROM condition
	JOIN pg_class ON pg_class.oid = '@extschema@.keepalive_policy'::regclass
	JOIN pg_extension ON extname = 'keepalive_guard'
WHERE policies = 'no_table'
UNION ALL
SELECT 'error', 'policy reader',
	format('the policy reader cannot read the policies of database "%s": %s', policy_database, still_in_force),
	'grep -B 5 ''keepalive_guard policy reader'' server.log # the lines before its exit have the reason'
FROM condition WHERE policies = 'reader_failed'
UNION ALL
SELECT 'error', 'keepalive_policy',
	format('invalid policies are not in force: %s of them', skipped),
	'grep ''skipping keepalive policy'' server.log'
FROM condition WHERE skipped > 0 AND NOT here
UNION ALL
SELECT 'warning', 'keepalive_policy',
	'its trigger does not always fire: changes are not checked, or reach the sessions a second later',
	format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I;', tgrelid::regclass, tgname)
FROM pg_trigger
WHERE tgrelid = '@extschema@.keepalive_policy'::regclass AND NOT tgisinternal AND tgenabled <> 'A'
	AND tgname IN ('keepalive_policy_guard', 'keepalive_policy_guard_count', 'keepalive_policy_guard_truncate')
UNION ALL
SELECT 'warning', format('database "%s"', current_database()),
	format('the policies in this database are not used: keepalive_guard.database is "%s"',
		policy_database),
	format('ALTER SYSTEM SET keepalive_guard.database = %L; -- then restart the server', current_database())
FROM condition CROSS JOIN @extschema@.keepalive_policy
WHERE NOT here
GROUP BY policy_database
UNION ALL
SELECT 'warning', 'standby', format('the policies are those of %s: %s',
		coalesce(pg_last_xact_replay_timestamp()::text, 'the base backup'), reason), fix
FROM (SELECT
		CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END AS paused,
		current_setting('restore_command') = ''
			AND NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') AS alone,
		pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()
			AND clock_timestamp() - pg_last_xact_replay_timestamp() > interval '1 minute' AS late) AS replay
	CROSS JOIN LATERAL (VALUES
		(paused, 'replay is paused', 'SELECT pg_wal_replay_resume();'),
		(alone, 'the standby is not connected to its primary', 'SHOW primary_conninfo; SELECT * FROM pg_stat_wal_receiver;'),
		(late AND NOT paused, 'replay is behind', 'SELECT pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn();'))
		AS reasons (applies, reason, fix)
WHERE pg_is_in_recovery() AND applies;
END;
COMMENT ON FUNCTION @extschema@.keepalive_check_guard() IS
	'part of keepalive_check(): findings about the guard itself and the table of policies';
REVOKE ALL ON FUNCTION @extschema@.keepalive_check_guard() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_check_guard() TO pg_monitor;

-- What is unwise about values that belong together, the settings that it concerns, and the
-- setting and value that would change it; a NULL setting stands for all of them.
CREATE FUNCTION @extschema@.keepalive_check_values(
	keepalive boolean,
	idle interval,
	probe_interval interval,
	probes integer,
	user_timeout interval,
	stall_timeout interval,
	detects_idle interval,
	detects_busy interval,
	for_sessions boolean,
	OUT severity text,
	OUT problem text,
	OUT concerns text[],
	OUT setting text,
	OUT value text)
	RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
-- After how many unanswered probes the user timeout ends an idle connection.
WITH timed AS (
	SELECT greatest(1, ceil(extract(epoch FROM user_timeout - idle) / extract(epoch FROM probe_interval))) AS probes_by_time
	WHERE keepalive AND user_timeout > interval '0'
)
SELECT 'warning',
	format('tcp_user_timeout (%s) is shorter than tcp_keepalives_idle (%s): a single lost probe ends the connection',
		user_timeout, idle),
	'{tcp_keepalives_idle,tcp_user_timeout}'::text[],
	'tcp_user_timeout', '0'
FROM timed WHERE user_timeout < idle
UNION ALL
SELECT 'info',
	format('tcp_user_timeout (%s) overrules tcp_keepalives_count (%s): an idle connection ends after %s unanswered probes',
		user_timeout, probes, probes_by_time),
	'{tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count,tcp_user_timeout}',
	'tcp_user_timeout', '0'
FROM timed WHERE user_timeout >= idle AND probes_by_time <> probes
UNION ALL
-- A short failure of the network is no reason to end living clients.
SELECT 'warning',
	format('a client that leaves probes unanswered for %s (tcp_keepalives_count * tcp_keepalives_interval) is given up, which also ends living clients on a lossy network',
		probes * probe_interval),
	'{keepalive,tcp_keepalives_interval,tcp_keepalives_count}',
	'tcp_keepalives_count', ceil(5 / extract(epoch FROM probe_interval))::text
WHERE keepalive AND user_timeout = interval '0' AND probes * probe_interval < interval '5 s'
UNION ALL
SELECT 'warning',
	format('tcp_user_timeout (%s) also ends living clients that read nothing for that long; dead_after does not', user_timeout),
	'{tcp_user_timeout}',
	'tcp_user_timeout', '0'
WHERE user_timeout > interval '0' AND coalesce(stall_timeout > user_timeout, true)
UNION ALL
SELECT 'warning',
	format('tcp_keepalives_interval (%s) is longer than tcp_keepalives_idle (%s): later probes are sent only once per interval, and a dead client is found later',
		probe_interval, idle),
	'{tcp_keepalives_idle,tcp_keepalives_interval}',
	'tcp_keepalives_interval', extract(epoch FROM idle)::integer || 's'
WHERE keepalive AND probe_interval > idle
UNION ALL
SELECT 'info',
	format('probes every %s do not keep these open: %s', greatest(idle, probe_interval),
		string_agg(format('%s (%s)', path, idle_timeout), ', ' ORDER BY idle_timeout, path)),
	'{keepalive,tcp_keepalives_idle,tcp_keepalives_interval}',
	'tcp_keepalives_idle', floor(extract(epoch FROM min(idle_timeout)) * 0.4) || 's'
FROM @extschema@.keepalive_paths
WHERE for_sessions AND keepalive AND idle_timeout <= greatest(idle, probe_interval)
HAVING count(*) > 0
UNION ALL
SELECT 'warning',
	format('a dead client would go unnoticed for %s while the session is idle, %s while it is busy',
		coalesce('up to ' || detects_idle, 'an unlimited time'), coalesce('up to ' || detects_busy, 'an unlimited time')),
	'{keepalive,tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count,tcp_user_timeout,client_connection_check_interval,dead_after}',
	NULL, NULL
WHERE for_sessions
	AND (coalesce(detects_idle > interval '1 hour', true) OR coalesce(detects_busy > interval '1 hour', true));
END;
COMMENT ON FUNCTION @extschema@.keepalive_check_values(boolean, interval, interval, integer, interval, interval, interval, interval, boolean) IS
	'part of keepalive_check(): what is unwise about the values of a policy, of postgresql.conf or of a session';
REVOKE ALL ON FUNCTION @extschema@.keepalive_check_values(boolean, interval, interval, integer, interval, interval, interval, interval, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_check_values(boolean, interval, interval, integer, interval, interval, interval, interval, boolean) TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_check_policies(
	OUT severity text,
	OUT subject text,
	OUT problem text,
	OUT hint text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
WITH condition AS MATERIALIZED (
	SELECT *, current_setting('keepalive_guard.database', true) = current_database() AS here
	FROM @extschema@.keepalive_condition()
),
rule AS MATERIALIZED (
	SELECT * FROM @extschema@.keepalive_policy_problems()
),
-- What every session gets that matches the policy; NULL: PostgreSQL without policies.
explained AS MATERIALIZED (
	SELECT * FROM rule WHERE problem IS NULL
)
SELECT 'warning', format('policy "%s"', rule.policy), rule.problem, rule.hint
FROM rule WHERE rule.problem IS NOT NULL
UNION ALL
SELECT severity, format('policy "%s"', policy), problem, hint
FROM @extschema@.keepalive_likely_mistakes()
UNION ALL
SELECT 'error', format('policy "%s"', name), 'not in force: a value is invalid',
	format('UPDATE %s SET name = name WHERE name = %L; -- the error says which one', '@extschema@.keepalive_policy'::regclass, name)
FROM condition CROSS JOIN @extschema@.keepalive_policy
WHERE skipped > 0 AND here AND keepalive_policy.enabled AND NOT EXISTS (SELECT FROM rule WHERE policy = name)
UNION ALL
SELECT 'warning', 'keepalive_guard.watch_interval',
	format('dead_after and stall_timeout are not enforced, for policy %s',
		string_agg(format('"%s"', policy), ', ' ORDER BY policy)),
	'ALTER SYSTEM RESET keepalive_guard.watch_interval; SELECT pg_reload_conf();'
FROM explained
WHERE (dead_after IS NOT NULL OR stall_timeout IS NOT NULL)
	AND gives && '{dead_after,stall_timeout}'
	AND current_setting('keepalive_guard.watch_interval', true)::interval = interval '0'
HAVING count(*) > 0
UNION ALL
SELECT found.severity,
	CASE WHEN policy IS NULL THEN 'postgresql.conf' ELSE format('policy "%s"', policy) END,
	found.problem,
	CASE
		WHEN setting IS NULL THEN format('UPDATE %s SET (keepalive, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout, client_connection_check_interval, dead_after)'
			' = (SELECT true, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout, client_connection_check_interval, dead_after FROM %s(''1 min'')) WHERE name = %L;',
			'@extschema@.keepalive_policy'::regclass, '@extschema@.keepalive_plan'::regproc, policy)
		WHEN policy IS NULL THEN format('ALTER SYSTEM SET %I = %L; SELECT pg_reload_conf();', setting, value)
		ELSE format('UPDATE %s SET %I = %L WHERE name = %L;', '@extschema@.keepalive_policy'::regclass, setting, value,
			coalesce(given_before ->> setting, policy))
	END
FROM explained
	CROSS JOIN LATERAL @extschema@.keepalive_check_values(
		keepalive, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout,
		stall_timeout, detects_idle, detects_busy,
		-- Walsenders have wal_sender_timeout.
		policy IS NOT NULL AND NOT (replication_only
			AND current_setting('wal_sender_timeout')::interval > interval '0')) AS found
WHERE gives && concerns;
END;
COMMENT ON FUNCTION @extschema@.keepalive_check_policies() IS
	'part of keepalive_check(): findings about policies and postgresql.conf';
REVOKE ALL ON FUNCTION @extschema@.keepalive_check_policies() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_check_policies() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_startups(
	OUT pid integer,
	OUT backend_start timestamptz,
	OUT plain boolean)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 100
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_startups() IS
	'for keepalive_check(): whether the startup packet of a session had no settings (plain), as those of PgBouncer';
REVOKE ALL ON FUNCTION @extschema@.keepalive_startups() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_startups() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_check_sessions(
	OUT severity text,
	OUT subject text,
	OUT problem text,
	OUT hint text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
WITH condition AS MATERIALIZED (
	SELECT * FROM @extschema@.keepalive_condition()
),
session AS MATERIALIZED (
	SELECT
		s.*,
		a.state = 'active' AND clock_timestamp() - a.query_start > interval '1 minute' AS long_query,
		-- PgBouncer's ways: it starts a connection without application_name and sets that of
		-- its client later, if configured so with the client's address; and it resets a
		-- connection before the next client gets it.
		s.application_name <> '' AND coalesce(started.plain, false)
			OR s.application_name ~ ' - [0-9a-f.:]+:[0-9]+$'
			OR a.state = 'idle' AND a.query = 'DISCARD ALL' AS pooled,
		-- The kernel knows of the end of a client on the same host.
		s.transport = 'tcp' AND NOT s.client_addr <<= '127.0.0.0/8' AND s.client_addr <> '::1' AS remote,
		s.policies[1] AS policy,
		CASE WHEN s.policies IS NULL THEN 'sessions without policy'
			ELSE format('sessions of policy "%s"', s.policies[1]) END AS subject
	FROM @extschema@.keepalive_status() AS s
		LEFT JOIN pg_stat_activity AS a USING (pid)
		LEFT JOIN @extschema@.keepalive_startups() AS started
			ON started.pid = s.pid AND started.backend_start = a.backend_start
),
-- Where poolers are, unless there is a policy for one, which can only be for its address.
pooler AS (
	SELECT client_addr, count(*) AS sessions,
		min(usename) FILTER (WHERE client_connection_check_interval = interval '0') AS unchecked
	FROM session
	WHERE backend_type = 'client backend' AND pooled
	GROUP BY client_addr
	HAVING count(*) >= 3
		AND current_setting('keepalive_guard.database', true) = current_database()
		AND CASE WHEN client_addr IS NULL
			-- Over a Unix socket nothing else has an effect.
			THEN bool_or(client_connection_check_interval = interval '0')
			ELSE NOT EXISTS (
				SELECT FROM @extschema@.keepalive_policy AS p
				-- Without a dependency on a column that an older table lacks.
				WHERE p.enabled AND (to_jsonb(p) ->> 'client')::inet = session.client_addr) END
),
-- Sessions with values of their own, those with the same values together.
alike AS (
	SELECT
		CASE count(*) WHEN 1 THEN format('session %s', min(pid))
			ELSE format('session %s and %s like it', min(pid), count(*) - 1) END AS subject,
		policy, keepalive, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count,
		tcp_user_timeout, detects_idle, detects_busy
	FROM session
	WHERE remote
		AND keepalive IS NOT NULL
		AND policy_state IS DISTINCT FROM 'applied'
		AND NOT (backend_type = 'walsender'
			AND current_setting('wal_sender_timeout')::interval > interval '0')
	GROUP BY policy, keepalive, tcp_keepalives_idle, tcp_keepalives_interval,
		tcp_keepalives_count, tcp_user_timeout, detects_idle, detects_busy
),
-- Where connections have been lost, and the sessions that may be lost in the same way.
endangered AS (
	SELECT observed.network, observed.idle_timeout, observed.tcp_keepalives_idle AS advice,
		session.policy, count(*) AS sessions,
		CASE WHEN bool_or(policy_state = 'overridden') THEN ', enforcement = ''ceiling''' ELSE '' END AS enforcement
	FROM condition
		CROSS JOIN LATERAL unnest(CASE WHEN preloaded THEN
			ARRAY(SELECT o FROM @extschema@.keepalive_paths_observed AS o WHERE o.tcp_keepalives_idle IS NOT NULL) END) AS observed
		JOIN session ON session.client_addr <<= observed.network
	WHERE remote AND (NOT session.keepalive
		OR greatest(session.tcp_keepalives_idle, session.tcp_keepalives_interval) > observed.tcp_keepalives_idle)
	GROUP BY observed.network, observed.idle_timeout, observed.tcp_keepalives_idle, session.policy
)
SELECT found.severity, alike.subject, found.problem,
	CASE
		WHEN policy IS NULL
		THEN format(E'SELECT policy FROM %s(''1 min'') \\gexec', '@extschema@.keepalive_plan'::regproc)
		-- These are chosen too short, which a ceiling allows.
		WHEN setting IN ('tcp_keepalives_count', 'tcp_user_timeout')
		THEN format('UPDATE %s SET %I = %L, enforcement = ''locked'' WHERE name = %L;',
			'@extschema@.keepalive_policy'::regclass, setting, value, policy)
		ELSE format('UPDATE %s SET enforcement = ''ceiling'' WHERE name = %L;', '@extschema@.keepalive_policy'::regclass, policy) END
FROM alike
	CROSS JOIN LATERAL @extschema@.keepalive_check_values(
		keepalive, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout,
		NULL, detects_idle, detects_busy, true) AS found
UNION ALL
SELECT 'warning', format('clients in %s', network),
	format('a device on the path drops connections that are idle for %s or less, and %s %s probed too late or never',
		idle_timeout, CASE sessions WHEN 1 THEN '1 session' ELSE sessions || ' sessions' END
			|| CASE WHEN policy IS NULL THEN ' without policy' ELSE format(' of policy "%s"', policy) END,
		CASE sessions WHEN 1 THEN 'is' ELSE 'are' END),
	CASE WHEN policy IS NULL
		THEN format('INSERT INTO %s (name, client, tcp_keepalives_idle, tcp_keepalives_interval) VALUES (%L, %L, %L, %L);',
			'@extschema@.keepalive_policy'::regclass, 'keep ' || network, network, advice, advice)
		ELSE format('UPDATE %s SET keepalive = true, tcp_keepalives_idle = %L, tcp_keepalives_interval = %L%s WHERE name = %L;',
			'@extschema@.keepalive_policy'::regclass, advice, advice, enforcement, policy) END
FROM endangered
UNION ALL
SELECT 'info', CASE WHEN client_addr IS NULL THEN 'clients on this host' ELSE format('clients at %s', host(client_addr)) END,
	format('%s sessions look like those of a connection pooler: policies reach the pooler and not its clients, whose death only the settings of the pooler can find; a query of theirs then runs on unless client_connection_check_interval is set',
		sessions),
	CASE WHEN client_addr IS NULL
		THEN format('INSERT INTO %s (name, role, client_connection_check_interval) VALUES (%L, %L, ''10s'');',
			'@extschema@.keepalive_policy'::regclass, 'pooler for ' || unchecked, unchecked)
		ELSE format('INSERT INTO %s (name, client, client_connection_check_interval) VALUES (%L, %L, ''10s'');',
			'@extschema@.keepalive_policy'::regclass, 'pooler at ' || host(client_addr), host(client_addr)) END
FROM pooler
UNION ALL
SELECT severity, subject, format(problem, pids),
	CASE WHEN policy IS NULL
		THEN 'ALTER SYSTEM SET client_connection_check_interval = ''10s''; SELECT pg_reload_conf(); -- for their next queries'
		ELSE format(fix, '@extschema@.keepalive_policy'::regclass, quote_literal(policy)) END
FROM (
		SELECT subject, policy, severity, problem, fix,
			array_to_string((array_agg(pid ORDER BY pid))[1:5], ', ')
				|| CASE WHEN count(*) > 5 THEN format(' and %s more', count(*) - 5) ELSE '' END AS pids
		FROM session JOIN (VALUES
			('failed', 'error', 'the kernel refused a value of the policy, for pid %s',
				format('SELECT * FROM %s() WHERE policy_state = ''failed'';', '@extschema@.keepalive_status'::regproc)),
			('overridden', 'info', 'other values than those of the policy are in force, for pid %s',
				'UPDATE %s SET enforcement = ''locked'' WHERE name = %s;'),
			('pending', 'info', 'the values of the policy are not confirmed yet, by pid %s',
				format('SELECT * FROM %s();', '@extschema@.keepalive_apply'::regproc)),
			('unchecked', 'warning', 'a query has been running for more than a minute while client_connection_check_interval is off: a lost client is not noticed by pid %s',
				'UPDATE %s SET client_connection_check_interval = ''10s'' WHERE name = %s; -- for their next queries'))
			AS trouble (kind, severity, problem, fix)
			ON policy_state = kind
				OR kind = 'unchecked' AND long_query AND backend_type = 'client backend'
					AND client_connection_check_interval = interval '0'
		WHERE kind <> 'pending' OR (SELECT up_to_date FROM condition)
		GROUP BY subject, policy, kind, severity, problem, fix) AS troubled;
END;
COMMENT ON FUNCTION @extschema@.keepalive_check_sessions() IS
	'part of keepalive_check(): findings about the connected sessions';
REVOKE ALL ON FUNCTION @extschema@.keepalive_check_sessions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_check_sessions() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_outbound(
	OUT kind text,
	OUT name text,
	OUT database name,
	OUT keepalive boolean,
	OUT idle integer,
	OUT probe_interval integer,
	OUT probes integer,
	OUT options text[])
	RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 10
	-- Only superusers see the connection strings, which can have passwords.
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
WITH outbound (kind, name, database, conninfo, options) AS (
	SELECT 'WAL receiver', 'primary_conninfo', NULL::name, current_setting('primary_conninfo'), NULL::text[]
	WHERE pg_is_in_recovery()
	UNION ALL
	SELECT 'subscription', subname::text, datname, subconninfo, NULL
	FROM pg_subscription JOIN pg_database ON pg_database.oid = subdbid
	WHERE subenabled AND NOT pg_is_in_recovery()
	UNION ALL
	SELECT 'server', srvname::text, current_database(), string_agg(option_name || '=' || option_value, ' '),
		array_agg(option_name)
	FROM pg_foreign_server
		JOIN pg_foreign_data_wrapper ON pg_foreign_data_wrapper.oid = srvfdw AND fdwname IN ('postgres_fdw', 'dblink_fdw')
		CROSS JOIN LATERAL pg_options_to_table(srvoptions)
	GROUP BY srvname
),
-- The value of a connection option, in a connection string or a URI.
option (kind, name, database, option, value, options) AS (
	SELECT kind, name, database, option, (regexp_match(conninfo, '(?:^|[\s?&])' || option || '\s*=\s*''?(\d{1,6})(?!\d)'))[1]::integer,
		options
	FROM outbound
		CROSS JOIN unnest('{keepalives,keepalives_idle,keepalives_interval,keepalives_count}'::text[]) AS option
	-- The kernel knows of the end of a server on the same host.
	WHERE conninfo ~ '(?:^|[\s?&])host(?:addr)?\s*=\s*''?(?!localhost|127\.|::1|/|@|%2F)[^\s'']'
		OR conninfo ~ '^postgres(?:ql)?://(?:[^@/?]*@)?(?!localhost|127\.|\[::1\]|%2F)[^/?]'
),
-- 0 and what is not set: the system's.
system AS (
	SELECT
		max(setting) FILTER (WHERE name LIKE '%tcp\_keepalive\_time')::integer AS idle,
		max(setting) FILTER (WHERE name LIKE '%tcp\_keepalive\_intvl')::integer AS probe_interval,
		max(setting) FILTER (WHERE name LIKE '%tcp\_keepalive\_probes')::integer AS probes
	FROM @extschema@.keepalive_kernel()
)
SELECT kind, name, database,
	coalesce(max(value) FILTER (WHERE option = 'keepalives') <> 0, true),
	coalesce(nullif(max(value) FILTER (WHERE option = 'keepalives_idle'), 0), system.idle, 7200),
	coalesce(nullif(max(value) FILTER (WHERE option = 'keepalives_interval'), 0), system.probe_interval, 75),
	coalesce(nullif(max(value) FILTER (WHERE option = 'keepalives_count'), 0), system.probes, 9),
	options
FROM option CROSS JOIN system
GROUP BY kind, name, database, options, system.idle, system.probe_interval, system.probes;
END;
COMMENT ON FUNCTION @extschema@.keepalive_outbound() IS
	'for keepalive_check(): the keepalive options of this server''s own connections to other hosts: primary_conninfo, subscriptions, and the foreign servers of this database';
REVOKE ALL ON FUNCTION @extschema@.keepalive_outbound() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_outbound() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_check_outbound(
	OUT severity text,
	OUT subject text,
	OUT problem text,
	OUT hint text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
WITH condition AS MATERIALIZED (
	SELECT * FROM @extschema@.keepalive_condition()
),
late AS (
	SELECT *, (idle::bigint + probes::bigint * probe_interval) * interval '1 s' AS gives_up
	FROM @extschema@.keepalive_outbound()
	WHERE (NOT keepalive OR idle::bigint + probes::bigint * probe_interval > 3600)
		AND (kind = 'server' OR current_setting('wal_receiver_timeout')::interval = interval '0'
			OR current_setting('wal_receiver_timeout')::interval > interval '1 hour')
)
SELECT 'warning',
	CASE kind WHEN 'WAL receiver' THEN name ELSE format('%s "%s"', kind, name) END,
	CASE WHEN keepalive
		THEN format('its connection is given up %s after the other host is gone, or later', gives_up)
		ELSE 'keepalive is off: nothing notices that the other host is gone while an answer is awaited' END
	|| CASE WHEN kind <> 'server' THEN format('; wal_receiver_timeout is %s', current_setting('wal_receiver_timeout')) ELSE '' END,
	CASE WHEN kind = 'server' THEN
		format('ALTER SERVER %I OPTIONS (%s);', name, (
			SELECT string_agg(format('%s %s %L', CASE WHEN found[1] = ANY (late.options) THEN 'SET' ELSE 'ADD' END, found[1], found[2]), ', ')
			FROM @extschema@.keepalive_plan_clients('1 min') AS c
				CROSS JOIN regexp_matches(c.settings, '(\w+) ''(\d+)''', 'g') AS found
			WHERE c.client = 'postgres_fdw'))
	ELSE 'ALTER SYSTEM RESET wal_receiver_timeout; SELECT pg_reload_conf();' END
FROM late
UNION ALL
SELECT 'warning', format('process %s', pid),
	format('keepalive is off on its connection to %s, port %s: nothing notices that the other host is gone while an answer is awaited',
		host(remote_addr), remote_port),
	format('SELECT settings FROM %s(''1 min'') WHERE client IN (''dblink'', ''postgres_fdw'');', '@extschema@.keepalive_plan_clients'::regproc)
FROM condition
	CROSS JOIN LATERAL (SELECT * FROM @extschema@.keepalive_sockets() WHERE condition.sockets_unreadable IS NULL) AS socket
WHERE kind = 'outbound' AND timer = 'off' AND tcp_state = 'ESTABLISHED'
	AND coalesce(backend_type, '') !~ '^(walreceiver|logical replication )'
	AND NOT remote_addr <<= '127.0.0.0/8' AND remote_addr <> '::1';
END;
COMMENT ON FUNCTION @extschema@.keepalive_check_outbound() IS
	'part of keepalive_check(): findings about this server''s own connections to other hosts';
REVOKE ALL ON FUNCTION @extschema@.keepalive_check_outbound() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_check_outbound() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_check(
	OUT severity text,
	OUT subject text,
	OUT problem text,
	OUT hint text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED ROWS 10
BEGIN ATOMIC
SELECT severity, subject, problem, hint
FROM (
	SELECT * FROM @extschema@.keepalive_check_guard()
	UNION ALL
	SELECT * FROM @extschema@.keepalive_check_policies()
	UNION ALL
	SELECT * FROM @extschema@.keepalive_check_sessions()
	UNION ALL
	SELECT * FROM @extschema@.keepalive_check_outbound()) AS finding
ORDER BY array_position('{error,warning,info}', severity), subject, problem;
END;
COMMENT ON FUNCTION @extschema@.keepalive_check() IS
	'problems of the current configuration, policies and sessions, each with a command that helps; no rows if there are none';
REVOKE ALL ON FUNCTION @extschema@.keepalive_check() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_check() TO pg_monitor;

CREATE VIEW @extschema@.keepalive_blockers WITH (security_invoker = true) AS
WITH RECURSIVE suspect AS MATERIALIZED (
	SELECT s.pid, s.datname, s.usename, s.application_name, s.client_addr, s.policies, s.health,
		s.silent_for, s.gives_up_in, a.xact_start,
		greatest(age(a.backend_xid), age(a.backend_xmin)) AS xmin_age
	FROM @extschema@.keepalive_status() AS s
		LEFT JOIN pg_stat_activity AS a USING (pid)
	WHERE s.health <> 'alive'
),
-- pg_blocking_pids() is expensive: it is called only for sessions that wait, and only
-- while there are suspects.  The cast makes the planner expect few of them; with many, it
-- would spend seconds on JIT compilation.
lock_wait AS MATERIALIZED (
	SELECT coalesce(a.leader_pid, l.pid) AS waiter, blocker, l.waitstart
	FROM pg_locks AS l
		LEFT JOIN pg_stat_activity AS a USING (pid)
		CROSS JOIN LATERAL unnest(pg_blocking_pids(l.pid)) AS blocker
	WHERE l.granted::integer = 0 AND EXISTS (SELECT FROM suspect)
),
held_up (pid, waiter, waitstart) AS (
	SELECT blocker, waiter, waitstart
	FROM lock_wait JOIN suspect ON blocker = pid
	UNION
	SELECT held_up.pid, lock_wait.waiter, lock_wait.waitstart
	FROM held_up JOIN lock_wait ON lock_wait.blocker = held_up.waiter
),
waits AS (
	SELECT pid, count(DISTINCT waiter)::integer AS waiting, min(waitstart) AS first_wait
	FROM held_up
	WHERE waiter <> pid
	GROUP BY pid
),
horizon AS MATERIALIZED (
	SELECT max(xmin_age) AS oldest
	FROM (
		SELECT greatest(age(backend_xid), age(backend_xmin)) FROM pg_stat_activity
		UNION ALL
		SELECT greatest(age(xmin), age(catalog_xmin)) FROM pg_replication_slots
		UNION ALL
		SELECT age(transaction) FROM pg_prepared_xacts) AS held (xmin_age)
	WHERE EXISTS (SELECT FROM suspect)
)
SELECT
	pid,
	datname,
	usename,
	application_name,
	client_addr,
	policies,
	health,
	silent_for,
	gives_up_in,
	coalesce(waiting, 0) AS waiting,
	clock_timestamp() - first_wait AS oldest_wait,
	clock_timestamp() - xact_start AS transaction_age,
	coalesce(xmin_age >= oldest, false) AS holds_xmin,
	xmin_age
FROM suspect
	CROSS JOIN horizon
	LEFT JOIN waits USING (pid)
WHERE waiting > 0 OR xmin_age IS NOT NULL;
COMMENT ON VIEW @extschema@.keepalive_blockers IS
	'dead connections that block other sessions: by locks, or by preventing vacuum from removing rows';
COMMENT ON COLUMN @extschema@.keepalive_blockers.pid IS 'backend';
COMMENT ON COLUMN @extschema@.keepalive_blockers.datname IS 'its database';
COMMENT ON COLUMN @extschema@.keepalive_blockers.usename IS 'its role';
COMMENT ON COLUMN @extschema@.keepalive_blockers.application_name IS 'as the client called itself';
COMMENT ON COLUMN @extschema@.keepalive_blockers.client_addr IS 'address of the client';
COMMENT ON COLUMN @extschema@.keepalive_blockers.policies IS 'policies of the session';
COMMENT ON COLUMN @extschema@.keepalive_blockers.health IS 'state of the connection, as in keepalive_status()';
COMMENT ON COLUMN @extschema@.keepalive_blockers.silent_for IS 'since when nothing has been received from it';
COMMENT ON COLUMN @extschema@.keepalive_blockers.gives_up_in IS 'how long until it is given up if it stays silent; NULL: never';
COMMENT ON COLUMN @extschema@.keepalive_blockers.waiting IS 'number of sessions that wait for its locks, directly or behind others that do';
COMMENT ON COLUMN @extschema@.keepalive_blockers.oldest_wait IS 'how long the first of these has been waiting';
COMMENT ON COLUMN @extschema@.keepalive_blockers.transaction_age IS 'how long ago its transaction began';
COMMENT ON COLUMN @extschema@.keepalive_blockers.holds_xmin IS 'no session, replication slot or prepared transaction keeps vacuum from removing older rows than this one';
COMMENT ON COLUMN @extschema@.keepalive_blockers.xmin_age IS 'age in transactions of the oldest it may still see or has itself; NULL: it holds back nothing';
GRANT SELECT ON @extschema@.keepalive_blockers TO PUBLIC;

--
-- Monitoring
--

CREATE FUNCTION @extschema@.keepalive_listeners(
	OUT local_port integer,
	OUT accept_queue bigint,
	OUT accept_queue_limit bigint)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 2
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.keepalive_listeners() IS
	'for keepalive_metrics: the accept queues of the listeners in keepalive_sockets()';
REVOKE ALL ON FUNCTION @extschema@.keepalive_listeners() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_listeners() TO pg_monitor;

-- Each metric has a constant name in a branch of its own, so that a condition on the name
-- leaves out the other branches, and what only they read.
CREATE VIEW @extschema@.keepalive_metrics (name, type, help, labels, value) WITH (security_invoker = true) AS
WITH condition AS MATERIALIZED (
	SELECT * FROM @extschema@.keepalive_condition()
),
session AS MATERIALIZED (
	SELECT transport, policies, coalesce(policy_state, 'none') AS policy_state, coalesce(health, '') AS health,
		silent_for, rtt_ms / 1000 AS rtt, detects_idle, detects_busy,
		-- As in keepalive_check(): the kernel knows of the end of a client on the same
		-- host, and wal_sender_timeout ends a walsender.
		transport = 'tcp' AND keepalive IS NOT NULL AND NOT client_addr <<= '127.0.0.0/8' AND client_addr <> '::1'
			AND NOT (backend_type = 'walsender'
				AND current_setting('wal_sender_timeout')::interval > interval '0') AS promised
	FROM @extschema@.keepalive_status()
	WHERE transport IS NOT NULL
),
statistics AS MATERIALIZED (
	SELECT * FROM @extschema@.keepalive_stats() WHERE (SELECT preloaded FROM condition)
),
finding AS MATERIALIZED (
	SELECT severity FROM @extschema@.keepalive_check()
),
blocker AS MATERIALIZED (
	SELECT waiting, oldest_wait, holds_xmin FROM @extschema@.keepalive_blockers
),
listener AS MATERIALIZED (
	SELECT accept_queue, accept_queue_limit FROM @extschema@.keepalive_listeners()
	WHERE (SELECT sockets_unreadable IS NULL FROM condition)
),
bound (le) AS (
	VALUES ('0.0001'), ('0.00025'), ('0.0005'), ('0.001'), ('0.0025'), ('0.005'), ('0.01'), ('0.025'), ('0.05'),
		('0.1'), ('0.25'), ('0.5'), ('1'), ('2.5'), ('+Inf')
),
-- Round-trip times have whole microseconds; width_bucket() has the bounds themselves in
-- the next bucket.
bucket AS MATERIALIZED (
	SELECT bound.le, coalesce(sum(sessions) OVER (ORDER BY bound.le::double precision), 0) AS sessions
	FROM bound
		LEFT JOIN (
			SELECT bounds[1 + width_bucket(rtt - 1e-9, bounds)] AS le, count(*) AS sessions
			FROM session
				CROSS JOIN (SELECT array_agg(le::double precision ORDER BY le::double precision) AS bounds FROM bound) AS b
			WHERE rtt IS NOT NULL
			GROUP BY 1) AS counted ON counted.le = bound.le::double precision
)
SELECT 'keepalive_guard_build_info'::text, 'gauge'::text,
	'Versions of the extension, of the library and of PostgreSQL; the value is 1.'::text,
	jsonb_build_object('version', extversion, 'library', version,
		'postgresql', split_part(current_setting('server_version'), ' ', 1)),
	1::double precision
FROM condition JOIN pg_extension ON extname = 'keepalive_guard'

-- The guard itself.
UNION ALL
SELECT 'keepalive_guard_preloaded', 'gauge', 'Whether the library is in shared_preload_libraries.',
	'{}', preloaded::integer
FROM condition
UNION ALL
SELECT 'keepalive_guard_worker_up', 'gauge', 'Whether the worker is running.',
	'{}', coalesce(worker, false)::integer
FROM condition
UNION ALL
SELECT 'keepalive_guard_enabled', 'gauge', 'Whether policies are applied (keepalive_guard.enabled).',
	'{}', coalesce(enabled, false)::integer
FROM condition
UNION ALL
SELECT 'keepalive_guard_policies', 'gauge', 'Policies in force.',
	'{}', coalesce(in_force, 0)
FROM condition
UNION ALL
SELECT 'keepalive_guard_invalid_policies', 'gauge', 'Policies that are not in force because a value is invalid.',
	'{}', coalesce(skipped, 0)
FROM condition
UNION ALL
SELECT 'keepalive_guard_policies_up_to_date', 'gauge',
	'Whether the table of policies could be read, and its last change has reached the sessions.',
	'{}', coalesce(up_to_date AND policies = 'compiled', false)::integer
FROM condition
UNION ALL
SELECT 'keepalive_guard_policies_changed_timestamp_seconds', 'gauge',
	'When the policies in force changed last, or were first read after the server was started; 0: not yet.',
	'{}', coalesce(extract(epoch FROM changed_at), 0)
FROM condition
UNION ALL
SELECT 'keepalive_guard_standby_outdated', 'gauge',
	'Whether this is a standby that may have outdated policies: replay is paused or late, or it is not connected.',
	'{}', count(*)
FROM @extschema@.keepalive_check_guard() WHERE subject = 'standby'
UNION ALL
SELECT 'keepalive_guard_check_findings', 'gauge', 'Findings of keepalive_check().',
	jsonb_build_object('severity', shown.severity), count(finding.severity)
FROM (VALUES ('error'), ('warning'), ('info')) AS shown (severity) LEFT JOIN finding USING (severity)
GROUP BY shown.severity

-- Sessions now.
UNION ALL
SELECT 'keepalive_guard_health_sessions', 'gauge',
	'Sessions by transport and state of their connection; health is empty for a Unix socket, or if not known.',
	jsonb_build_object('transport', shown.transport, 'health', shown.health), count(session.transport)
FROM (VALUES ('tcp', 'alive'), ('tcp', 'probing'), ('tcp', 'retransmitting'), ('tcp', 'zero_window'),
		('tcp', 'closed_by_peer'), ('tcp', 'dead'), ('tcp', ''), ('unix', '')) AS shown (transport, health)
	LEFT JOIN session USING (transport, health)
GROUP BY shown.transport, shown.health
UNION ALL
SELECT 'keepalive_guard_policy_sessions', 'gauge',
	'The same by policy: a session counts under each of its policies, one without any under the empty name.',
	jsonb_build_object('policy', coalesce(policy, ''), 'transport', transport, 'health', health), count(*)
FROM session LEFT JOIN LATERAL unnest(policies) AS policy ON true
GROUP BY policy, transport, health
UNION ALL
SELECT 'keepalive_guard_policy_state_sessions', 'gauge',
	'Sessions by transport and by policy_state; none: without any policy.',
	jsonb_build_object('transport', shown.transport, 'state', state), count(session.transport)
FROM (VALUES ('tcp'), ('unix')) AS shown (transport)
	CROSS JOIN (VALUES ('applied'), ('overridden'), ('pending'), ('failed'), ('none')) AS states (state)
	LEFT JOIN session ON session.transport = shown.transport AND policy_state = state
GROUP BY shown.transport, state
UNION ALL
SELECT 'keepalive_guard_longest_silence_seconds', 'gauge',
	'The longest time since anything was received from the client of a session.',
	'{}', coalesce(extract(epoch FROM max(silent_for)), 0)
FROM session
UNION ALL
SELECT 'keepalive_guard_detection_worst_seconds', 'gauge',
	'The longest time in which a dead client is found, of sessions with clients on other hosts; without those that have no limit.',
	jsonb_build_object('state', state),
	coalesce(extract(epoch FROM max(CASE state WHEN 'idle' THEN detects_idle ELSE detects_busy END)), 0)
FROM (VALUES ('idle'), ('busy')) AS states (state) LEFT JOIN session ON promised
GROUP BY state
UNION ALL
SELECT 'keepalive_guard_detection_unlimited_sessions', 'gauge',
	'Sessions with clients on other hosts whose dead client may never be found.',
	jsonb_build_object('state', state),
	count(*) FILTER (WHERE promised AND CASE state WHEN 'idle' THEN detects_idle ELSE detects_busy END IS NULL)
FROM (VALUES ('idle'), ('busy')) AS states (state) LEFT JOIN session ON promised
GROUP BY state
UNION ALL
SELECT 'keepalive_guard_rtt_seconds_bucket', 'histogram', 'Round-trip times of the current sessions.',
	jsonb_build_object('le', le), sessions
FROM bucket
UNION ALL
SELECT 'keepalive_guard_rtt_seconds_count', 'histogram', 'Round-trip times of the current sessions.',
	'{}', count(rtt)
FROM session
UNION ALL
SELECT 'keepalive_guard_rtt_seconds_sum', 'histogram', 'Round-trip times of the current sessions.',
	'{}', coalesce(sum(rtt), 0)
FROM session

-- Dead clients that block others.
UNION ALL
SELECT 'keepalive_guard_blockers', 'gauge', 'Sessions whose client is not alive and for whose locks others wait.',
	'{}', count(*) FILTER (WHERE waiting > 0)
FROM blocker
UNION ALL
SELECT 'keepalive_guard_blocked_sessions', 'gauge',
	'Sessions that wait for locks of such sessions, directly or indirectly; once for each of these.',
	'{}', coalesce(sum(waiting), 0)
FROM blocker
UNION ALL
SELECT 'keepalive_guard_longest_blocked_seconds', 'gauge', 'How long the first of these has been waiting.',
	'{}', coalesce(extract(epoch FROM max(oldest_wait)), 0)
FROM blocker
UNION ALL
SELECT 'keepalive_guard_xmin_holders', 'gauge',
	'Sessions whose client is not alive and that prevent vacuum from removing rows.',
	'{}', count(*) FILTER (WHERE holds_xmin)
FROM blocker

-- Connections that wait to be accepted.
UNION ALL
SELECT 'keepalive_guard_accept_queue_connections', 'gauge',
	'Connections that wait to be accepted by the postmaster, on all listeners.',
	'{}', coalesce(sum(accept_queue), 0)
FROM listener
UNION ALL
SELECT 'keepalive_guard_accept_queue_use_ratio', 'gauge',
	'The accept queue of the listener that is most full, as a part of its limit.',
	'{}', coalesce(max(accept_queue::double precision / accept_queue_limit), 0)
FROM listener

-- Counters.
UNION ALL
SELECT 'keepalive_guard_connections_ended_total', 'counter', 'Ended connections by cause; lost: without any word of client or server.',
	jsonb_build_object('cause', cause, 'lost', lost::text), connections
FROM @extschema@.keepalive_ended() WHERE (SELECT preloaded FROM condition)
UNION ALL
SELECT 'keepalive_guard_policy_connections_total', 'counter',
	'Sessions that there are and were, under each of their policies.',
	jsonb_build_object('policy', coalesce(policy, '')), sessions_total
FROM statistics
UNION ALL
SELECT 'keepalive_guard_policy_lost_connections_total', 'counter',
	'Lost connections by cause, under each of their policies, if there were any.',
	jsonb_build_object('policy', coalesce(policy, ''), 'cause', cause), lost
FROM statistics
	CROSS JOIN LATERAL (VALUES ('client_vanished', client_vanished), ('reset', reset),
		('keepalive_timeout', keepalive_timeout), ('user_timeout', user_timeout),
		('retransmit_timeout', retransmit_timeout), ('unreachable', unreachable), ('dead_after', dead_after),
		('stall_timeout', stall_timeout), ('unknown', unknown)) AS ended (cause, lost)
WHERE lost > 0
UNION ALL
SELECT 'keepalive_guard_policy_would_end_total', 'counter',
	'What dead_after and stall_timeout of a policy with log_only would have ended, if there was any.',
	jsonb_build_object('policy', coalesce(policy, '')), would_end
FROM statistics WHERE would_end > 0;
COMMENT ON VIEW @extschema@.keepalive_metrics IS
	'what monitoring systems need, as Prometheus has it: base units, no process IDs and no addresses; for members of pg_monitor';
COMMENT ON COLUMN @extschema@.keepalive_metrics.name IS 'name of the metric';
COMMENT ON COLUMN @extschema@.keepalive_metrics.type IS 'gauge, counter or histogram';
COMMENT ON COLUMN @extschema@.keepalive_metrics.help IS 'what it means';
COMMENT ON COLUMN @extschema@.keepalive_metrics.labels IS 'labels and their values, all of them strings; an empty string is the same as no label';
COMMENT ON COLUMN @extschema@.keepalive_metrics.value IS 'value, in seconds, connections or sessions, or 0 and 1 for false and true';
GRANT SELECT ON @extschema@.keepalive_metrics TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_openmetrics() RETURNS text
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED
BEGIN ATOMIC
WITH sample AS MATERIALIZED (
	SELECT *, CASE type
			WHEN 'counter' THEN regexp_replace(name, '_total$', '')
			WHEN 'histogram' THEN regexp_replace(name, '_(bucket|count|sum)$', '')
			ELSE name END AS family
	FROM @extschema@.keepalive_metrics
),
family AS (
	SELECT family, min(type) AS type, min(help) AS help,
		string_agg(format('%s%s %s', name, '{' || label.list || '}',
				CASE value WHEN 'Infinity' THEN '+Inf' ELSE value::text END), E'\n'
			ORDER BY name, (labels ->> 'le')::double precision, label.list) AS samples
	FROM sample
		CROSS JOIN LATERAL (
			SELECT string_agg(format('%s="%s"', key,
				replace(replace(replace(l.value, '\', '\\'), '"', '\"'), E'\n', '\n')), ',' ORDER BY key) AS list
			FROM jsonb_each_text(labels) AS l) AS label
	GROUP BY family
)
SELECT string_agg(concat_ws(E'\n',
		format('# HELP %s %s', family, help),
		format('# TYPE %s %s', family, type),
		'# UNIT ' || family || ' ' || substring(family FROM '_(seconds|ratio)$'),
		samples), E'\n' ORDER BY family) || E'\n# EOF'
FROM family;
END;
COMMENT ON FUNCTION @extschema@.keepalive_openmetrics() IS
	'keepalive_metrics in the text format of OpenMetrics, which Prometheus reads';
REVOKE ALL ON FUNCTION @extschema@.keepalive_openmetrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_openmetrics() TO pg_monitor;

CREATE VIEW @extschema@.keepalive_top WITH (security_invoker = true) AS
SELECT
	s.pid,
	CASE WHEN length(s.usename) > 8 THEN left(s.usename, 7) || '~' ELSE s.usename::text END AS usename,
	CASE
		WHEN s.transport = 'unix' THEN '[local]'
		WHEN length(host(s.client_addr)) > 15 THEN '~' || right(host(s.client_addr), 14)
		ELSE host(s.client_addr)
	END AS client,
	CASE a.state
		WHEN 'idle in transaction' THEN 'in txn'
		WHEN 'idle in transaction (aborted)' THEN 'failed'
		ELSE left(a.state, 6)
	END AS state,
	CASE WHEN length(policy.list) > 8 THEN left(policy.list, 7) || '~' ELSE policy.list END AS policy,
	CASE s.health
		WHEN 'retransmitting' THEN 'retrans'
		WHEN 'zero_window' THEN 'zerowin'
		WHEN 'closed_by_peer' THEN 'closed'
		ELSE s.health
	END AS health,
	short.times[1] AS silent,
	CASE WHEN s.gives_up_in IS NULL AND s.silent_for IS NOT NULL AND s.keepalive IS NOT NULL
		THEN 'never' ELSE short.times[2] END AS ends,
	short.times[3] AS xact,
	nullif(b.waiting, 0) AS waits
FROM @extschema@.keepalive_status() AS s
	LEFT JOIN pg_stat_activity AS a USING (pid)
	LEFT JOIN @extschema@.keepalive_blockers AS b USING (pid)
	CROSS JOIN LATERAL (SELECT array_to_string(s.policies, ',') AS list) AS policy
	CROSS JOIN LATERAL (
		SELECT array_agg(CASE
				WHEN seconds < 100 THEN floor(seconds) || 's'
				WHEN seconds < 100 * 60 THEN floor(seconds / 60) || 'm'
				WHEN seconds < 100 * 3600 THEN floor(seconds / 3600) || 'h'
				ELSE floor(seconds / 86400) || 'd'
			END ORDER BY position) AS times
		FROM unnest(ARRAY[s.silent_for, s.gives_up_in, clock_timestamp() - a.xact_start])
			WITH ORDINALITY AS t (duration, position)
			CROSS JOIN LATERAL (SELECT extract(epoch FROM duration) AS seconds) AS n) AS short
ORDER BY
	nullif(b.waiting, 0) DESC NULLS LAST,
	array_position('{dead,closed_by_peer,retransmitting,probing,zero_window,alive}', s.health) NULLS LAST,
	s.silent_for DESC NULLS LAST, s.pid;
COMMENT ON VIEW @extschema@.keepalive_top IS
	'all sessions in at most 100 characters a line, the worst first: those that block others, then by the state of the connection; for \watch';
COMMENT ON COLUMN @extschema@.keepalive_top.pid IS 'backend';
COMMENT ON COLUMN @extschema@.keepalive_top.usename IS 'its role, cut off if it is longer than 8 characters';
COMMENT ON COLUMN @extschema@.keepalive_top.client IS 'address of the client, the last 14 characters if it is longer than 15, or [local]';
COMMENT ON COLUMN @extschema@.keepalive_top.state IS 'as in pg_stat_activity, cut off; in txn: idle in transaction, failed: idle in transaction (aborted)';
COMMENT ON COLUMN @extschema@.keepalive_top.policy IS 'policies of the session, cut off if that is longer than 8 characters';
COMMENT ON COLUMN @extschema@.keepalive_top.health IS 'as in keepalive_status(); retrans: retransmitting, zerowin: zero_window, closed: closed_by_peer';
COMMENT ON COLUMN @extschema@.keepalive_top.silent IS 'since when nothing has been received from the client';
COMMENT ON COLUMN @extschema@.keepalive_top.ends IS 'how long until the connection is given up if the client stays silent';
COMMENT ON COLUMN @extschema@.keepalive_top.xact IS 'how long ago the transaction began';
COMMENT ON COLUMN @extschema@.keepalive_top.waits IS 'number of sessions that wait for its locks, as in keepalive_blockers';
GRANT SELECT ON @extschema@.keepalive_top TO PUBLIC;

--
-- The report
--

-- What clients or other users have named.  The report shows their text only through this
-- function, and never in an attribute.
CREATE FUNCTION @extschema@.keepalive_report_text(name text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN '<bdi>' || regexp_replace(
	replace(replace(replace(replace(replace(name, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;'),
	-- What is no character of XML, or would change the order of those around it.
	'[\u0001-\u0008\u000B\u000C\u000E-\u001F\u007F\u202A-\u202E\u2066-\u2069\uFFFE\uFFFF]', '&#65533;', 'g') || '</bdi>';
COMMENT ON FUNCTION @extschema@.keepalive_report_text(text) IS
	'part of keepalive_report(): a name as text of an HTML page';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_text(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_text(text) TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_time(duration interval) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
SELECT CASE
	WHEN s < 0.9995 THEN round(1000 * s) || ' ms'
	WHEN s < 9.95 THEN trim_scale(round(s, 1)) || ' s'
	WHEN s < 59.5 THEN round(s) || ' s'
	WHEN s < 3599.5 THEN concat_ws(' ', div(round(s), 60) || ' min', nullif(mod(round(s), 60), 0) || ' s')
	WHEN s < 86370 THEN concat_ws(' ', div(round(s / 60), 60) || ' h', nullif(mod(round(s / 60), 60), 0) || ' min')
	ELSE concat_ws(' ', div(round(s / 3600), 24) || ' d', nullif(mod(round(s / 3600), 24), 0) || ' h') END
FROM (VALUES (greatest(extract(epoch FROM duration), 0))) AS seconds (s);
END;
COMMENT ON FUNCTION @extschema@.keepalive_report_time(interval) IS
	'part of keepalive_report(): a duration, such as 1 min 41 s';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_time(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_time(interval) TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_milliseconds(milliseconds double precision) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN CASE
	WHEN milliseconds < 999.5 THEN trim_scale(round(milliseconds::numeric,
		CASE WHEN milliseconds < 1 THEN 2 WHEN milliseconds < 10 THEN 1 ELSE 0 END)) || ' ms'
	ELSE @extschema@.keepalive_report_time(milliseconds * interval '1 ms') END;
COMMENT ON FUNCTION @extschema@.keepalive_report_milliseconds(double precision) IS
	'part of keepalive_report(): a round-trip time';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_milliseconds(double precision) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_milliseconds(double precision) TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_count(number bigint, one text, many text) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN to_char(number, 'FM999,999,999,999,999') || ' ' || CASE number WHEN 1 THEN one ELSE many END;
COMMENT ON FUNCTION @extschema@.keepalive_report_count(bigint, text, text) IS
	'part of keepalive_report(): a number with its noun';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_count(bigint, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_count(bigint, text, text) TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_session(
	pid integer,
	application_name text,
	usename text,
	datname text,
	client_addr inet,
	client_port integer) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
RETURN format('<b>%s</b> <small>%s</small>',
	coalesce(@extschema@.keepalive_report_text(nullif(application_name, '')), 'unnamed'),
	concat_ws(', ',
		concat_ws(' on ', @extschema@.keepalive_report_text(usename), @extschema@.keepalive_report_text(datname)),
		CASE family(client_addr) WHEN 4 THEN host(client_addr) || ':' || client_port
			WHEN 6 THEN '[' || host(client_addr) || ']:' || client_port END,
		'pid ' || pid));
COMMENT ON FUNCTION @extschema@.keepalive_report_session(integer, text, text, text, inet, integer) IS
	'part of keepalive_report(): whose session it is';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_session(integer, text, text, text, inet, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_session(integer, text, text, text, inet, integer) TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_names(names text[]) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
SELECT '<span>' || coalesce(string_agg(@extschema@.keepalive_report_text(name), ', ' ORDER BY position), '<i>none</i>') || '</span>'
FROM unnest(names) WITH ORDINALITY AS list (name, position);
END;
COMMENT ON FUNCTION @extschema@.keepalive_report_names(text[]) IS
	'part of keepalive_report(): the policies of a session';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_names(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_names(text[]) TO pg_monitor;

-- A row of a bar chart; the title is HTML.
CREATE FUNCTION @extschema@.keepalive_report_bar(title text, number bigint, most bigint, class text) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN format('<tr><th scope="row">%s</th><td class="bar"><svg aria-hidden="true">'
		'<rect class="track" width="100%%" height="100%%"/><rect class="%s" width="%s%%" height="100%%"/></svg></td>'
		'<td class="num">%s</td></tr>',
	title, class, CASE WHEN number > 0 THEN greatest(round(100.0 * number / most, 1), 0.6) ELSE 0 END,
	to_char(number, 'FM999,999,999,999,999'));
COMMENT ON FUNCTION @extschema@.keepalive_report_bar(text, bigint, bigint, text) IS
	'part of keepalive_report(): a row of a bar chart';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_bar(text, bigint, bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_bar(text, bigint, bigint, text) TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_health(
	OUT html text,
	OUT sessions bigint,
	OUT silent bigint,
	OUT never_given_up bigint,
	OUT longest interval,
	OUT without_policy bigint)
	RETURNS record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED
BEGIN ATOMIC
WITH session AS MATERIALIZED (
	SELECT *, CASE transport WHEN 'unix' THEN 'unix' ELSE coalesce(health, 'unknown') END AS state
	FROM @extschema@.keepalive_status()
),
-- The order is that of the urgency.
states (position, state, class, is_silent, title) AS (VALUES
	(1, 'dead', 'bad', true, 'Given up by the kernel <small>the session has not noticed it yet</small>'),
	(2, 'closed_by_peer', 'bad', true, 'Closed by the client <small>the session has not noticed it yet</small>'),
	(3, 'probing', 'bad', true, 'Probes unanswered <small>idle, and the client does not answer</small>'),
	(4, 'retransmitting', 'bad', true, 'Data unconfirmed <small>sent again, and the client does not answer</small>'),
	(5, 'zero_window', 'warn', false, 'Answers, but reads nothing'),
	(6, 'alive', 'good', false, 'Alive'),
	(7, 'unix', 'plain', false, 'On this host <small>Unix socket</small>'),
	(8, 'unknown', 'plain', false, 'Not known')
),
ill AS (
	SELECT *, row_number() OVER (ORDER BY position, gives_up_in DESC NULLS FIRST, silent_for DESC, pid) AS number
	FROM session JOIN states USING (state)
	WHERE is_silent OR state = 'zero_window'
)
SELECT
	'<table class="chart"><caption>Sessions by the state of their client</caption><tbody>' || (
		SELECT string_agg(@extschema@.keepalive_report_bar(title, number, total, class), '' ORDER BY position)
		FROM (
			SELECT position, title, class, count(pid) AS number, greatest(sum(count(pid)) OVER (), 1)::bigint AS total
			FROM states LEFT JOIN session USING (state)
			GROUP BY position, title, class, state
			HAVING count(pid) > 0 OR state = 'alive') AS counted)
		|| '</tbody></table>' || coalesce((
		SELECT '<table class="list"><caption>Clients that do not answer or do not read, the most urgent first</caption><thead><tr>'
			'<th scope="col">Client</th><th scope="col">State</th><th scope="col" class="num">Silent for</th>'
			'<th scope="col" class="num">Given up within</th><th scope="col">Policies</th></tr></thead><tbody>'
			|| string_agg(format('<tr><td>%s</td><td data-label="State" class="word">%s</td><td data-label="Silent for" class="num">%s</td>'
					'<td data-label="Given up within" class="num">%s</td><td data-label="Policies">%s</td></tr>',
				@extschema@.keepalive_report_session(pid, application_name, usename, datname, client_addr, client_port),
				state,
				coalesce(@extschema@.keepalive_report_time(silent_for), 'not known'),
				coalesce(@extschema@.keepalive_report_time(gives_up_in), '<strong>never</strong>'),
				@extschema@.keepalive_report_names(policies)), '' ORDER BY number) FILTER (WHERE number <= 20)
			|| '</tbody></table>' || CASE WHEN count(*) > 20
				THEN format('<p class="note">%s more: <code>SELECT * FROM keepalive_status() WHERE health &lt;&gt; ''alive''</code></p>', count(*) - 20)
				ELSE '' END
		FROM ill
		HAVING count(*) > 0),
		CASE WHEN bool_or(state = 'unknown') THEN '' ELSE '<p class="empty">Every client answers and reads.</p>' END),
	count(*),
	count(*) FILTER (WHERE is_silent),
	count(*) FILTER (WHERE is_silent AND gives_up_in IS NULL),
	max(gives_up_in) FILTER (WHERE is_silent),
	count(*) FILTER (WHERE policies IS NULL)
FROM session JOIN states USING (state);
END;
COMMENT ON FUNCTION @extschema@.keepalive_report_health() IS
	'part of keepalive_report(): the state of all connections';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_health() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_health() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_blockers(
	OUT html text,
	OUT blocked bigint)
	RETURNS record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED
BEGIN ATOMIC
WITH RECURSIVE blocker AS MATERIALIZED (
	SELECT * FROM @extschema@.keepalive_blockers
),
session AS MATERIALIZED (
	SELECT pid, usename, datname, application_name, client_addr, client_port
	FROM @extschema@.keepalive_status()
	WHERE EXISTS (SELECT FROM blocker)
),
-- As in keepalive_blockers.
lock_wait AS MATERIALIZED (
	SELECT coalesce(a.leader_pid, l.pid) AS waiter, blocking.pid AS blocker, l.waitstart, a.backend_type
	FROM pg_locks AS l
		LEFT JOIN pg_stat_activity AS a USING (pid)
		CROSS JOIN LATERAL unnest(pg_blocking_pids(l.pid)) AS blocking (pid)
	WHERE l.granted::integer = 0 AND EXISTS (SELECT FROM blocker WHERE waiting > 0)
),
held_up (pid, waiter) AS (
	SELECT blocker.pid, lock_wait.waiter
	FROM blocker JOIN lock_wait ON lock_wait.blocker = blocker.pid
	UNION
	SELECT held_up.pid, lock_wait.waiter
	FROM held_up JOIN lock_wait ON lock_wait.blocker = held_up.waiter
),
-- Each waiting session once for each blocker, the longest wait first.
waiting AS (
	SELECT *, row_number() OVER (PARTITION BY pid ORDER BY waitstart, waiter) AS number
	FROM (
		SELECT held_up.pid, waiter, min(waitstart) AS waitstart, min(lock_wait.backend_type) AS backend_type,
			CASE WHEN bool_or(lock_wait.blocker = held_up.pid) THEN 'directly'
				ELSE 'behind pid ' || min(lock_wait.blocker) END AS how
		FROM held_up JOIN lock_wait USING (waiter)
		WHERE waiter <> held_up.pid
		GROUP BY held_up.pid, waiter) AS once
),
waiters AS (
	SELECT waiting.pid, format('<table class="list"><caption>%s for it</caption><thead><tr><th scope="col">Waiting session</th>'
			'<th scope="col">How</th><th scope="col" class="num">For</th></tr></thead><tbody>%s</tbody></table>%s',
		@extschema@.keepalive_report_count(count(*), 'session waits', 'sessions wait'),
		string_agg(format('<tr><td>%s</td><td data-label="How">%s</td><td data-label="For" class="num">%s</td></tr>',
			CASE WHEN session.pid IS NULL THEN format('<b>%s</b> <small>pid %s</small>', coalesce(@extschema@.keepalive_report_text(backend_type), 'unnamed'), waiter)
				ELSE @extschema@.keepalive_report_session(session.pid, application_name, usename, datname, client_addr, client_port) END,
			how, coalesce(@extschema@.keepalive_report_time(clock_timestamp() - waitstart), 'not known')), '' ORDER BY number)
			FILTER (WHERE number <= 10),
		CASE WHEN count(*) > 10 THEN format('<p class="note">%s more.</p>', count(*) - 10) ELSE '' END) AS html
	FROM waiting LEFT JOIN session ON session.pid = waiter
	GROUP BY waiting.pid
)
SELECT coalesce(
	string_agg(format('<article><h3>%s</h3><p>%s.</p>%s</article>',
		@extschema@.keepalive_report_session(blocker.pid, blocker.application_name, blocker.usename, blocker.datname, blocker.client_addr, session.client_port),
		concat_ws('. ',
			'Its client has been silent for ' || @extschema@.keepalive_report_time(silent_for) || ' (' || health || ')',
			CASE WHEN gives_up_in IS NULL THEN '<strong>It is never given up</strong>'
				ELSE 'It is given up within ' || @extschema@.keepalive_report_time(gives_up_in) END,
			'Its transaction has been open for ' || @extschema@.keepalive_report_time(transaction_age),
			CASE WHEN holds_xmin THEN 'It keeps vacuum from removing old rows' END),
		coalesce(waiters.html, '')), '' ORDER BY waiting DESC, oldest_wait DESC NULLS LAST, blocker.pid),
	'<p class="empty">No session waits for one whose client does not answer or does not read.</p>'),
	(SELECT count(DISTINCT waiter) FROM waiting)
FROM blocker LEFT JOIN session USING (pid) LEFT JOIN waiters USING (pid);
END;
COMMENT ON FUNCTION @extschema@.keepalive_report_blockers() IS
	'part of keepalive_report(): the contents of keepalive_blockers, and who waits';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_blockers() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_blockers() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_lost(
	OUT html text,
	OUT lost_last_day bigint)
	RETURNS record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED
BEGIN ATOMIC
WITH causes (cause, title) AS (VALUES
	('client_vanished', 'Closed without notice <small>client_vanished: the client was killed, or dropped the connection</small>'),
	('reset', 'Reset <small>reset: by the client''s host after a restart, or by a device on the path</small>'),
	('keepalive_timeout', 'Probes unanswered <small>keepalive_timeout: the session was idle</small>'),
	('user_timeout', 'Data unconfirmed <small>user_timeout: for tcp_user_timeout</small>'),
	('retransmit_timeout', 'Data unconfirmed <small>retransmit_timeout: for as long as the kernel allows</small>'),
	('unreachable', 'Unreachable <small>unreachable: reported by the network</small>'),
	('dead_after', 'Ended by the guard <small>dead_after: the client did not answer</small>'),
	('stall_timeout', 'Ended by the guard <small>stall_timeout: the client read nothing</small>'),
	('unknown', 'Not known <small>unknown: the evidence is not sufficient</small>')
),
lost AS MATERIALIZED (
	SELECT *, row_number() OVER (ORDER BY ended_at DESC, pid) AS number
	FROM @extschema@.keepalive_events() JOIN causes USING (cause)
),
-- The shortest of these for which there are at most 60 columns.
scale AS (
	SELECT step, date_bin(step, oldest, date_trunc('day', clock_timestamp())) AS start, clock_timestamp() AS stop
	FROM (SELECT min(ended_at) AS oldest FROM lost) AS ended
		CROSS JOIN unnest('{1s,2s,5s,10s,30s,1min,2min,5min,10min,30min,1h,2h,6h,12h,1d,7d,30d,365d}'::interval[]) AS step
	WHERE (clock_timestamp() - oldest) / 59 <= step OR step = interval '365 d'
	ORDER BY step
	LIMIT 1
),
width AS MATERIALIZED (
	SELECT *, extract(epoch FROM step) AS seconds, floor(extract(epoch FROM stop - start) / extract(epoch FROM step)) + 1 AS columns
	FROM scale
),
counted AS MATERIALIZED (
	SELECT cause, floor(extract(epoch FROM ended_at - start) / seconds) AS position, count(*) AS number, max(count(*)) OVER () AS most
	FROM lost CROSS JOIN width
	GROUP BY 1, 2
),
strips AS (
	SELECT title, cause, sum(number) AS number, string_agg(format('<rect x="%s%%" y="%s%%" width="%s%%" height="%s%%"/>',
			round(100 * position / columns, 2), 100 - height, round(82 / columns, 2), height), '' ORDER BY position) AS columns
	FROM counted CROSS JOIN width JOIN causes USING (cause)
		CROSS JOIN LATERAL (VALUES (greatest(round(100.0 * number / most), 8))) AS scaled (height)
	GROUP BY title, cause
)
SELECT
	CASE WHEN count(*) = 0 THEN '<p class="empty">No lost connection is recorded.</p>'
	ELSE (
		SELECT format('<table class="chart strips"><caption>%s since %s, by cause; a column is %s, the highest has %s</caption><tbody>%s</tbody>'
				'<tfoot><tr><td></td><td class="ends"><span>%s</span> <span>%s</span></td><td></td></tr></tfoot></table>',
			@extschema@.keepalive_report_count((SELECT count(*) FROM lost), 'lost connection', 'lost connections'),
			to_char(start, 'YYYY-MM-DD HH24:MI:SS'),
			@extschema@.keepalive_report_time(step),
			(SELECT min(most) FROM counted),
			(SELECT string_agg(format('<tr><th scope="row">%s</th><td><svg class="strip" aria-hidden="true">'
					'<rect class="ground" y="100%%" width="100%%" height="1"/>%s</svg></td><td class="num">%s</td></tr>',
				title, columns, to_char(number, 'FM999,999,999')), '' ORDER BY number DESC, cause) FROM strips),
			to_char(start, CASE WHEN step < interval '10 s' THEN 'HH24:MI:SS' WHEN step < interval '30 min' THEN 'HH24:MI' ELSE 'DD Mon HH24:MI' END),
			'now')
		FROM width)
		|| '<table class="list"><caption>The latest</caption><thead><tr><th scope="col">When</th><th scope="col">Client</th>'
		'<th scope="col">Cause</th><th scope="col" class="num">Silent for</th><th scope="col" class="num">Transaction open for</th>'
		'<th scope="col">Policies</th></tr></thead><tbody>'
		|| string_agg(format('<tr><td class="when">%s</td><td>%s</td><td data-label="Cause" class="word">%s</td>'
				'<td data-label="Silent for" class="num">%s</td><td data-label="Transaction open for" class="num">%s</td>'
				'<td data-label="Policies">%s</td></tr>',
			to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'),
			@extschema@.keepalive_report_session(pid, application_name, usename, datname, client_addr, client_port),
			cause,
			coalesce(@extschema@.keepalive_report_time(silent_for), '&#8211;'),
			coalesce(@extschema@.keepalive_report_time(transaction_age), '&#8211;'),
			@extschema@.keepalive_report_names(policies)), '' ORDER BY number) FILTER (WHERE number <= 15)
		|| '</tbody></table>'
		|| CASE WHEN count(*) > 15 THEN format('<p class="note">%s more: <code>SELECT * FROM keepalive_events()</code></p>',
			to_char(count(*) - 15, 'FM999,999,999')) ELSE '' END
	END,
	count(*) FILTER (WHERE ended_at > clock_timestamp() - interval '1 day')
FROM lost;
END;
COMMENT ON FUNCTION @extschema@.keepalive_report_lost() IS
	'part of keepalive_report(): lost connections over time by cause, and the latest of them';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_lost() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_lost() TO pg_monitor;

-- Where a detection time is in the picture of the policies, in percent of its width: the
-- logarithm from 1 s to 1 day, then what is never found.
CREATE FUNCTION @extschema@.keepalive_report_position(duration interval) RETURNS numeric
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN duration IS NULL THEN 94
	ELSE round(3 + 77 * ln(least(greatest(extract(epoch FROM duration), 1), 86400)) / ln(86400.0), 1) END;
COMMENT ON FUNCTION @extschema@.keepalive_report_position(interval) IS
	'part of keepalive_report(): the position of a detection time in the picture of the policies';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_position(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_position(interval) TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_policies() RETURNS text
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED
BEGIN ATOMIC
WITH counted AS MATERIALIZED (
	SELECT policy, sessions, client_vanished + reset + keepalive_timeout + user_timeout + retransmit_timeout
		+ unreachable + dead_after + stall_timeout + unknown AS lost, stats_reset
	FROM @extschema@.keepalive_stats()
),
promised AS MATERIALIZED (
	SELECT *,
		@extschema@.keepalive_report_position(detects_idle) AS idle,
		@extschema@.keepalive_report_position(detects_busy) AS busy
	FROM @extschema@.keepalive_policy_problems() WITH ORDINALITY
),
ticks (tick, label) AS (VALUES
	(interval '1 s', '1 s'), ('10 s', '10 s'), ('1 min', '1 min'), ('10 min', '10 min'), ('1 h', '1 h'), ('1 d', '1 day'), (NULL, 'never')
),
grid AS MATERIALIZED (
	SELECT
		string_agg(format('<text x="%s%%" y="12">%s</text>', position, label), '' ORDER BY position) AS labels,
		string_agg(format('<rect class="grid" x="%s%%" width="1" height="100%%"/>', position), '' ORDER BY position) AS lines
	FROM ticks CROSS JOIN LATERAL (VALUES (@extschema@.keepalive_report_position(tick))) AS at (position)
)
SELECT '<p class="legend"><svg aria-hidden="true"><circle class="idle" cx="7" cy="7" r="6"/></svg> idle sessions '
	'<svg aria-hidden="true"><rect class="busy" x="3" y="3" width="8" height="8"/></svg> sessions that execute a query '
	'<svg aria-hidden="true"><rect class="late" width="14" height="14"/></svg> later than one hour</p>'
	'<table class="list promises"><caption>The longest time until a lost client is found, on a logarithmic scale</caption><thead><tr>'
	'<th scope="col">Policy, in match order</th><td class="axis"><svg aria-hidden="true">' || min(labels) || '</svg></td>'
	'<th scope="col" class="num">Idle</th><th scope="col" class="num">Busy</th>'
	'<th scope="col" class="num">Sessions</th><th scope="col" class="num">Lost</th></tr></thead><tbody>'
	|| string_agg(format('<tr><th scope="row">%s</th><td class="plot"><svg aria-hidden="true">'
			'<rect class="late" x="%s%%" width="%s%%" height="100%%"/>%s%s</svg></td>'
			'<td data-label="Idle" class="num">%s</td><td data-label="Busy" class="num">%s</td>'
			'<td data-label="Sessions" class="num">%s</td><td data-label="Lost" class="num">%s</td></tr>',
		CASE WHEN promised.policy IS NULL THEN '<i>no policy</i> <small>PostgreSQL without policies</small>'
			ELSE @extschema@.keepalive_report_text(promised.policy) END
			|| CASE WHEN problem IS NULL THEN '' ELSE ' <small>has no effect: see the findings</small>' END
			|| CASE WHEN replication_only THEN ' <small>replication</small>' ELSE '' END,
		@extschema@.keepalive_report_position('1 h'), 100 - @extschema@.keepalive_report_position('1 h'),
		lines,
		CASE WHEN problem IS NULL THEN format('<rect class="range" x="%s%%" y="11" width="%s%%" height="2"/>'
				'<circle class="idle" cx="%s%%" cy="12" r="6"/><svg x="%s%%"><rect class="busy" x="-4" y="8" width="8" height="8"/></svg>',
			least(idle, busy), abs(idle - busy), idle, busy) ELSE '' END,
		CASE WHEN problem IS NULL THEN coalesce(@extschema@.keepalive_report_time(detects_idle), '<strong>never</strong>') ELSE '&#8211;' END,
		CASE WHEN problem IS NULL THEN coalesce(@extschema@.keepalive_report_time(detects_busy), '<strong>never</strong>') ELSE '&#8211;' END,
		to_char(coalesce(sessions, 0), 'FM999,999,999'),
		to_char(coalesce(lost, 0), 'FM999,999,999')), '' ORDER BY ordinality) FILTER (WHERE ordinality <= 50 OR promised.policy IS NULL)
	|| format('</tbody></table><p class="note">%s A session counts under each of its policies. Lost: since %s.</p>',
		CASE WHEN count(*) > 51 THEN format('%s more policies: <code>SELECT * FROM keepalive_policy</code>.', count(*) - 51) END,
		to_char(max(stats_reset), 'YYYY-MM-DD HH24:MI:SS'))
FROM promised CROSS JOIN grid LEFT JOIN counted ON counted.policy IS NOT DISTINCT FROM promised.policy;
END;
COMMENT ON FUNCTION @extschema@.keepalive_report_policies() IS
	'part of keepalive_report(): the detection times that each policy promises';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_policies() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_policies() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_round_trips() RETURNS text
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED
BEGIN ATOMIC
WITH measured AS MATERIALIZED (
	SELECT rtt_ms, network(set_masklen(client_addr, CASE family(client_addr) WHEN 4 THEN 24 ELSE 64 END)) AS network
	FROM @extschema@.keepalive_status()
	WHERE rtt_ms IS NOT NULL
),
classes (position, low, high, title) AS (VALUES
	(1, 0, 0.1, 'below 0.1 ms'), (2, 0.1, 0.2, '0.1 to 0.2 ms'), (3, 0.2, 0.5, '0.2 to 0.5 ms'), (4, 0.5, 1, '0.5 to 1 ms'),
	(5, 1, 2, '1 to 2 ms'), (6, 2, 5, '2 to 5 ms'), (7, 5, 10, '5 to 10 ms'), (8, 10, 20, '10 to 20 ms'), (9, 20, 50, '20 to 50 ms'),
	(10, 50, 100, '50 to 100 ms'), (11, 100, 200, '100 to 200 ms'), (12, 200, 500, '200 to 500 ms'),
	(13, 500, 1000, '0.5 to 1 s'), (14, 1000, 'infinity'::float8, '1 s or more')
),
counted AS (
	SELECT position, title, count(rtt_ms) AS number, max(count(rtt_ms)) OVER () AS most,
		min(CASE WHEN count(rtt_ms) > 0 THEN position END) OVER () AS first,
		max(CASE WHEN count(rtt_ms) > 0 THEN position END) OVER () AS last
	FROM classes LEFT JOIN measured ON rtt_ms >= low AND rtt_ms < high
	GROUP BY position, title
),
networks AS (
	SELECT network, count(*) AS sessions, percentile_cont(0.5) WITHIN GROUP (ORDER BY rtt_ms) AS median, max(rtt_ms) AS slowest
	FROM measured GROUP BY network
	ORDER BY median DESC, network LIMIT 8
)
SELECT CASE WHEN count(*) = 0 THEN '<p class="empty">No client is connected over TCP.</p>'
	ELSE format('<p>Half of the clients answer within <strong>%s</strong>, nineteen of twenty within <strong>%s</strong>, the slowest needs <strong>%s</strong>.</p>'
			'<table class="chart"><caption>Sessions by smoothed round-trip time</caption><tbody>%s</tbody></table>'
			'<table class="list"><caption>Client networks, the slowest first</caption><thead><tr><th scope="col">Network</th>'
			'<th scope="col" class="num">Sessions</th><th scope="col" class="num">Median</th><th scope="col" class="num">Slowest</th></tr></thead><tbody>%s</tbody></table>',
		@extschema@.keepalive_report_milliseconds(percentile_cont(0.5) WITHIN GROUP (ORDER BY rtt_ms)),
		@extschema@.keepalive_report_milliseconds(percentile_cont(0.95) WITHIN GROUP (ORDER BY rtt_ms)),
		@extschema@.keepalive_report_milliseconds(max(rtt_ms)),
		(SELECT string_agg(@extschema@.keepalive_report_bar(title, number, most, 'plain'), '' ORDER BY position)
			FROM counted WHERE position BETWEEN first AND last),
		(SELECT string_agg(format('<tr><th scope="row" class="word">%s</th><td data-label="Sessions" class="num">%s</td>'
				'<td data-label="Median" class="num">%s</td><td data-label="Slowest" class="num">%s</td></tr>',
			network, to_char(sessions, 'FM999,999,999'),
			@extschema@.keepalive_report_milliseconds(median), @extschema@.keepalive_report_milliseconds(slowest)), '' ORDER BY median DESC, network)
			FROM networks))
	END
FROM measured;
END;
COMMENT ON FUNCTION @extschema@.keepalive_report_round_trips() IS
	'part of keepalive_report(): round-trip times of all connections';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_round_trips() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_round_trips() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_paths() RETURNS text
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED
BEGIN ATOMIC
WITH observed AS MATERIALIZED (
	SELECT *, row_number() OVER (ORDER BY idle_timeout, lost DESC, network) AS number
	FROM @extschema@.keepalive_paths_observed
)
SELECT coalesce('<table class="list"><caption>Client networks from which five connections or more are known</caption><thead><tr>'
	'<th scope="col">Network</th><th scope="col">Verdict</th><th scope="col" class="num">Survived</th>'
	'<th scope="col" class="num">Longest idle time</th><th scope="col" class="num">Lost</th>'
	'<th scope="col" class="num">Idle timeout</th><th scope="col" class="num">Probe after</th></tr></thead><tbody>'
	|| string_agg(format('<tr><th scope="row" class="word">%s</th><td data-label="Verdict">%s</td><td data-label="Survived" class="num">%s</td>'
			'<td data-label="Longest idle time" class="num">%s</td><td data-label="Lost" class="num">%s</td>'
			'<td data-label="Idle timeout" class="num">%s</td><td data-label="Probe after" class="num">%s</td></tr>',
		network,
		CASE verdict WHEN 'idle timeout' THEN '<strong>drops idle connections</strong>' ELSE verdict END,
		to_char(survived, 'FM999,999,999'),
		coalesce(@extschema@.keepalive_report_time(longest_survived), '&#8211;'),
		to_char(lost, 'FM999,999,999'),
		coalesce('at most ' || @extschema@.keepalive_report_time(idle_timeout), '&#8211;'),
		coalesce(@extschema@.keepalive_report_time(tcp_keepalives_idle), '&#8211;')), '' ORDER BY number) FILTER (WHERE number <= 20)
	|| '</tbody></table>'
	|| CASE WHEN count(*) > 20 THEN format('<p class="note">%s more: <code>SELECT * FROM keepalive_paths_observed</code></p>', count(*) - 20) ELSE '' END,
	'<p class="empty">Not enough connections have been idle and ended yet: five from one network are needed.</p>')
FROM observed;
END;
COMMENT ON FUNCTION @extschema@.keepalive_report_paths() IS
	'part of keepalive_report(): the contents of keepalive_paths_observed';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_paths() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_paths() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report_findings(
	OUT html text,
	OUT errors bigint,
	OUT warnings bigint)
	RETURNS record
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED
BEGIN ATOMIC
WITH finding AS MATERIALIZED (
	SELECT * FROM @extschema@.keepalive_check() WITH ORDINALITY
)
SELECT coalesce('<ol class="findings">' || string_agg(format('<li><h3><span class="badge %s">%s</span> %s</h3><p>%s</p><pre><code>%s</code></pre></li>',
		CASE severity WHEN 'error' THEN 'bad' WHEN 'warning' THEN 'warn' ELSE 'plain' END,
		severity,
		@extschema@.keepalive_report_text(subject),
		@extschema@.keepalive_report_text(problem),
		@extschema@.keepalive_report_text(hint)), '' ORDER BY ordinality) FILTER (WHERE ordinality <= 50)
	|| '</ol>' || CASE WHEN count(*) > 50 THEN format('<p class="note">%s more: <code>SELECT * FROM keepalive_check()</code></p>', count(*) - 50) ELSE '' END,
	'<p class="empty">keepalive_check() has found no problem.</p>'),
	count(*) FILTER (WHERE severity = 'error'),
	count(*) FILTER (WHERE severity = 'warning')
FROM finding;
END;
COMMENT ON FUNCTION @extschema@.keepalive_report_findings() IS
	'part of keepalive_report(): the findings of keepalive_check() with their commands';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_findings() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_findings() TO pg_monitor;

-- It has neither < nor &, so the page can be parsed as XML too.
CREATE FUNCTION @extschema@.keepalive_report_style() RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '
:root { color-scheme: light dark; --page: #fff; --panel: #f4f6f8; --text: #1b2026; --soft: #57616c; --line: #d6dce2;
	--track: #e8ecf0; --plain: #2763ad; --good: #1d7d4c; --warn: #935a00; --bad: #b4261c; --late: #f8e3e0 }
@media (prefers-color-scheme: dark) {
	:root { --page: #12161b; --panel: #1b2128; --text: #e5e9ee; --soft: #a3adb8; --line: #363f49;
		--track: #28303a; --plain: #74b0f5; --good: #5cc48f; --warn: #eab054; --bad: #ff8f85; --late: #3b2326 } }
* { box-sizing: border-box }
html { background: var(--page); color: var(--text); font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
	-webkit-text-size-adjust: 100%; overflow-wrap: anywhere }
body { max-width: 64rem; margin: 0 auto; padding: 2rem 1rem 3rem }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2 }
h2 { margin: 0 0 .25rem; font-size: 1.25rem; line-height: 1.3 }
h3 { margin: 0; font-size: 1rem }
p { margin: .25rem 0 }
section { margin-top: 2.75rem; padding-top: 1.25rem; border-top: 1px solid var(--line) }
small, caption, .soft, .note, .legend, footer, nav { color: var(--soft); font-size: .8125rem; font-weight: 400 }
small { display: block }
h3 small, li small { display: inline }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1.25rem 0 0; padding: 0; list-style: none }
a { color: var(--plain) }
code, pre { font: .8125rem/1.5 ui-monospace, "DejaVu Sans Mono", "Liberation Mono", Menlo, Consolas, monospace }
pre { margin: .5rem 0 0; padding: .625rem .75rem; white-space: pre-wrap; background: var(--panel); border-radius: .25rem }
.verdict { margin: 1.5rem 0 1rem; padding: .875rem 1.125rem; background: var(--panel); border-left: .3125rem solid var(--good); border-radius: .25rem }
.verdict.bad { border-color: var(--bad) }
.verdict.warn { border-color: var(--warn) }
.verdict strong { display: block; font-size: 1.25rem; line-height: 1.35 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: .75rem; margin: 0 }
.tiles div { display: flex; flex-direction: column; padding: .75rem .875rem; border: 1px solid var(--line); border-radius: .25rem }
.tiles dt { order: 1; color: var(--soft); font-size: .8125rem; line-height: 1.35 }
.tiles dd { margin: 0; font-size: 1.75rem; font-weight: 600; line-height: 1.2; font-variant-numeric: tabular-nums }
.tiles .bad dd { color: var(--bad) }
.tiles .warn dd { color: var(--warn) }
table { width: 100%; margin-top: 1.25rem; border-collapse: collapse; font-size: .875rem }
caption { padding-bottom: .375rem; text-align: left }
th, td { padding: .375rem 1.125rem .375rem 0; text-align: left; vertical-align: top }
th { font-weight: 600 }
td:last-child, th:last-child { padding-right: 0 }
.num { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.when, .word, p strong { white-space: nowrap }
.when { font-variant-numeric: tabular-nums }
.list thead th { color: var(--soft); font-size: .8125rem; font-weight: 400; vertical-align: bottom }
.list tr { border-bottom: 1px solid var(--line) }
.chart th { width: 16rem; font-weight: 400 }
.chart .num { width: 4rem; padding-left: .75rem }
svg { display: block; width: 100%; height: 1rem; overflow: visible }
.chart .bar svg { height: .875rem; margin-top: .25rem }
.track { fill: var(--track) }
.plain { fill: var(--plain) }
.good { fill: var(--good) }
.warn { fill: var(--warn) }
.bad { fill: var(--bad) }
.strips td { padding-top: .5rem }
.strip { height: 2.25rem; fill: var(--plain) }
.ground { fill: var(--line) }
.strips td.ends { display: flex; justify-content: space-between; padding-top: .25rem; color: var(--soft); font-size: .75rem; font-variant-numeric: tabular-nums }
.promises th:first-child { width: 13rem }
.plot svg { height: 1.5rem }
.axis svg { height: 1rem; min-width: 15rem; fill: var(--soft); font-size: .75rem; text-anchor: middle }
.grid { fill: var(--line) }
.late { fill: var(--late) }
.range { fill: var(--soft) }
.idle { fill: var(--plain) }
.busy { fill: var(--warn) }
.legend svg { display: inline-block; width: 14px; height: 14px; margin: 0 .125rem 0 .5rem; vertical-align: -2px }
.legend svg:first-child { margin-left: 0 }
article { margin-top: 1.25rem; padding: .75rem 1rem; border: 1px solid var(--line); border-left: .3125rem solid var(--bad); border-radius: .25rem }
article table { margin-top: .625rem }
article tr:last-child { border-bottom: 0 }
.empty { margin-top: .75rem; padding: .75rem 1rem; background: var(--panel); border-radius: .25rem; color: var(--soft) }
.findings { margin: 1rem 0 0; padding: 0; list-style: none }
.findings li { margin-top: 1.25rem }
.badge { display: inline-block; min-width: 4.25rem; margin-right: .375rem; padding: 0 .5rem; border: 1px solid; border-radius: 1rem; font-size: .75rem; text-align: center }
.badge.bad { color: var(--bad) }
.badge.warn { color: var(--warn) }
.badge.plain { color: var(--plain) }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line) }
@media screen and (max-width: 52rem) {
	.chart tr { display: grid; grid-template-columns: 1fr auto; padding-bottom: .5rem }
	.chart th { width: auto; padding-bottom: 0 }
	.chart .num { width: auto }
	.chart td:nth-child(2) { grid-area: 2 / 1 / 3 / 3; padding: 0 }
	.strips tfoot td { padding: 0 }
	.list, .list tbody, .list tr, .list td, .list th, .list caption { display: block; width: auto }
	.list thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
	.list tr { padding: .5rem 0 }
	.list th, .list td { padding: .125rem 0 }
	.list td[data-label] { display: flex; justify-content: space-between; gap: 1rem; text-align: right }
	.list td[data-label]::before { content: attr(data-label); color: var(--soft); white-space: nowrap }
	.promises thead { position: static; width: auto; height: auto; clip-path: none }
	.promises thead th { display: none }
}
@media print {
	:root { color-scheme: light; --page: #fff; --panel: #f4f6f8; --text: #1b2026; --soft: #57616c; --line: #d6dce2;
		--track: #e8ecf0; --plain: #2763ad; --good: #1d7d4c; --warn: #935a00; --bad: #b4261c; --late: #f8e3e0 }
	html { font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact }
	body { max-width: none; padding: 0 }
	nav { display: none }
	section { margin-top: 1.5rem }
	.tiles { grid-template-columns: repeat(6, 1fr); gap: .375rem }
	th, td { padding-right: .625rem }
	.promises th:first-child { width: 9rem }
	h2, h3, caption { break-after: avoid }
	tr, article, .findings li, .tiles div { break-inside: avoid }
}
';
COMMENT ON FUNCTION @extschema@.keepalive_report_style() IS
	'part of keepalive_report(): its style sheet';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report_style() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report_style() TO pg_monitor;

CREATE FUNCTION @extschema@.keepalive_report() RETURNS text
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED
	-- Compiling the queries would take longer than executing them.
	SET jit = off
BEGIN ATOMIC
WITH part AS MATERIALIZED (
	SELECT health.html AS health, sessions, silent, never_given_up, longest, without_policy,
		blockers.html AS blockers, blocked,
		lost.html AS lost, lost_last_day,
		CASE WHEN preloaded THEN @extschema@.keepalive_report_policies() END AS policies,
		@extschema@.keepalive_report_round_trips() AS round_trips,
		CASE WHEN preloaded THEN @extschema@.keepalive_report_paths() END AS paths,
		findings.html AS findings, errors, warnings,
		preloaded, sockets_unreadable
	FROM @extschema@.keepalive_condition() AS condition
		CROSS JOIN @extschema@.keepalive_report_health() AS health
		CROSS JOIN @extschema@.keepalive_report_blockers() AS blockers
		CROSS JOIN @extschema@.keepalive_report_findings() AS findings
		-- OFFSET keeps it from being called where it would raise an error.
		LEFT JOIN LATERAL (SELECT * FROM @extschema@.keepalive_report_lost() WHERE preloaded OFFSET 0) AS lost ON true
),
verdict AS (
	SELECT
		CASE
			WHEN NOT preloaded OR blocked > 0 OR never_given_up > 0 OR errors > 0 THEN 'bad'
			WHEN silent > 0 OR warnings > 0 THEN 'warn'
			ELSE 'good'
		END AS class,
		CASE
			WHEN sockets_unreadable IS NOT NULL THEN 'The state of the clients is not known'
			WHEN silent = 0 THEN 'All clients answer'
			ELSE format('%s of %s %s not answer', to_char(silent, 'FM999,999,999'),
				@extschema@.keepalive_report_count(sessions, 'client', 'clients'), CASE silent WHEN 1 THEN 'does' ELSE 'do' END)
		END || CASE WHEN blocked > 0 THEN '; ' || @extschema@.keepalive_report_count(blocked, 'session is', 'sessions are') || ' blocked'
			ELSE '' END AS headline,
		concat_ws(' ',
			CASE
				WHEN NOT preloaded THEN 'keepalive_guard is not loaded via shared_preload_libraries: no policy is in force, and lost connections are not recorded.'
				WHEN silent = 1 AND never_given_up = 1 THEN 'It is never given up.'
				WHEN silent = 1 THEN 'If it stays silent, it is given up within ' || @extschema@.keepalive_report_time(longest) || '.'
				WHEN never_given_up > 0 THEN @extschema@.keepalive_report_count(never_given_up, 'of them is', 'of them are') || ' never given up.'
				WHEN silent > 0 THEN 'Those that stay silent are given up within ' || @extschema@.keepalive_report_time(longest) || '.'
			END,
			CASE
				WHEN errors > 0 THEN '<a href="#findings">' || @extschema@.keepalive_report_count(errors, 'problem keeps', 'problems keep')
					|| '</a> the guard from working as configured.'
				WHEN warnings > 0 THEN '<a href="#findings">' || @extschema@.keepalive_report_count(warnings, 'warning', 'warnings') || '</a> about the configuration.'
				ELSE 'The configuration has no known problem.'
			END) AS details
	FROM part
),
tiles AS (
	SELECT string_agg(format('<div class="%s"><dt>%s</dt><dd>%s</dd></div>', class, title, coalesce(to_char(number, 'FM999,999,999'), '&#8211;')),
		'' ORDER BY position) AS html
	FROM part CROSS JOIN LATERAL (VALUES
		(1, 'plain', 'connected sessions', sessions),
		(2, CASE WHEN silent > 0 THEN 'bad' ELSE 'plain' END, 'clients that do not answer', silent),
		(3, CASE WHEN blocked > 0 THEN 'bad' ELSE 'plain' END, 'blocked sessions', blocked),
		(4, 'plain', 'connections lost in the last 24 hours', lost_last_day),
		(5, CASE WHEN without_policy > 0 THEN 'warn' ELSE 'plain' END, 'sessions without a policy', without_policy),
		(6, CASE WHEN errors > 0 THEN 'bad' WHEN warnings > 0 THEN 'warn' ELSE 'plain' END, 'errors and warnings', errors + warnings))
		AS tile (position, class, title, number)
),
sections AS (
	SELECT
		string_agg(format('<li><a href="#%s">%s</a></li>', id, title), '' ORDER BY position) AS links,
		string_agg(format(E'<section id="%s">\n<h2>%s</h2>\n<p class="soft">%s</p>\n%s\n</section>\n', id, title, about,
			coalesce(html, '<p class="empty">Not known, because keepalive_guard is not loaded via shared_preload_libraries.</p>')), '' ORDER BY position) AS html
	FROM part CROSS JOIN LATERAL (VALUES
		(1, 'health', 'Health of all connections', 'What the kernel knows of each client at this moment.', health),
		(2, 'blockers', 'Blocked sessions', 'Sessions whose client does not answer or does not read, and that hold up other sessions or vacuum.', blockers),
		(3, 'lost', 'Lost connections', 'Connections that ended although neither the client nor the server had ended the session.', lost),
		(4, 'policies', 'Policies', 'How much time can pass from the loss of a client to the end of its session.', policies),
		(5, 'round-trips', 'Round-trip times', 'How long packets take to the client and back, as measured by the kernel.', round_trips),
		(6, 'paths', 'Paths to the clients', 'Whether a device between client and server drops idle connections, as far as observed.', paths),
		(7, 'findings', 'Findings', 'Problems of the configuration and of current sessions, each with a command that helps.', findings))
		AS section (position, id, title, about, html)
)
SELECT format($page$<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>Client connections</title>
<style>%s</style>
</head>
<body>
<header>
<h1>Client connections of %s</h1>
<p class="soft">%s</p>
</header>
<main>
<div class="verdict %s"><strong>%s</strong> %s</div>
<dl class="tiles">%s</dl>
<nav aria-label="Sections"><ul>%s</ul></nav>
%s</main>
<footer><p>Made by keepalive_report() of keepalive_guard %s. It shows names and addresses of clients: give it only to those who may know them.</p></footer>
</body>
</html>
$page$,
	encode(sha256(convert_to(style, 'UTF8')), 'base64'),
	style,
	coalesce(@extschema@.keepalive_report_text(nullif(current_setting('cluster_name'), '')), 'the server on port ' || current_setting('port')),
	concat_ws(' &#183; ', to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS ') || @extschema@.keepalive_report_text(current_setting('TimeZone')),
		'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1),
		CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END,
		'up since ' || to_char(pg_postmaster_start_time(), 'YYYY-MM-DD HH24:MI')),
	verdict.class, headline, details,
	tiles.html,
	links,
	sections.html,
	@extschema@.keepalive_report_text(extversion))
FROM verdict CROSS JOIN tiles CROSS JOIN sections
	CROSS JOIN (VALUES (@extschema@.keepalive_report_style())) AS styles (style)
	CROSS JOIN pg_extension
WHERE extname = 'keepalive_guard';
END;
COMMENT ON FUNCTION @extschema@.keepalive_report() IS
	'one HTML page: state of all connections, blocked sessions, lost connections, policies and what they promise, round-trip times, paths, findings';
REVOKE ALL ON FUNCTION @extschema@.keepalive_report() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.keepalive_report() TO pg_monitor;
