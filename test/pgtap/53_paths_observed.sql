-- keepalive_paths_observed: when a pattern is clear.  The evidence is made up here;
-- test/t/520_paths.pl has that of real connections.
BEGIN;
SELECT plan(21);

SELECT columns_are('keepalive_paths_observed',
	'{network,survived,lost,resets,longest_survived,shortest_lost,longest_lost,shortest_reset,longest_reset,idle_timeout,tcp_keepalives_idle}'::name[]);
SELECT is_empty(
	$$SELECT attname FROM pg_attribute
		WHERE attrelid = 'keepalive_paths_observed'::regclass AND attnum > 0 AND col_description(attrelid, attnum) IS NULL$$,
	'every column has a comment');
SELECT is_empty('TABLE keepalive_paths_observed', 'nothing is known without sessions over TCP');

CREATE TABLE evidence (
	client_addr inet DEFAULT '192.0.2.1',
	last_heard timestamptz,
	idle_for interval,
	outcome text);
CREATE OR REPLACE FUNCTION keepalive_path_evidence(
	OUT client_addr inet, OUT last_heard timestamptz, OUT idle_for interval, OUT outcome text)
	RETURNS SETOF record LANGUAGE sql VOLATILE STRICT PARALLEL RESTRICTED
	AS 'SELECT client_addr, last_heard, idle_for, outcome FROM evidence';

-- So many connections, each an hour after the one before.
CREATE FUNCTION add(outcome text, number integer, idle_for interval, client inet DEFAULT '192.0.2.1',
	apart interval DEFAULT '1h') RETURNS void LANGUAGE sql AS $$
	INSERT INTO evidence
	SELECT client, timestamptz '2026-01-01 00:00Z' + n * apart, idle_for, outcome FROM generate_series(1, number) AS n;
$$;
CREATE FUNCTION verdict(network cidr DEFAULT '192.0.2.0/24') RETURNS text LANGUAGE sql AS $$
	SELECT format('%s %s', idle_timeout, tcp_keepalives_idle)
	FROM keepalive_paths_observed AS o WHERE o.network = $1;
$$;

SELECT add('survived', 5, '270 s'), add('lost', 4, '400 s');
SELECT is(verdict(), ' ', 'four losses are too few');
SELECT add('lost', 1, '360 s', '192.0.2.255');
SELECT is(verdict(), '00:06:45 00:04:00', 'five, all after a longer idleness: at most that and an eighth; an eighth less than what was survived');
SELECT results_eq(
	'SELECT survived, lost, resets, longest_survived, shortest_lost, longest_lost, shortest_reset FROM keepalive_paths_observed',
	$$VALUES (5::bigint, 5::bigint, 0::bigint, interval '270 s', interval '360 s', interval '400 s', NULL::interval)$$,
	'all of the network count');
SELECT add('survived', 4, '300 s');
SELECT is(verdict(), '00:06:45 00:04:00', 'four that survived longer do not make it longer');
SELECT add('survived', 1, '300 s');
SELECT is(verdict(), '00:06:45 00:04:26', 'five do');
SELECT add('reset', 20, '5 s');
SELECT is(verdict(), '00:06:45 00:04:26', 'unasked resets say nothing');
SELECT add('survived', 1000, '80 s');
SELECT is(verdict(), '00:06:45 00:04:26', 'nor do connections that were hardly idle');
SELECT add('survived', 1, '360 s');
SELECT is(verdict(), ' ', 'one that survived what another did not');

DELETE FROM evidence;
SELECT add('survived', 4, '270 s'), add('survived', 9, '80 s'), add('lost', 5, '360 s');
SELECT is(verdict(), ' ', 'few that were idle for nearly as long');
SELECT add('survived', 1, '90 s');
SELECT is(verdict(), '00:06:45 00:01:20', 'one more, for a quarter');

DELETE FROM evidence;
SELECT add('survived', 60, '270 s'), add('lost', 5, '360 s');
SELECT is(verdict(), ' ', 'few losses of many connections are accidents');
SELECT add('lost', 1, '360 s');
SELECT is(verdict(), '00:06:45 00:04:00', 'a tenth is not');

DELETE FROM evidence;
SELECT add('survived', 9, '270 s'), add('lost', 9, '360 s', apart => '45 s');
SELECT is(verdict(), ' ', 'one moment explains all losses of six minutes');
SELECT add('lost', 9, '360 s', apart => '90 s');
SELECT is(verdict(), ' ', 'two those of a quarter of an hour');
SELECT add('lost', 10, '360 s', apart => '95 s');
SELECT is(verdict(), '00:06:45 00:04:00', 'but not what takes longer');

DELETE FROM evidence;
SELECT add('survived', 5, '1.1 s'), add('lost', 5, '3 s');
SELECT is(verdict(), ' ', 'no tcp_keepalives_idle is below a second');

SELECT add('survived', 5, '270 s', '2001:db8:0:1::1'), add('lost', 5, '360 s', '2001:db8:0:1:ffff::2'),
	add('survived', 5, '1 h', '2001:db8:0:2::1'), add('survived', 4, '1 h', '198.51.100.1');
SELECT is(verdict('2001:db8:0:1::/64'), '00:06:45 00:04:00', 'IPv6 networks have 64 bits');
SELECT results_eq(
	'SELECT network FROM keepalive_paths_observed ORDER BY 1',
	$$VALUES (cidr '192.0.2.0/24'), ('2001:db8:0:1::/64'), ('2001:db8:0:2::/64')$$,
	'one with four connections is not shown');

SELECT * FROM finish();
ROLLBACK;
