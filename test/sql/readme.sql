-- The statements in README.md.  The server has keepalive_guard preloaded, with
-- keepalive_guard.database = 'contrib_regression', and trusts 127.0.0.1.
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_app;
RESET client_min_messages;
\set superuser :USER
CREATE EXTENSION keepalive_guard;
CREATE ROLE regress_app LOGIN;

-- A plan, which can be executed again
\set ECHO none
SELECT policy FROM keepalive_plan('2 min', '350 s') \gexec
SELECT policy FROM keepalive_plan('2 min', '350 s') \gexec
\set ECHO all
SELECT name, priority, tcp_keepalives_idle, stall_timeout FROM keepalive_policy;
TRUNCATE keepalive_policy;

-- The first policies
\c - - 127.0.0.1
BEGIN;
INSERT INTO keepalive_policy (name, priority,
	tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, dead_after)
VALUES ('baseline', 1000, '2min', '10s', 3, '45s');
INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle)
VALUES ('app', 'regress_app', '60s');
INSERT INTO keepalive_policy (name, backend, tcp_keepalives_idle)
VALUES ('standbys', 'replication', '10s');

-- What a connection would get.  The row of PostgreSQL depends on the system.
SELECT kind, policy, matches, reason, gives, detects_idle, detects_busy
FROM keepalive_explain('contrib_regression', 'regress_app', '10.0.1.5')
WHERE kind <> 'postgresql';

-- What COMMIT would do.  The values of now depend on the system; the session before \c may
-- still be there.
SELECT policies_now, policies_then, changes #>> '{tcp_keepalives_idle,1}' AS idle_then,
	changes -> 'dead_after' AS dead_after, detects_idle_then
FROM keepalive_preview() WHERE pid = pg_backend_pid();
COMMIT;

-- Waits until every session has confirmed the policies
SELECT overridden, failed, pending FROM keepalive_apply();

-- The policy is in force before the first query of a session
\c - regress_app 127.0.0.1
SHOW tcp_keepalives_idle;

SELECT policies, policy_state, keepalive, tcp_keepalives_idle, tcp_keepalives_interval,
	tcp_keepalives_count, health, detects_idle, detects_busy
FROM keepalive_status() WHERE pid = pg_backend_pid();

-- By default a session can override the policy
SET tcp_keepalives_idle = '2h';
SELECT policy_state, tcp_keepalives_idle FROM keepalive_status() WHERE pid = pg_backend_pid();
RESET tcp_keepalives_idle;
SELECT policy_state, tcp_keepalives_idle FROM keepalive_status() WHERE pid = pg_backend_pid();

-- A ceiling: a session can only choose a stricter value
\c - :superuser
UPDATE keepalive_policy SET enforcement = 'ceiling' WHERE name = 'app';
SELECT pending FROM keepalive_apply();
\c - regress_app
SET tcp_keepalives_idle = '2h';
SET tcp_keepalives_idle = 0;
SET tcp_keepalives_idle = '30s';
SELECT policy_state, tcp_keepalives_idle FROM keepalive_status() WHERE pid = pg_backend_pid();
SET tcp_user_timeout = '1min'; -- the policy leaves this setting NULL

-- Locked: a session cannot change what the policy sets
\c - :superuser
UPDATE keepalive_policy SET enforcement = 'locked' WHERE name = 'app';
SELECT pending FROM keepalive_apply();
\c - regress_app
SET tcp_keepalives_idle = '30s';
SELECT set_config('tcp_keepalives_count', '9', false);
SHOW tcp_keepalives_idle;

-- An unprivileged role sees only its own sessions
SELECT policies FROM keepalive_status() WHERE pid = pg_backend_pid();
SELECT * FROM keepalive_policy;
SELECT * FROM keepalive_explain('contrib_regression', 'regress_app');
SELECT * FROM keepalive_apply();

-- Invalid policies are refused
\c - :superuser
UPDATE keepalive_policy SET tcp_keepalives_idle = '1 day' WHERE name = 'app';
UPDATE keepalive_policy SET tcp_keepalives_interval = '500 ms' WHERE name = 'app';
INSERT INTO keepalive_policy (name, role, dead_after) VALUES ('reports', '/^report(', '1 month');

-- A transaction that has changed policies cannot be prepared
BEGIN;
DELETE FROM keepalive_policy;
PREPARE TRANSACTION 'policies';

DROP EXTENSION keepalive_guard;
DROP ROLE regress_app;
