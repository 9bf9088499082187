-- INSERT, UPDATE and COPY refuse invalid values for keepalive_policy.  The error names
-- column, policy, value and bounds.  The bounds themselves are accepted.
BEGIN;

CREATE TEMP TABLE bad_value (
	number serial,
	column_name text,
	value text,
	detail text,
	hint text DEFAULT ''
);

INSERT INTO bad_value (column_name, value, detail) VALUES
	('name', NULL, 'A policy must have a name.'),
	('name', '', 'The name of a policy must not be empty.'),
	('name', repeat('n', 64), 'The name of a policy can be at most 63 bytes long.'),
	('name', repeat('é', 32), 'The name of a policy can be at most 63 bytes long.'),
	('priority', NULL, 'A policy must have a priority.'),
	('enabled', NULL, 'The value must be true or false.'),
	('tcp_keepalives_count', '-1', 'The value must be a number of probes from 0 to 127.'),
	('tcp_keepalives_count', '128', 'The value must be a number of probes from 0 to 127.'),
	('tcp_keepalives_count', '2147483647', 'The value must be a number of probes from 0 to 127.'),
	('tcp_keepalives_count', '-2147483648', 'The value must be a number of probes from 0 to 127.');

INSERT INTO bad_value (column_name, value, detail)
	SELECT column_name, value, detail
	FROM unnest('{database,role}'::text[]) column_name,
		(VALUES
			('', 'A name must not be empty.'),
			(repeat('n', 64), 'A name can be at most 63 bytes long.'),
			(repeat('é', 32), 'A name can be at most 63 bytes long.'),
			('/', 'A regular expression must not be empty.'),
			('/' || repeat('r', 256), 'A regular expression can be at most 255 bytes long.'),
			('/(', 'The regular expression is invalid: parentheses () not balanced.'),
			('/[a', 'The regular expression is invalid: brackets [] not balanced.'),
			('/*', 'The regular expression is invalid: quantifier operand invalid.'),
			('/((a{1,40}){1,40}){1,40}x', 'The regular expression is too big to be matched at each login: its repetitions written out have 64001 characters, and at most 256 are allowed.'),
			('/(a{255}){255}', 'The regular expression is too big to be matched at each login: its repetitions written out have 65025 characters, and at most 256 are allowed.')
		) bad (value, detail);

INSERT INTO bad_value (column_name, value, detail) VALUES
	('role', '+', 'The name of a group must not be empty.'),
	('role', '+' || repeat('g', 64), 'The name of a group can be at most 63 bytes long.');

INSERT INTO bad_value (column_name, value, detail)
	SELECT 'backend', value,
		'The value must be "client" or "replication", or null for both.'
	FROM unnest('{"",Client,walsender,"client backend"," client"}'::text[]) value;

INSERT INTO bad_value (column_name, value, detail)
	SELECT 'enforcement', value,
		'The value must be "default", "ceiling" or "locked".'
	FROM unnest('{"",Locked,none,NULL,"locked "}'::text[]) value;

-- Intervals: values without months, then values with months.
INSERT INTO bad_value (column_name, value, detail)
	SELECT column_name, value,
		'The value must be a whole number of seconds from 0 to 32767.'
	FROM unnest('{tcp_keepalives_idle,tcp_keepalives_interval}'::text[]) column_name,
		unnest('{-1 s,-32767 s,-1 day,32768 s,9:06:08,1 day,2147483647 days,-2147483648 days,
			1.5 s,500 ms,0.999999 s,32767.000001 s,-0.5 s}'::text[]) value;
INSERT INTO bad_value (column_name, value, detail)
	SELECT column_name, value,
		'The value must be a whole number of milliseconds from 0 to 2147483647.'
	FROM unnest('{tcp_user_timeout,client_connection_check_interval,dead_after,stall_timeout}'::text[]) column_name,
		unnest('{-1 ms,-1 s,-1 day,24 days 20:31:23.648,25 days,2147483647 days,-2147483648 days,
			500 us,0.0005 s,1.0001 s,-0.0001 s}'::text[]) value;
