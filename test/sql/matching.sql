-- Which policy a connection gets, as in doc/policies.md.
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_alice, regress_reports, regress_staff;
RESET client_min_messages;
CREATE EXTENSION keepalive_guard;
CREATE ROLE regress_staff;
CREATE ROLE regress_reports IN ROLE regress_staff;
CREATE ROLE regress_alice IN ROLE regress_reports;

SET client_min_messages = error; -- they set nothing, of which warnings tell
INSERT INTO keepalive_policy (name, priority, database, role, client, backend, enabled) VALUES
	('everybody', 100, NULL, NULL, NULL, NULL, true),
	('network', 100, NULL, NULL, '10.0.0.0/8', NULL, true),
	('subnet', 100, NULL, NULL, '10.1.0.0/16', NULL, true),
	('database', 100, 'shop', NULL, NULL, NULL, true),
	('role', 100, NULL, 'regress_alice', NULL, NULL, true),
	('role in database', 100, 'shop', 'regress_alice', NULL, NULL, true),
	('group', 200, NULL, '+regress_staff', NULL, NULL, true),
	('regex', 300, '/^shop_\d+$', '/^regress_', NULL, NULL, true),
	('standbys', 50, NULL, NULL, NULL, 'replication', true),
	('not now', 1, NULL, NULL, NULL, NULL, false);
RESET client_min_messages;
SELECT pending FROM keepalive_apply();

-- All policies in match order, with the reason if one does not match or is not the first
SELECT position, policy, priority, matches, wins, reason
FROM keepalive_explain('shop', 'regress_alice', '10.1.2.3');

CREATE FUNCTION first_policy(text, text, inet DEFAULT NULL, text DEFAULT 'client') RETURNS text
LANGUAGE sql AS 'SELECT policy FROM keepalive_explain($1, $2, $3, $4) WHERE wins';

SELECT first_policy('shop', 'regress_alice', '10.1.2.3');
SELECT first_policy('blog', 'regress_alice', '10.1.2.3');
SELECT first_policy('shop', 'regress_bob', '10.1.2.3');
SELECT first_policy('blog', 'regress_bob', '10.1.2.3');
SELECT first_policy('blog', 'regress_bob', '10.2.0.1');
SELECT first_policy('blog', 'regress_bob', '::ffff:10.2.0.1');
SELECT first_policy('blog', 'regress_bob', '192.0.2.1');
SELECT first_policy('blog', 'regress_bob');
SELECT first_policy(NULL, 'regress_bob', '10.1.2.3', 'replication');

-- Policies that are later in match order
UPDATE keepalive_policy SET enabled = false WHERE priority = 100;
SELECT pending FROM keepalive_apply();
SELECT first_policy('blog', 'regress_alice');
SELECT first_policy('blog', 'regress_bob') IS NULL AS without_policy;
SELECT first_policy('shop_7', 'regress_bob');
SELECT first_policy('shop_x', 'regress_bob') IS NULL AS without_policy;

DROP FUNCTION first_policy;
DROP EXTENSION keepalive_guard;
DROP ROLE regress_alice, regress_reports, regress_staff;
