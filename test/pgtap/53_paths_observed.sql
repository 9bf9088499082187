-- keepalive_paths_observed: which evidence gives an idle_timeout.  The evidence is
-- artificial here; test/t/520_paths.pl has that of real connections.
BEGIN;
SELECT plan(22);

SELECT columns_are('keepalive_paths_observed',
	'{network,survived,lost,resets,longest_survived,shortest_lost,longest_lost,shortest_reset,longest_reset,idle_timeout,tcp_keepalives_idle,verdict}'::name[]);
SELECT is_empty(
	$$SELECT attname FROM pg_attribute
		WHERE attrelid = 'keepalive_paths_observed'::regclass AND attnum > 0 AND col_description(attrelid, attnum) IS NULL$$,
	'every column has a comment');
SELECT is_empty('TABLE keepalive_paths_observed', 'there are no rows without TCP sessions');

CREATE TABLE evidence (
	client_addr inet DEFAULT '192.0.2.1',
	last_heard timestamptz,
	idle_for interval,
	outcome text);
CREATE OR REPLACE FUNCTION keepalive_path_evidence(
	OUT client_addr inet, OUT last_heard timestamptz, OUT idle_for interval, OUT outcome text)
	RETURNS SETOF record LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
	AS 'SELECT client_addr, last_heard, idle_for, outcome FROM evidence';

-- Adds evidence of some connections, each an hour after the previous one.
CREATE FUNCTION add(outcome text, number integer, idle_for interval, client inet DEFAULT '192.0.2.1',
	apart interval DEFAULT '1h') RETURNS void LANGUAGE sql AS $$
	INSERT INTO evidence
	SELECT client, timestamptz '2026-01-01 00:00Z' + n * apart, idle_for, outcome FROM generate_series(1, number) AS n;
$$;
CREATE FUNCTION verdict(network cidr DEFAULT '192.0.2.0/24') RETURNS text LANGUAGE sql AS $$
	SELECT CASE verdict WHEN 'idle timeout' THEN format('%s %s', idle_timeout, tcp_keepalives_idle)
		ELSE concat(verdict, idle_timeout, tcp_keepalives_idle) END
	FROM keepalive_paths_observed AS o WHERE o.network = $1;
$$;

SELECT add('survived', 5, '270 s');
SELECT is(verdict(), 'no losses', 'survivals alone give no timeout');
SELECT add('lost', 4, '400 s');
SELECT is(verdict(), 'too few losses', 'four lost connections are too few');
SELECT add('lost', 1, '360 s', '192.0.2.255');
SELECT is(verdict(), '00:06:45 00:04:00', 'five losses give 9/8 of the shortest lost as timeout, and 8/9 of the longest survived as advice');
SELECT results_eq(
	'SELECT survived, lost, resets, longest_survived, shortest_lost, longest_lost, shortest_reset FROM keepalive_paths_observed',
	$$VALUES (5::bigint, 5::bigint, 0::bigint, interval '270 s', interval '360 s', interval '400 s', NULL::interval)$$,
	'all clients of the network count');
SELECT add('survived', 4, '300 s');
SELECT is(verdict(), '00:06:45 00:04:00', 'four connections that survived longer do not change the advice');
SELECT add('survived', 1, '300 s');
SELECT is(verdict(), '00:06:45 00:04:26', 'five connections that survived longer change the advice');
SELECT add('reset', 20, '5 s');
SELECT is(verdict(), '00:06:45 00:04:26', 'resets without a probe do not change the verdict');
SELECT add('survived', 1000, '80 s');
SELECT is(verdict(), '00:06:45 00:04:26', 'connections that were idle for a short time do not change the verdict');
SELECT add('survived', 1, '360 s');
SELECT is(verdict(), 'not clear: a connection survived as long an idleness as others were lost after', 'a survival as long as a loss gives no timeout');

DELETE FROM evidence;
SELECT add('survived', 4, '270 s'), add('survived', 9, '80 s'), add('lost', 5, '360 s');
SELECT is(verdict(), 'not clear: too few connections survived an idleness of comparable length', 'too few survivals of comparable length give no timeout');
SELECT add('survived', 1, '90 s');
SELECT is(verdict(), '00:06:45 00:01:20', 'five survivals of a quarter of the loss are enough');

DELETE FROM evidence;
SELECT add('survived', 60, '270 s'), add('lost', 5, '360 s');
SELECT is(verdict(), 'not clear: few losses among many connections of comparable idleness', 'less than a tenth of connections lost gives no timeout');
SELECT add('lost', 1, '360 s');
SELECT is(verdict(), '00:06:45 00:04:00', 'a tenth of connections lost gives a timeout');

DELETE FROM evidence;
SELECT add('survived', 9, '270 s'), add('lost', 9, '360 s', apart => '45 s');
SELECT is(verdict(), 'not clear: two failures of clients or devices explain all losses', 'losses within six minutes count as one failure');
SELECT add('lost', 9, '360 s', apart => '90 s');
SELECT is(verdict(), 'not clear: two failures of clients or devices explain all losses', 'losses within a quarter of an hour count as two failures');
SELECT add('lost', 10, '360 s', apart => '95 s');
SELECT is(verdict(), '00:06:45 00:04:00', 'losses over a longer time give a timeout');

DELETE FROM evidence;
SELECT add('survived', 5, '1.1 s'), add('lost', 5, '3 s');
SELECT is(verdict(), 'too short for tcp_keepalives_idle', 'there is no advice below one second');

SELECT add('survived', 5, '270 s', '2001:db8:0:1::1'), add('lost', 5, '360 s', '2001:db8:0:1:ffff::2'),
	add('survived', 5, '1 h', '2001:db8:0:2::1'), add('survived', 4, '1 h', '198.51.100.1');
SELECT is(verdict('2001:db8:0:1::/64'), '00:06:45 00:04:00', 'IPv6 clients are grouped by /64 networks');
SELECT results_eq(
	'SELECT network FROM keepalive_paths_observed ORDER BY 1',
	$$VALUES (cidr '192.0.2.0/24'), ('2001:db8:0:1::/64'), ('2001:db8:0:2::/64')$$,
	'a network with four connections is not shown');

SELECT * FROM finish();
ROLLBACK;
