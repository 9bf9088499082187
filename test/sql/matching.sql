-- Which policies a connection gets what from, as in doc/policies.md.
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_alice, regress_bob, regress_reports, regress_staff;
DROP DATABASE IF EXISTS regress_shop;
RESET client_min_messages;
CREATE EXTENSION keepalive_guard;
CREATE ROLE regress_staff;
CREATE ROLE regress_reports IN ROLE regress_staff;
CREATE ROLE regress_alice IN ROLE regress_reports;
CREATE ROLE regress_bob;

-- Nothing of this is committed: keepalive_explain() sees what its transaction does.
BEGIN;
INSERT INTO keepalive_policy (name, priority, database, role, client, backend, enabled, tcp_keepalives_idle) VALUES
	('everybody', 100, NULL, NULL, NULL, NULL, true, '1s'),
	('network', 100, NULL, NULL, '10.0.0.0/8', NULL, true, '2s'),
	('subnet', 100, NULL, NULL, '10.1.0.0/16', NULL, true, '3s'),
	('clients', 100, NULL, NULL, NULL, 'client', true, '4s'),
	('database', 100, 'contrib_regression', NULL, NULL, NULL, true, '5s'),
	('role', 100, NULL, 'regress_alice', NULL, NULL, true, '6s'),
	('role in database', 100, 'contrib_regression', 'regress_alice', NULL, NULL, true, '7s'),
	('group', 200, NULL, '+regress_staff', NULL, NULL, true, '8s'),
	('regex', 300, '/^postgre', '/^regress_', NULL, NULL, true, '9s'),
	('standbys', 50, NULL, NULL, NULL, 'replication', true, '10s'),
	('nowhere', 40, 'regress_shop', NULL, NULL, NULL, true, '11s'),
	('nobody', 40, NULL, 'regress_nobody', NULL, NULL, true, '12s'),
	('no group', 40, NULL, '+regress_no_group', NULL, NULL, true, '13s'),
	('not now', 1, NULL, NULL, NULL, NULL, false, '14s');

-- All policies in match order, with the reason if one does not match or gives nothing
SELECT position, kind, policy, priority, matches, gives, reason
FROM keepalive_explain('contrib_regression', 'regress_alice', '10.1.2.3')
WHERE kind = 'policy';

CREATE FUNCTION first_policy(text, text, inet DEFAULT NULL, text DEFAULT 'client') RETURNS text
LANGUAGE sql AS $$
	SELECT policy FROM keepalive_explain($1, $2, $3, $4) WHERE gives @> '{tcp_keepalives_idle}' AND kind = 'policy'
$$;

SELECT first_policy('contrib_regression', 'regress_alice', '10.1.2.3');
SELECT first_policy('postgres', 'regress_alice', '10.1.2.3');
SELECT first_policy('contrib_regression', 'regress_bob', '10.1.2.3');
SELECT first_policy('postgres', 'regress_bob', '10.1.2.3');
SELECT first_policy('postgres', 'regress_bob');
SELECT first_policy(NULL, 'regress_bob', '10.1.2.3', 'replication');
DELETE FROM keepalive_policy WHERE name IN ('clients', 'standbys');
SELECT first_policy(NULL, 'regress_bob', '10.1.2.3', 'replication');
SELECT first_policy('postgres', 'regress_bob', '10.2.0.1');
SELECT first_policy('postgres', 'regress_bob', '::ffff:10.2.0.1');
SELECT first_policy('postgres', 'regress_bob', '192.0.2.1');

-- Policies that are later in match order
DELETE FROM keepalive_policy WHERE priority = 100;
SELECT first_policy('contrib_regression', 'regress_alice');
SELECT first_policy('postgres', 'regress_bob');
SELECT first_policy('contrib_regression', 'regress_bob') IS NULL AS without_policy;

-- Roles and databases that do not exist (yet)
SELECT first_policy('regress_shop', 'regress_nobody');
ROLLBACK;

-- Policies compose: each setting comes from the first policy that sets it
BEGIN;
INSERT INTO keepalive_policy (name, priority, role, tcp_keepalives_idle, tcp_keepalives_interval,
	tcp_keepalives_count, client_connection_check_interval, dead_after, enforcement) VALUES
	('baseline', 1000, NULL, '60s', '10s', 3, '20s', '45s', 'ceiling'),
	('alice', 100, 'regress_alice', '30s', NULL, NULL, NULL, NULL, 'default'),
	('alice again', 200, 'regress_alice', '31s', NULL, NULL, NULL, NULL, 'default');
INSERT INTO keepalive_policy (name, priority, role) VALUES ('empty', 100, '+regress_staff');
PREPARE composition AS
	SELECT kind, policy, gives, reason, enforcement, final, log_only, tcp_keepalives_idle AS idle,
		tcp_keepalives_interval AS "interval", tcp_keepalives_count AS count,
		client_connection_check_interval AS "check", dead_after
	FROM keepalive_explain('contrib_regression', 'regress_alice', '10.1.2.3')
	WHERE kind <> 'postgresql';
EXECUTE composition;

-- PostgreSQL's row depends on the system; what it gives does not
SELECT kind, policy, matches, gives, enforcement
FROM keepalive_explain('contrib_regression', 'regress_alice', '10.1.2.3') WHERE kind = 'postgresql';

-- The settings of the role
ALTER ROLE regress_alice SET tcp_keepalives_interval = 5;
ALTER ROLE regress_alice SET tcp_keepalives_count = 100;
ALTER ROLE regress_alice SET client_connection_check_interval = '1h';
EXECUTE composition;
ALTER ROLE regress_alice RESET ALL;

-- A policy that only logs takes nobody's place
UPDATE keepalive_policy SET log_only = true, dead_after = '20s' WHERE name = 'alice';
EXECUTE composition;

-- What a final policy leaves NULL is PostgreSQL's
UPDATE keepalive_policy SET log_only = false, final = true WHERE name = 'alice';
SELECT policy, gives, final, reason FROM keepalive_explain('contrib_regression', 'regress_alice', '10.1.2.3');

-- An exemption
UPDATE keepalive_policy SET dead_after = NULL, tcp_keepalives_idle = NULL WHERE name = 'alice';
SELECT policy, gives, final, reason FROM keepalive_explain('contrib_regression', 'regress_alice', '10.1.2.3');

-- Over a Unix socket only the client check has an effect
UPDATE keepalive_policy SET enabled = false WHERE name = 'alice';
SELECT policy, gives, keepalive, tcp_keepalives_idle AS idle, client_connection_check_interval AS "check", dead_after, detects_idle
FROM keepalive_explain('contrib_regression', 'regress_alice') WHERE kind = 'outcome' OR policy = 'baseline';
DEALLOCATE composition;
ROLLBACK;

-- Arguments
SELECT * FROM keepalive_explain('postgres', 'regress_bob', NULL, 'walsender');
SELECT * FROM keepalive_explain(0);

DROP EXTENSION keepalive_guard;
DROP ROLE regress_alice, regress_bob, regress_reports, regress_staff;