INSERT INTO bad_value (column_name, value, detail, hint)
	SELECT column_name, value,
		format('The value must be a whole number of %s.',
			CASE WHEN column_name LIKE 'tcp_keepalives_%' THEN 'seconds from 0 to 32767'
				ELSE 'milliseconds from 0 to 2147483647' END),
		'Months and years have no fixed length: give days or less.'
	FROM unnest('{tcp_keepalives_idle,tcp_keepalives_interval,tcp_user_timeout,
			client_connection_check_interval,dead_after,stall_timeout}'::text[]) column_name,
		unnest('{1 month,-1 month,1 year,1 month -30 days,178000000 years}'::text[]
			|| CASE WHEN current_setting('server_version_num')::int >= 170000
				THEN '{infinity,-infinity}'::text[] END) value;

-- Values that the column's type refuses
CREATE TEMP TABLE bad_syntax (column_name text, value text, sqlstate text);
INSERT INTO bad_syntax VALUES
	('priority', 'first', '22P02'),
	('priority', '2147483648', '22003'),
	('client', '10.1.2.3/8', '22P02'),
	('client', '10.0.0.0/33', '22P02'),
	('client', 'db.example.com', '22P02'),
	('keepalive', 'maybe', '22P02'),
	('enabled', 'maybe', '22P02'),
	('tcp_keepalives_idle', 'soon', '22007'),
	('tcp_keepalives_idle', '', '22007'),
	('tcp_keepalives_count', '1.5', '22P02'),
	('tcp_keepalives_count', '2147483648', '22003'),
	('tcp_user_timeout', '4 parsecs', '22007');

CREATE TEMP TABLE good_value (column_name text, value text);
INSERT INTO good_value VALUES
	('name', 'n'),
	('name', repeat('n', 63)),
	('name', repeat('é', 31)),
	('name', 'with "quotes", 100 % and a line' || E'\n' || 'break'),
	('priority', '-2147483648'),
	('priority', '2147483647'),
	('database', repeat('n', 63)),
	('database', '+no group here'),
	('database', '/' || repeat('r', 255)),
	('database', '/^(app|web)_\d+$'),
	('role', repeat('n', 63)),
	('role', '+' || repeat('g', 63)),
	('role', '/' || repeat('r', 255)),
	('role', '//'),
	('role', 'nobody of that name'),
	('client', '0.0.0.0/0'),
	('client', '10.1.2.3'),
	('client', '::/0'),
	('client', '::ffff:10.0.0.0/104'),
	('backend', 'client'),
	('backend', 'replication'),
	('keepalive', 'false'),
	('keepalive', 'true'),
	('tcp_keepalives_count', '0'),
	('tcp_keepalives_count', '127'),
	('enforcement', 'default'),
	('enforcement', 'ceiling'),
	('enforcement', 'locked'),
	('enabled', 'false'),
	('comment', '');
INSERT INTO good_value
	SELECT column_name, NULL
	FROM unnest('{database,role,client,backend,keepalive,tcp_keepalives_idle,tcp_keepalives_interval,
		tcp_keepalives_count,tcp_user_timeout,client_connection_check_interval,dead_after,stall_timeout,
		comment}'::text[]) column_name;
INSERT INTO good_value
	SELECT column_name, value
	FROM unnest('{tcp_keepalives_idle,tcp_keepalives_interval}'::text[]) column_name,
		unnest('{0,1,60,32767 s,9:06:07,1 day -23:59:30,1000 ms}'::text[]) value;
INSERT INTO good_value
	SELECT column_name, value
	FROM unnest('{tcp_user_timeout,client_connection_check_interval,dead_after,stall_timeout}'::text[]) column_name,
		unnest('{0,1 ms,4,1.5 s,32768 s,24 days 20:31:23.647,1 day -24:00:00}'::text[]) value;

