\echo Use "CREATE EXTENSION keepalive_guard" to load this file. \quit

--
-- The policies
--

CREATE TABLE keepalive_policy (
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
	enabled boolean NOT NULL DEFAULT true,
	comment text
);

COMMENT ON TABLE keepalive_policy IS
	'which connections get which keepalive, user-timeout and client-check settings; the first policy that matches counts';
COMMENT ON COLUMN keepalive_policy.name IS
	'what status, logs and events call the policy; at most 63 bytes';
COMMENT ON COLUMN keepalive_policy.priority IS
	'lower is tried first';
COMMENT ON COLUMN keepalive_policy.database IS
	'a database, or /regex; NULL: any';
COMMENT ON COLUMN keepalive_policy.role IS
	'a role, +group for its direct and indirect members, or /regex; NULL: any';
COMMENT ON COLUMN keepalive_policy.client IS
	'network of the client; NULL: any, Unix sockets too';
COMMENT ON COLUMN keepalive_policy.backend IS
	'client, or replication (walsenders, physical and logical); NULL: both';
COMMENT ON COLUMN keepalive_policy.keepalive IS
	'false switches SO_KEEPALIVE off; NULL leaves it to PostgreSQL, which switches it on';
COMMENT ON COLUMN keepalive_policy.tcp_keepalives_idle IS
	'silence before the first probe, in whole seconds up to 32767; 0: the system''s default; NULL: left to PostgreSQL';
COMMENT ON COLUMN keepalive_policy.tcp_keepalives_interval IS
	'time between probes, in whole seconds up to 32767; 0: the system''s default; NULL: left to PostgreSQL';
COMMENT ON COLUMN keepalive_policy.tcp_keepalives_count IS
	'unanswered probes before the connection is given up, up to 127; 0: the system''s default; NULL: left to PostgreSQL';
COMMENT ON COLUMN keepalive_policy.tcp_user_timeout IS
	'how long sent data may stay unacknowledged, in whole milliseconds; 0: off; NULL: left to PostgreSQL; also ends living clients that do not read for that long';
COMMENT ON COLUMN keepalive_policy.client_connection_check_interval IS
	'how often a running query looks whether its client is still there, in whole milliseconds; 0: off; NULL: left to PostgreSQL';
COMMENT ON COLUMN keepalive_policy.dead_after IS
	'a backend whose peer has been silent this long while the kernel was asking is ended; NULL or 0: never';
COMMENT ON COLUMN keepalive_policy.stall_timeout IS
	'a backend whose living peer has read nothing for this long is ended; NULL or 0: never';
COMMENT ON COLUMN keepalive_policy.enforcement IS
	'default: sessions may override; ceiling: sessions may only be stricter; locked: sessions may not change what the policy sets';
COMMENT ON COLUMN keepalive_policy.enabled IS
	'false: the policy is not there';
COMMENT ON COLUMN keepalive_policy.comment IS
	'for people';

CREATE FUNCTION keepalive_policy_guard() RETURNS trigger
	LANGUAGE C
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION keepalive_policy_guard() IS
	'refuses invalid policies and tells the worker of committed changes';

CREATE TRIGGER keepalive_policy_guard
	BEFORE INSERT OR UPDATE OR DELETE ON keepalive_policy
	FOR EACH ROW EXECUTE FUNCTION keepalive_policy_guard();
CREATE TRIGGER keepalive_policy_guard_truncate
	BEFORE TRUNCATE ON keepalive_policy
	FOR EACH STATEMENT EXECUTE FUNCTION keepalive_policy_guard();
ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard;
ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard_truncate;
COMMENT ON TRIGGER keepalive_policy_guard ON keepalive_policy IS
	'refuses invalid policies and tells the worker of committed changes';
COMMENT ON TRIGGER keepalive_policy_guard_truncate ON keepalive_policy IS
	'tells the worker of committed changes';

GRANT SELECT ON keepalive_policy TO pg_monitor;

SELECT pg_catalog.pg_extension_config_dump('keepalive_policy', '');

--
-- Reading
--

CREATE FUNCTION keepalive_status(
	OUT pid integer,
	OUT datname name,
	OUT usename name,
	OUT application_name text,
	OUT backend_type text,
	OUT client_addr inet,
	OUT client_port integer,
	OUT transport text,
	OUT policy text,
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
	OUT dies_in interval,
	OUT detects_idle interval,
	OUT detects_busy interval)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 100
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION keepalive_status() IS
	'each client backend and walsender: its policy, the settings in force in the kernel, and what the kernel knows of its peer';

