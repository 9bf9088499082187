-- Policies can be edited only in keepalive_guard.database: in another database it is an
-- error with a hint.  The reading functions work in every database.
CREATE DATABASE test_elsewhere;
\set here :DBNAME
\c test_elsewhere
CREATE EXTENSION keepalive_guard;
CREATE EXTENSION pgtap;

CREATE FUNCTION pg_temp.refusal(command text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	state text; message text; detail text; hint text;
BEGIN
	EXECUTE command;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
		detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', state, message, detail, hint);
END $$;

SELECT plan(7);

SELECT is(
	pg_temp.refusal(command),
	format(E'55000\n'
		'keepalive policies cannot be edited in database "test_elsewhere"\n'
		'The policies of this cluster are those in database "%1$s" (keepalive_guard.database).\n'
		'Connect to database "%1$s" and edit keepalive_policy there.',
		current_setting('keepalive_guard.database')),
	split_part(command, ' ', 1) || ' is refused')
FROM unnest(ARRAY[
	$$INSERT INTO keepalive_policy (name) VALUES ('elsewhere')$$,
	$$COPY keepalive_policy (name) FROM PROGRAM 'echo elsewhere'$$,
	$$TRUNCATE keepalive_policy$$]) command;

-- A row inserted while the trigger is disabled
ALTER TABLE keepalive_policy DISABLE TRIGGER keepalive_policy_guard;
INSERT INTO keepalive_policy (name) VALUES ('without trigger');
ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard;
SELECT alike(
	pg_temp.refusal(command), E'55000\nkeepalive policies cannot be edited%',
	split_part(command, ' ', 1) || ' is refused')
FROM unnest(ARRAY[
	$$UPDATE keepalive_policy SET priority = 1$$,
	$$DELETE FROM keepalive_policy$$]) command;

SELECT is(count(*), 1::bigint, 'keepalive_status() works in another database')
FROM keepalive_status() WHERE pid = pg_backend_pid();
SELECT is_empty('SELECT * FROM keepalive_explain(current_database(), current_user) WHERE kind = ''policy''',
	'policies in another database are not used');

SELECT * FROM finish();

\c :here
DROP DATABASE test_elsewhere;