-- "null", or the value in double quotes as its type prints it
CREATE FUNCTION pg_temp.shown(of_column text, value text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	type text := format_type(atttypid, NULL) FROM pg_attribute
		WHERE attrelid = 'keepalive_policy'::regclass AND attname = of_column;
	shown text;
BEGIN
	EXECUTE format('SELECT %L::%s::text', value, type) INTO shown;
	RETURN coalesce('"' || shown || '"', 'null');
END $$;

-- The complete error of a command
CREATE FUNCTION pg_temp.refusal(command text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	state text; table_name text; column_name text; message text; detail text; hint text;
BEGIN
	EXECUTE command;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, table_name = TABLE_NAME,
		column_name = COLUMN_NAME, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', state, table_name, column_name, message, detail, hint);
END $$;

CREATE FUNCTION pg_temp.expected(bad bad_value, policy text) RETURNS text
LANGUAGE sql AS $$
	SELECT concat_ws(E'\n', '22023', 'keepalive_policy', bad.column_name,
		format('invalid value for column "%s" of keepalive policy "%s": %s', bad.column_name, policy,
			pg_temp.shown(bad.column_name, bad.value)),
		bad.detail, bad.hint)
$$;

-- The policy's name as an error shows it: cut to 63 bytes
CREATE FUNCTION pg_temp.called(value text) RETURNS text
LANGUAGE sql AS $$
	SELECT coalesce(CASE WHEN value LIKE 'é%' THEN left(value, 31) ELSE left(value, 63) END, '')
$$;

CREATE FUNCTION pg_temp.insert_of(column_name text, value text) RETURNS text
LANGUAGE sql AS $$
	SELECT CASE column_name
		WHEN 'name' THEN format('INSERT INTO keepalive_policy (name) VALUES (%L)', value)
		ELSE format('INSERT INTO keepalive_policy (name, %I) VALUES (''new'', %L)', column_name, value)
	END
$$;

CREATE FUNCTION pg_temp.update_of(column_name text, value text) RETURNS text
LANGUAGE sql AS $$
	SELECT format('UPDATE keepalive_policy SET %I = %L WHERE name = ''old''', column_name, value)
$$;

CREATE FUNCTION pg_temp.copy_of(column_name text, value text) RETURNS text
LANGUAGE sql AS $$
	SELECT format('COPY keepalive_policy (%s) FROM PROGRAM %L',
		CASE column_name WHEN 'name' THEN 'name' ELSE 'name, ' || column_name END,
		format('printf ''%s\n'' ''%s''',
			CASE column_name WHEN 'name' THEN '%s' ELSE 'new\t%s' END,
			coalesce(value, '\N')))
$$;

SELECT plan((SELECT 3 * count(*) FROM bad_value)::int
	+ (SELECT 2 * count(*) FROM bad_syntax)::int
	+ (SELECT 2 * count(*) FROM good_value)::int
	+ 20);

INSERT INTO keepalive_policy (name) VALUES ('old');

SELECT is(
	pg_temp.refusal(pg_temp.insert_of(bad.column_name, bad.value)),
	pg_temp.expected(bad, CASE bad.column_name WHEN 'name' THEN pg_temp.called(bad.value) ELSE 'new' END),
	format('INSERT refuses %s %s', bad.column_name, left(bad.value, 20)))
FROM bad_value bad ORDER BY number;

SELECT is(
	pg_temp.refusal(pg_temp.update_of(bad.column_name, bad.value)),
	pg_temp.expected(bad, CASE bad.column_name WHEN 'name' THEN pg_temp.called(bad.value) ELSE 'old' END),
	format('UPDATE refuses %s %s', bad.column_name, left(bad.value, 20)))
FROM bad_value bad ORDER BY number;

SELECT is(
	pg_temp.refusal(pg_temp.copy_of(bad.column_name, bad.value)),
	pg_temp.expected(bad, CASE bad.column_name WHEN 'name' THEN pg_temp.called(bad.value) ELSE 'new' END),
	format('COPY refuses %s %s', bad.column_name, left(bad.value, 20)))
FROM bad_value bad ORDER BY number;

SELECT throws_ok(pg_temp.insert_of(column_name, value), sqlstate, NULL,
	format('INSERT refuses a value that its type refuses: %s %s', column_name, value))
FROM bad_syntax;

SELECT throws_ok(pg_temp.update_of(column_name, value), sqlstate, NULL,
	format('UPDATE refuses a value that its type refuses: %s %s', column_name, value))
FROM bad_syntax;

SELECT throws_ok(
	$$INSERT INTO keepalive_policy (name, priority) VALUES ('good', 1), ('bad', NULL)$$,
	'22023', NULL, 'INSERT refuses a bad row together with good ones');

SELECT results_eq('SELECT name, priority FROM keepalive_policy', $$VALUES ('old' COLLATE "C", 100)$$,
	'the refused commands have changed nothing');

-- Values that are accepted, one at a time
CREATE FUNCTION pg_temp.stored(of_column text, name text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	value text;
BEGIN
	EXECUTE format('SELECT %I::text FROM keepalive_policy WHERE name = %L', of_column, name) INTO value;
	DELETE FROM keepalive_policy p WHERE p.name = stored.name;
	RETURN value;
END $$;

CREATE FUNCTION pg_temp.kept(command text, of_column text, value text, name text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE command;
	RETURN coalesce('"' || pg_temp.stored(of_column, CASE of_column WHEN 'name' THEN value ELSE name END) || '"',
		'null');
END $$;

SELECT is(
	pg_temp.kept(pg_temp.insert_of(column_name, value), column_name, value, 'new'),
	pg_temp.shown(column_name, value),
	format('INSERT accepts %s %s', column_name, left(replace(value, E'\n', ' '), 40)))
FROM good_value;

CREATE FUNCTION pg_temp.fresh_row() RETURNS void
LANGUAGE sql AS $$
	DELETE FROM keepalive_policy;
	INSERT INTO keepalive_policy (name) VALUES ('old');
$$;

SELECT is(
	pg_temp.kept(format('SELECT pg_temp.fresh_row(); %s', pg_temp.update_of(column_name, value)),
		column_name, value, 'old'),
	pg_temp.shown(column_name, value),
	format('UPDATE accepts %s %s', column_name, left(replace(value, E'\n', ' '), 40)))
FROM good_value;

SELECT lives_ok(
	$$COPY keepalive_policy (name, role, client, tcp_keepalives_idle, enforcement)
		FROM PROGRAM 'printf ''one\t\\N\t10.0.0.0/8\t60 s\tlocked\ntwo\t+group\t\\N\t0\tceiling\n'''$$,
	'COPY accepts good rows');
SELECT results_eq(
	$$SELECT name::text, role, client, tcp_keepalives_idle, enforcement FROM keepalive_policy ORDER BY name$$,
	$$VALUES ('one' COLLATE "C", NULL, '10.0.0.0/8'::cidr, '60 s'::interval, 'locked'),
		('two', '+group', NULL, '0', 'ceiling')$$,
	'COPY has stored all good rows');

-- Regular expressions that take long: the number of transitions is PostgreSQL's.
CREATE FUNCTION pg_temp.detail_of(pattern text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	INSERT INTO keepalive_policy (name, role) VALUES (md5(pattern), '/' || pattern);
	RETURN 'accepted';
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN detail;
END
$$;
SELECT is(pg_temp.detail_of('^(a+)+\1$'),
	'The regular expression has a back reference, which cannot be matched in bounded time.',
	'a back reference is refused');
SELECT is(pg_temp.detail_of('(\y|a){9}'),
	'The regular expression is too complex to be matched at each login: its constraints (^, $ and the like; \y and the like count twice, and all more often in repetitions) are 18, and at most 16 are allowed.',
	'many constraints are refused');
SELECT matches(pg_temp.detail_of('(a?){100}'),
	'^The regular expression is too complex to be matched at each login: its automaton has \d+ transitions, and at most 3000 are allowed\.$',
	'an automaton with many transitions is refused');
SELECT is(pg_temp.detail_of(pattern),
	'The regular expression begins with "***" or with embedded options; only the options (?i) and (?c) are supported.',
	'it is refused, because it is read in another way: ' || translate(pattern, E'\n', ' '))
FROM (VALUES ('(?b)\(\y\|a\)\{20\}'), ('(?e)[\](\y|a){20}'), (E'(?x)#[\n(\\y|a){20}'), ('***:(?b)a'), ('***=a')) AS p (pattern);
SELECT is(pg_temp.detail_of('(?i)^Shop'), 'accepted', 'a regular expression that ignores case is accepted');
SELECT matches(pg_temp.detail_of(pattern), 'its constraints .* are \d+, and at most 16 are allowed\.$',
	'copies of constraints count: ' || pattern)
FROM (VALUES ('(((\y|a)+)+){8}'), ('((\y|){0,4})*'), ('(((\y|a){1,}){1,}){8}'), ('(?#[)(\y|a){20}'), ('[\c][](\y|a){20}'), ('(\y\c)a){20}')) AS p (pattern);
SELECT is(pg_temp.detail_of('^(prod|test|dev)_[a-z0-9]{1,20}(_ro|_rw)?$'), 'accepted',
	'a regular expression as names need them is accepted');

SELECT * FROM finish();
ROLLBACK;
