-- keepalive_policy: columns, comments, triggers, privileges, and that pg_dump dumps its
-- rows.
BEGIN;
SELECT plan(18);

SELECT results_eq(
	$$SELECT attname::text COLLATE "default", format_type(atttypid, atttypmod), attnotnull,
			pg_get_expr(adbin, adrelid) COLLATE "default"
		FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE attrelid = 'keepalive_policy'::regclass AND attnum > 0
		ORDER BY attnum$$,
	$$VALUES
		('name', 'text', true, NULL),
		('priority', 'integer', true, '100'),
		('database', 'text', false, NULL),
		('role', 'text', false, NULL),
		('client', 'cidr', false, NULL),
		('backend', 'text', false, NULL),
		('keepalive', 'boolean', false, NULL),
		('tcp_keepalives_idle', 'interval', false, NULL),
		('tcp_keepalives_interval', 'interval', false, NULL),
		('tcp_keepalives_count', 'integer', false, NULL),
		('tcp_user_timeout', 'interval', false, NULL),
		('client_connection_check_interval', 'interval', false, NULL),
		('dead_after', 'interval', false, NULL),
		('stall_timeout', 'interval', false, NULL),
		('enforcement', 'text', true, '''default''::text'),
		('final', 'boolean', true, 'false'),
		('log_only', 'boolean', true, 'false'),
		('enabled', 'boolean', true, 'true'),
		('comment', 'text', false, NULL)$$,
	'the columns have the expected order, types, NOT NULL and defaults');

SELECT col_is_pk('keepalive_policy', 'name', 'name is the primary key');

SELECT is(
	(SELECT collname FROM pg_attribute JOIN pg_collation c ON c.oid = attcollation
		WHERE attrelid = 'keepalive_policy'::regclass AND attname = 'name'),
	'C', 'name has collation C, the same as match order');

-- Comments

SELECT isnt(obj_description('keepalive_policy'::regclass, 'pg_class'), NULL,
	'the table has a comment');

SELECT is_empty(
	$$SELECT attname FROM pg_attribute
		WHERE attrelid = 'keepalive_policy'::regclass AND attnum > 0
			AND coalesce(col_description(attrelid, attnum), '') = ''$$,
	'every column has a comment');

-- Triggers

SELECT results_eq(
	$$SELECT tgname::text COLLATE "default", tgenabled::text, pg_get_triggerdef(oid)
		FROM pg_trigger WHERE tgrelid = 'keepalive_policy'::regclass ORDER BY tgname$$,
	$$VALUES
		('keepalive_policy_guard', 'A', 'CREATE TRIGGER keepalive_policy_guard BEFORE INSERT OR DELETE OR UPDATE ON public.keepalive_policy FOR EACH ROW EXECUTE FUNCTION keepalive_policy_guard()'),
		('keepalive_policy_guard_count', 'A', 'CREATE TRIGGER keepalive_policy_guard_count AFTER INSERT OR DELETE OR UPDATE ON public.keepalive_policy FOR EACH ROW EXECUTE FUNCTION keepalive_policy_guard()'),
		('keepalive_policy_guard_truncate', 'A', 'CREATE TRIGGER keepalive_policy_guard_truncate BEFORE TRUNCATE ON public.keepalive_policy FOR EACH STATEMENT EXECUTE FUNCTION keepalive_policy_guard()')$$,
	'all triggers are ENABLE ALWAYS');

SET LOCAL session_replication_role = replica;
SELECT throws_ok(
	$$INSERT INTO keepalive_policy (name, tcp_keepalives_count) VALUES ('replicated', 128)$$,
	'22023', NULL, 'a bad value is refused with session_replication_role = replica');
RESET session_replication_role;

SELECT throws_ok('SELECT keepalive_policy_guard()', '39P01', NULL,
	'the trigger function cannot be called directly');

SELECT lives_ok($$INSERT INTO keepalive_policy (name) VALUES ('one')$$, 'a policy with only a name is accepted');
SELECT throws_ok($$INSERT INTO keepalive_policy (name) VALUES ('one')$$, '23505', NULL,
	'a duplicate name is refused');
SELECT lives_ok('TRUNCATE keepalive_policy', 'TRUNCATE is accepted');

-- pg_dump

SELECT results_eq(
	$$SELECT c.oid::regclass::text COLLATE "default", condition COLLATE "default"
		FROM pg_extension, unnest(extconfig, extcondition) AS dumped (oid, condition)
			JOIN pg_class c ON c.oid = dumped.oid
		WHERE extname = 'keepalive_guard'$$,
	$$VALUES ('keepalive_policy', '')$$,
	'pg_dump dumps all rows');

-- Privileges

CREATE ROLE test_nobody;
CREATE ROLE test_monitor IN ROLE pg_monitor;

SELECT is_empty(
	$$SELECT p FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
		WHERE has_table_privilege('test_nobody', 'keepalive_policy', p)$$,
	'PUBLIC has no privilege on the table');
SELECT results_eq(
	$$SELECT p FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
		WHERE has_table_privilege('test_monitor', 'keepalive_policy', p)$$,
	$$VALUES ('SELECT')$$,
	'pg_monitor has only SELECT on the table');

SET LOCAL ROLE test_nobody;
SELECT throws_ok($$INSERT INTO keepalive_policy (name) VALUES ('mine')$$, '42501', NULL,
	'INSERT is refused without the privilege');
RESET ROLE;
GRANT INSERT ON keepalive_policy TO test_nobody;
SET LOCAL ROLE test_nobody;
SELECT lives_ok($$INSERT INTO keepalive_policy (name) VALUES ('mine')$$,
	'INSERT is accepted with the privilege');
SELECT throws_ok($$INSERT INTO keepalive_policy (name, priority) VALUES ('bad', NULL)$$,
	'22023', NULL, 'an invalid policy is refused with the INSERT privilege too');
RESET ROLE;

SELECT throws_ok('DROP TABLE keepalive_policy', '2BP01', NULL,
	'DROP TABLE is refused while the extension exists');

SELECT * FROM finish();
ROLLBACK;
