-- Which policy a connection gets, as doc/policies.md tells it.
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_alice, regress_reports, regress_staff;
RESET client_min_messages;
CREATE EXTENSION keepalive_guard;
CREATE ROLE regress_staff;
CREATE ROLE regress_reports IN ROLE regress_staff;
CREATE ROLE regress_alice IN ROLE regress_reports;

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
SELECT pending FROM keepalive_apply();

-- In match order, with why it does not match or win
SELECT position, policy, priority, matches, wins, reason
FROM keepalive_explain('shop', 'regress_alice', '10.1.2.3');

CREATE FUNCTION winner(text, text, inet DEFAULT NULL, text DEFAULT 'client') RETURNS text
LANGUAGE sql AS 'SELECT policy FROM keepalive_explain($1, $2, $3, $4) WHERE wins';

SELECT winner('shop', 'regress_alice', '10.1.2.3');
SELECT winner('blog', 'regress_alice', '10.1.2.3');
SELECT winner('shop', 'regress_bob', '10.1.2.3');
SELECT winner('blog', 'regress_bob', '10.1.2.3');
SELECT winner('blog', 'regress_bob', '10.2.0.1');
SELECT winner('blog', 'regress_bob', '::ffff:10.2.0.1');
SELECT winner('blog', 'regress_bob', '192.0.2.1');
SELECT winner('blog', 'regress_bob');
SELECT winner(NULL, 'regress_bob', '10.1.2.3', 'replication');

-- The later ones
UPDATE keepalive_policy SET enabled = false WHERE priority = 100;
SELECT pending FROM keepalive_apply();
SELECT winner('blog', 'regress_alice');
SELECT winner('blog', 'regress_bob') IS NULL AS ungoverned;
SELECT winner('shop_7', 'regress_bob');
SELECT winner('shop_x', 'regress_bob') IS NULL AS ungoverned;

DROP FUNCTION winner;
DROP EXTENSION keepalive_guard;
DROP ROLE regress_alice, regress_reports, regress_staff;
