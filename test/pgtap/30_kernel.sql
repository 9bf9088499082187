-- keepalive_kernel(), and keepalive_tcp_info() and keepalive_sockets() of the test's own
-- sessions, compared with what the kernel says.
BEGIN;
CREATE EXTENSION dblink;
CREATE ROLE test_nobody;
CREATE ROLE test_reader IN ROLE pg_read_all_stats;

SELECT plan(20);

-- The kernel's settings

SELECT is_empty(
	$$SELECT name, setting, regexp_replace(trim(E'\n' FROM pg_read_file(source)), '\t', ' ', 'g')
		FROM keepalive_kernel()
		WHERE source LIKE '/proc/sys/%' AND name <> 'nf_conntrack_count' AND setting IS NOT NULL
			AND setting <> regexp_replace(trim(E'\n' FROM pg_read_file(source)), '\t', ' ', 'g')$$,
	'each setting has the value of its source');
SELECT is_empty(
	$$SELECT name FROM keepalive_kernel()
		WHERE setting IS NULL AND description !~ '\(not available: .+\)$'
			OR setting IS NOT NULL AND description LIKE '%not available%'
			OR description IS NULL OR source IS NULL OR unit = ''$$,
	'each setting has a description and a source, and a reason if it is not available');
SELECT is_empty(
	$$SELECT name FROM unnest(ARRAY['kernel_release', 'tcp_keepalive_time', 'tcp_keepalive_intvl',
			'tcp_keepalive_probes', 'tcp_retries2', 'tcp_rto_max_ms', 'tcp_fin_timeout', 'tcp_mem',
			'nf_conntrack_tcp_timeout_established', 'tcp_ehash_entries', 'somaxconn',
			'sockstat_tcp_inuse', 'sockstat_tcp_orphan', 'sockstat_tcp_tw', 'sockstat_tcp_mem']) name
		EXCEPT SELECT name FROM keepalive_kernel()$$,
	'the expected settings are present');
SELECT is(setting, trim(E'\n' FROM pg_read_file('/proc/sys/kernel/osrelease')), 'kernel_release is that of the running kernel')
FROM keepalive_kernel() WHERE name = 'kernel_release';
SELECT is_empty(
	$$SELECT name FROM keepalive_kernel() GROUP BY name HAVING count(*) > 1$$, 'each setting is present once');
SELECT ok(setting::int > 0, 'sockstat_tcp_inuse is positive')
FROM keepalive_kernel() WHERE name = 'sockstat_tcp_inuse';

-- struct tcp_info of a session

SELECT is(dblink_connect('far', format('host=127.0.0.1 port=%s dbname=postgres', current_setting('port'))),
	'OK', 'a TCP session connects');
CREATE TEMP TABLE far AS
	SELECT * FROM dblink('far', 'SELECT pg_backend_pid(), inet_client_port()') AS far (pid integer, port integer);
GRANT SELECT ON far TO PUBLIC;
SELECT pg_sleep(0.3), pg_stat_clear_snapshot();

SELECT results_eq(
	$$SELECT local_addr, local_port, remote_addr, remote_port, state FROM keepalive_tcp_info() JOIN far USING (pid)$$,
	$$SELECT '127.0.0.1'::inet, current_setting('port')::int, '127.0.0.1'::inet, port, 1 FROM far$$,
	'keepalive_tcp_info() has both addresses and ports and the state');
SELECT is(congestion, trim(E'\n' FROM pg_read_file('/proc/sys/net/ipv4/tcp_congestion_control')),
	'congestion is the system''s algorithm')
FROM keepalive_tcp_info() JOIN far USING (pid);
SELECT ok(bytes_received > 50 AND bytes_sent > 300 AND segs_in > 2 AND rtt > 0 AND rto >= 200000
		AND snd_mss > 500 AND snd_cwnd > 0 AND last_data_recv BETWEEN 200 AND 10000 AND rcvbuf > 1000
		AND snd_wnd > 0 AND pacing_rate > 0, 'the figures of an idle connection are plausible')
FROM keepalive_tcp_info() JOIN far USING (pid);
SELECT is(max_pacing_rate, 18446744073709551615, 'max_pacing_rate holds the largest unsigned 64-bit number')
FROM keepalive_tcp_info() JOIN far USING (pid);
SELECT is_empty(
	$$SELECT FROM keepalive_tcp_info() WHERE pid = pg_backend_pid()$$, 'a session over a Unix socket has no row');

CREATE FUNCTION pg_temp.details(role text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE details bigint;
BEGIN
	EXECUTE format('SET LOCAL ROLE %I', role);
	SELECT count(*) INTO details
	FROM keepalive_tcp_info() info JOIN far USING (pid), jsonb_each(to_jsonb(info)) WHERE value <> 'null';
	RESET ROLE;
	RETURN details;
END $$;
SELECT is(pg_temp.details('test_nobody'), 1::bigint, 'an ordinary role sees only the pid of other roles'' sessions');
SELECT cmp_ok(pg_temp.details('test_reader'), '>', 60::bigint, 'pg_read_all_stats sees all columns');

-- Sockets

SELECT results_eq(
	$$SELECT s.pid = pg_backend_pid(), backend_type, kind, local_port = port, remote_port = port, tcp_state
		FROM keepalive_sockets() s, far WHERE port IN (local_port, remote_port) ORDER BY kind$$,
	$$VALUES (false, 'client backend', 'client', false, true, 'ESTABLISHED'),
		(true, 'client backend', 'outbound', true, false, 'ESTABLISHED')$$,
	'keepalive_sockets() has both ends of the connection');
SELECT results_eq(
	$$SELECT pid, backend_type, local_addr, local_port, remote_addr, tcp_state, accept_queue
		FROM keepalive_sockets() WHERE kind = 'listener'$$,
	$$SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int, 'postmaster', '127.0.0.1'::inet,
		current_setting('port')::int, NULL::inet, 'LISTEN', 0::bigint$$,
	'keepalive_sockets() has the listener of the postmaster');
SELECT is_empty(
	$$SELECT FROM keepalive_sockets() WHERE (kind = 'listener')
		IS DISTINCT FROM (accept_queue IS NOT NULL AND recv_queue IS NULL AND send_queue IS NULL)$$,
	'only listeners have an accept queue, only connections have byte queues');

SELECT throws_ok(
	'SET LOCAL ROLE test_reader; SELECT * FROM keepalive_' || name || '()', '42501', NULL, 'keepalive_' || name || '() is refused without pg_monitor')
FROM unnest(ARRAY['sockets', 'kernel']) name;

-- A library of another version

CREATE FUNCTION pg_temp.keepalive_tcp_info(OUT pid integer, OUT local_addr inet) RETURNS SETOF record
	LANGUAGE C AS '$libdir/keepalive_guard', 'keepalive_tcp_info';
SELECT throws_ok('SELECT * FROM pg_temp.keepalive_tcp_info()', '42804', NULL,
	'a function definition with other columns than the library''s is refused');

SELECT * FROM finish();
ROLLBACK;
