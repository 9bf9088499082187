-- What README.md shows.  The server has keepalive_guard preloaded, with
-- keepalive_guard.database = 'contrib_regression', and trusts 127.0.0.1.
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_app;
RESET client_min_messages;
\set superuser :USER
CREATE EXTENSION keepalive_guard;
CREATE ROLE regress_app LOGIN;

-- A first policy
INSERT INTO keepalive_policy (name, role,
	tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, dead_after)
VALUES ('app', 'regress_app', '60s', '10s', 3, '45s');

-- In force everywhere within a second; who cannot wait:
SELECT overridden, failed, pending FROM keepalive_apply();

SELECT policy, wins, reason, tcp_keepalives_idle, detects_idle, detects_busy
FROM keepalive_explain('contrib_regression', 'regress_app', '10.0.0.5')
WHERE policy IS NOT NULL;

-- It is in force before the session's first query
\c - regress_app 127.0.0.1
SHOW tcp_keepalives_idle;

SELECT policy, policy_state, keepalive, tcp_keepalives_idle, tcp_keepalives_interval,
	tcp_keepalives_count, health, detects_idle, detects_busy
FROM keepalive_status() WHERE pid = pg_backend_pid();

-- By default a session may choose for itself, which shows
SET tcp_keepalives_idle = '2h';
SELECT policy_state, tcp_keepalives_idle FROM keepalive_status() WHERE pid = pg_backend_pid();
RESET tcp_keepalives_idle;
SELECT policy_state, tcp_keepalives_idle FROM keepalive_status() WHERE pid = pg_backend_pid();

-- A ceiling: only what is stricter
\c - :superuser
UPDATE keepalive_policy SET enforcement = 'ceiling' WHERE name = 'app';
SELECT pending FROM keepalive_apply();
\c - regress_app
SET tcp_keepalives_idle = '2h';
SET tcp_keepalives_idle = 0;
SET tcp_keepalives_idle = '30s';
SELECT policy_state, tcp_keepalives_idle FROM keepalive_status() WHERE pid = pg_backend_pid();
SET tcp_user_timeout = '1min'; -- no matter of the policy

-- Locked
\c - :superuser
UPDATE keepalive_policy SET enforcement = 'locked' WHERE name = 'app';
SELECT pending FROM keepalive_apply();
\c - regress_app
SET tcp_keepalives_idle = '30s';
SELECT set_config('tcp_keepalives_count', '9', false);
SHOW tcp_keepalives_idle;

-- A role looks at its own sessions, and that is all
SELECT policy FROM keepalive_status() WHERE pid = pg_backend_pid();
SELECT * FROM keepalive_policy;
SELECT * FROM keepalive_explain('contrib_regression', 'regress_app');
SELECT * FROM keepalive_apply();

-- What is no policy is refused
\c - :superuser
UPDATE keepalive_policy SET tcp_keepalives_idle = '1 day' WHERE name = 'app';
UPDATE keepalive_policy SET tcp_keepalives_interval = '500 ms' WHERE name = 'app';
INSERT INTO keepalive_policy (name, role, dead_after) VALUES ('reports', '/^report(', '1 month');

-- Two-phase commit
BEGIN;
DELETE FROM keepalive_policy;
PREPARE TRANSACTION 'policies';

DROP EXTENSION keepalive_guard;
DROP ROLE regress_app;
