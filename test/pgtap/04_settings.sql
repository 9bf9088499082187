-- The settings: names, types, contexts, defaults and descriptions.
BEGIN;
SELECT plan(6);

SELECT results_eq(
	$$SELECT name, vartype, context, boot_val, unit, min_val, max_val
		FROM pg_settings WHERE name LIKE 'keepalive\_guard.%' ORDER BY name COLLATE "C"$$,
	$$VALUES
		('keepalive_guard.database', 'string', 'postmaster', 'postgres', NULL, NULL, NULL),
		('keepalive_guard.enabled', 'bool', 'sighup', 'on', NULL, NULL, NULL),
		('keepalive_guard.log_lost_connections', 'bool', 'sighup', 'on', NULL, NULL, NULL),
		('keepalive_guard.max_events', 'integer', 'postmaster', '4096', NULL, '1', '1000000'),
		('keepalive_guard.max_policies', 'integer', 'postmaster', '1024', NULL, '1', '100000'),
		('keepalive_guard.watch_interval', 'integer', 'sighup', '1000', 'ms', '0', '3600000')$$,
	'the settings have the expected types, contexts, defaults, units and bounds');

SELECT is_empty(
	$$SELECT name FROM pg_settings
		WHERE name LIKE 'keepalive\_guard.%' AND short_desc !~ '^[A-Z].*[^ ]\.$'$$,
	'each setting''s description is a sentence');

SELECT throws_ok('SET keepalive_guard.enabled = off', '55P02', NULL,
	'a session cannot set keepalive_guard.enabled');
SELECT throws_ok('SET keepalive_guard.database = postgres', '55P02', NULL,
	'a session cannot set keepalive_guard.database');
SELECT throws_ok('SET keepalive_guard.max_policies = 1', '55P02', NULL,
	'a session cannot set keepalive_guard.max_policies');
SELECT throws_ok('SET keepalive_guard.nothing_of_that_name = 1', '42602', NULL,
	'an unknown setting with the extension''s prefix is refused');

SELECT * FROM finish();
ROLLBACK;