CREATE FUNCTION keepalive_tcp_info(
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
COMMENT ON FUNCTION keepalive_tcp_info() IS
	'each TCP session: the kernel''s struct tcp_info under its own names and in its own units, congestion algorithm and socket memory; NULL what the running kernel does not have';

CREATE FUNCTION keepalive_sockets(
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
COMMENT ON FUNCTION keepalive_sockets() IS
	'each TCP socket of every process of this server: listeners with their accept queues, clients'' connections, and connections to elsewhere';
REVOKE ALL ON FUNCTION keepalive_sockets() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION keepalive_sockets() TO pg_monitor;

CREATE FUNCTION keepalive_kernel(
	OUT name text,
	OUT setting text,
	OUT unit text,
	OUT source text,
	OUT description text)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 30
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION keepalive_kernel() IS
	'the kernel''s defaults, limits and counts that matter to connections; NULL what it does not show, with the reason in the description';
REVOKE ALL ON FUNCTION keepalive_kernel() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION keepalive_kernel() TO pg_monitor;

CREATE FUNCTION keepalive_explain(
	database text,
	role text,
	client_addr inet DEFAULT NULL,
	backend text DEFAULT 'client',
	OUT "position" integer,
	OUT policy text,
	OUT priority integer,
	OUT matches boolean,
	OUT reason text,
	OUT wins boolean,
	OUT enforcement text,
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
COMMENT ON FUNCTION keepalive_explain(text, text, inet, text) IS
	'every policy in match order: whether it matches such a connection, and what a session would get; the row without policy is PostgreSQL alone';
REVOKE ALL ON FUNCTION keepalive_explain(text, text, inet, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION keepalive_explain(text, text, inet, text) TO pg_monitor;

CREATE FUNCTION keepalive_events(
	OUT ended_at timestamptz,
	OUT pid integer,
	OUT cause text,
	OUT policy text,
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
COMMENT ON FUNCTION keepalive_events() IS
	'ended connections, newest first, and why they ended; the last keepalive_guard.max_events of them';

CREATE FUNCTION keepalive_stats(
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
	OUT stats_reset timestamptz)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION keepalive_stats() IS
	'sessions of each policy, and of none (NULL): now, so far, and how those that ended did so';

CREATE FUNCTION keepalive_stats_reset() RETURNS void
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION keepalive_stats_reset() IS
	'sets the counters of keepalive_stats() to zero';
REVOKE ALL ON FUNCTION keepalive_stats_reset() FROM PUBLIC;

--
-- Learning the paths
--

CREATE FUNCTION keepalive_path_evidence(
	OUT client_addr inet,
	OUT idle_for interval,
	OUT lost boolean)
	RETURNS SETOF record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 1000
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION keepalive_path_evidence() IS
	'for each TCP connection in keepalive_events() that ended while its session was idle: for how long nothing had used the path, and whether the client was lost (reset, unanswered probes) or still got through';
REVOKE ALL ON FUNCTION keepalive_path_evidence() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION keepalive_path_evidence() TO pg_read_all_stats;

-- A connected session is evidence too: one that has been idle for longer than its
-- tcp_keepalives_idle and has since heard from its client survived that idleness.
CREATE VIEW keepalive_paths_observed AS
WITH evidence AS (
	SELECT client_addr, idle_for, lost
	FROM keepalive_path_evidence()
	UNION ALL
	SELECT s.client_addr, s.tcp_keepalives_idle, false
	FROM keepalive_status() AS s
	JOIN pg_stat_activity AS a USING (pid)
	WHERE s.transport = 'tcp' AND s.keepalive AND a.state LIKE 'idle%'
		AND s.silent_for < clock_timestamp() - a.state_change - s.tcp_keepalives_idle
), networks AS (
	SELECT
		network(set_masklen(client_addr, CASE family(client_addr) WHEN 4 THEN 24 ELSE 64 END)) AS network,
		count(*) FILTER (WHERE NOT lost) AS survived,
		count(*) FILTER (WHERE lost) AS lost,
		max(idle_for) FILTER (WHERE NOT lost) AS longest_survived,
		min(idle_for) FILTER (WHERE lost) AS shortest_lost,
		max(idle_for) FILTER (WHERE lost) AS longest_lost
	FROM evidence
	GROUP BY 1
	HAVING count(*) >= 5
), verdicts AS (
	SELECT
		*,
		survived >= 5 AND lost >= 5
			AND longest_survived >= '1s'
			AND longest_survived < shortest_lost
			AND shortest_lost <= 4 * longest_survived AS clear
	FROM networks
)
SELECT
	network,
	survived,
	lost,
	longest_survived,
	shortest_lost,
	longest_lost,
	CASE WHEN clear THEN shortest_lost END AS idle_timeout,
	CASE WHEN clear THEN date_trunc('second', longest_survived) END AS tcp_keepalives_idle
FROM verdicts;

COMMENT ON VIEW keepalive_paths_observed IS
	'what ended and connected sessions tell of the path to each client network (/24, /64) with at least 5 of them: whether something on it forgets idle connections';
COMMENT ON COLUMN keepalive_paths_observed.network IS
	'client network: /24 for IPv4, /64 for IPv6';
COMMENT ON COLUMN keepalive_paths_observed.survived IS
	'connections whose client still got through after the path had been idle';
COMMENT ON COLUMN keepalive_paths_observed.lost IS
	'connections that were reset, or whose probes went unanswered, after the path had been idle';
COMMENT ON COLUMN keepalive_paths_observed.longest_survived IS
	'the longest idleness of the path that a connection survived';
COMMENT ON COLUMN keepalive_paths_observed.shortest_lost IS
	'the shortest idleness of the path after which a connection was lost';
COMMENT ON COLUMN keepalive_paths_observed.longest_lost IS
	'the longest idleness of the path after which a connection was lost';
COMMENT ON COLUMN keepalive_paths_observed.idle_timeout IS
	'the idle timeout that something on the path seems to have, at most; NULL unless at least 5 connections survived and 5 were lost, every loss after a longer idleness than every survival, and not more than four times as long';
COMMENT ON COLUMN keepalive_paths_observed.tcp_keepalives_idle IS
	'the tcp_keepalives_idle that keeps the path open, where idle_timeout is not NULL: the longest idleness survived';
GRANT SELECT ON keepalive_paths_observed TO pg_read_all_stats;

--
-- Doing
--

CREATE FUNCTION keepalive_apply(
	timeout interval DEFAULT '5s',
	OUT sessions bigint,
	OUT applied bigint,
	OUT overridden bigint,
	OUT failed bigint,
	OUT pending bigint)
	RETURNS record
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION keepalive_apply(interval) IS
	're-reads the policies, applies them to every session, and waits for the sessions to confirm';
REVOKE ALL ON FUNCTION keepalive_apply(interval) FROM PUBLIC;
