-- SQL and library of different versions: every C function of the extension, defined with
-- other arguments or another result than the library has, raises an error.
BEGIN;

-- Everything that the library provides, as its SQL definition has it.
CREATE TEMP TABLE definition AS
	SELECT
		proname::text AS name,
		prosrc AS symbol,
		format_type(prorettype, NULL) AS returns,
		proretset AS set,
		ARRAY(SELECT format_type(type, NULL) FROM unnest(proargtypes) WITH ORDINALITY AS a (type, n) ORDER BY n) AS arguments,
		ARRAY(SELECT proargnames[n] FROM unnest(proargmodes) WITH ORDINALITY AS m (mode, n) WHERE mode = 'o' ORDER BY n) AS names,
		ARRAY(SELECT format_type(proallargtypes[n], NULL) FROM unnest(proargmodes) WITH ORDINALITY AS m (mode, n) WHERE mode = 'o' ORDER BY n) AS types
	FROM pg_proc
		JOIN pg_depend ON classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e'
		JOIN pg_extension ON refclassid = 'pg_extension'::regclass AND refobjid = pg_extension.oid
	WHERE extname = 'keepalive_guard' AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'c');

CREATE FUNCTION pg_temp.other(type text) RETURNS text LANGUAGE sql RETURN
	CASE type WHEN 'text' THEN 'integer' ELSE 'text' END;
-- An array without its i-th element, or with another before it.
CREATE FUNCTION pg_temp.without(list text[], i bigint) RETURNS text[] LANGUAGE sql RETURN
	list[:i - 1] || list[i + 1:];
CREATE FUNCTION pg_temp.inserted(list text[], i bigint, element text) RETURNS text[] LANGUAGE sql RETURN
	list[:i - 1] || element || list[i:];

CREATE TEMP TABLE variant AS
	SELECT name, symbol, 'unchanged' AS change, returns, set, arguments, names, types FROM definition
	UNION ALL
	SELECT name, symbol, 'set', returns, NOT set, arguments, names, types FROM definition
	UNION ALL
	SELECT name, symbol, 'returns ' || other, other, set, arguments, '{}', '{}'
	FROM definition CROSS JOIN unnest('{void,integer,text,record,pg_class}'::text[]) AS other
	WHERE other <> returns OR other = 'record'
	UNION ALL
	SELECT name, symbol, 'argument added', returns, set, pg_temp.inserted(arguments, i, 'integer'), names, types
	FROM definition CROSS JOIN generate_series(1, cardinality(arguments) + 1) AS i
	UNION ALL
	SELECT d.name, d.symbol, v.change, returns, set, v.arguments, names, types
	FROM definition AS d CROSS JOIN unnest(arguments) WITH ORDINALITY AS argument (type, i)
		CROSS JOIN LATERAL (VALUES
			('argument missing', pg_temp.without(arguments, i)),
			('argument of another type', pg_temp.inserted(pg_temp.without(arguments, i), i, pg_temp.other(type))))
			AS v (change, arguments)
	UNION ALL
	SELECT name, symbol, 'column added', returns, set, arguments,
		pg_temp.inserted(names, i, 'added'), pg_temp.inserted(types, i, 'integer')
	FROM definition CROSS JOIN generate_series(1, cardinality(names) + 1) AS i
	WHERE cardinality(names) > 0
	UNION ALL
	SELECT d.name, d.symbol, v.change, returns, set, arguments, v.names, v.types
	FROM definition AS d CROSS JOIN unnest(types) WITH ORDINALITY AS type (type, i)
		CROSS JOIN LATERAL (VALUES
			('column missing', pg_temp.without(names, i), pg_temp.without(types, i)),
			('column of another type', names, pg_temp.inserted(pg_temp.without(types, i), i, pg_temp.other(type))),
			('column of another name', pg_temp.inserted(pg_temp.without(names, i), i, 'renamed'), types))
			AS v (change, names, types);

-- Defines a variant, calls it in a FROM clause and in a SELECT list, with values and
-- with NULLs, and returns what it answers if that is no error of its own.
CREATE FUNCTION pg_temp.answers(v variant) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	input text := (SELECT string_agg(type, ', ' ORDER BY i) FROM unnest(v.arguments) WITH ORDINALITY AS a (type, i));
	output text := (SELECT string_agg(format('OUT %I %s', name, type), ', ' ORDER BY i)
		FROM unnest(v.names, v.types) WITH ORDINALITY AS o (name, type, i));
	given text := (SELECT string_agg(format('%L::%s',
			CASE type WHEN 'text' THEN 'x' WHEN 'interval' THEN '1 min' WHEN 'inet' THEN '192.0.2.1' ELSE '1' END, type), ', ' ORDER BY i)
		FROM unnest(v.arguments) WITH ORDINALITY AS a (type, i));
	nulls text := (SELECT string_agg('NULL::' || type, ', ' ORDER BY i) FROM unnest(v.arguments) WITH ORDINALITY AS a (type, i));
	call text;
	state text;
	message text;
	hint text;
BEGIN
	EXECUTE format('CREATE FUNCTION pg_temp.variant(%s) RETURNS %s %s LANGUAGE c AS ''$libdir/keepalive_guard'', %L',
		concat_ws(', ', input, output), CASE WHEN v.set THEN 'SETOF' END, v.returns, v.symbol);
	FOREACH call IN ARRAY ARRAY[
		format('SELECT pg_temp.variant(%s)', given), format('SELECT pg_temp.variant(%s)', nulls),
		format(CASE
				WHEN v.returns = 'trigger' THEN 'SELECT pg_temp.variant(%s)' -- not allowed in FROM
				WHEN v.returns = 'record' AND output IS NULL THEN 'SELECT * FROM pg_temp.variant(%s) AS v (a integer, b text)'
				ELSE 'SELECT * FROM pg_temp.variant(%s)' END, given)]
	LOOP
		BEGIN
			EXECUTE call;
			RETURN NEXT format('%s: no error', call);
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
			IF state <> '42804' OR message !~ '^SQL definition of function .* does not match the loaded library$'
				OR hint !~ 'ALTER EXTENSION keepalive_guard UPDATE' THEN
				RETURN NEXT format('%s: %s %s', call, state, message);
			END IF;
		END;
	END LOOP;
	DROP FUNCTION pg_temp.variant;
END $$;

SELECT plan(7 + count(*)::integer) FROM definition;

SELECT cmp_ok((SELECT count(*) FROM definition), '>=', 12::bigint, 'the library''s functions are found');
SELECT cmp_ok((SELECT count(*) FROM variant), '>', 800::bigint, 'there are many variants of them');
SELECT is_empty(
	format('SELECT change, names, answer FROM variant AS v CROSS JOIN LATERAL pg_temp.answers(v) AS answer
		WHERE name = %L AND change <> ''unchanged''', name),
	name || '() notices every difference from its SQL definition')
FROM definition ORDER BY name;
SELECT is_empty(
	$$SELECT name FROM definition WHERE NOT EXISTS (
		SELECT FROM variant AS v CROSS JOIN LATERAL pg_temp.answers(v)
		WHERE v.name = definition.name AND change = 'unchanged')$$,
	'the definitions of the extension have none');

-- The columns of the table.
CREATE FUNCTION pg_temp.insert_after(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	EXECUTE change;
	INSERT INTO keepalive_policy (name, tcp_user_timeout) VALUES ('p', '1 min');
	RAISE SQLSTATE 'ZZZZZ';
EXCEPTION
	WHEN SQLSTATE 'ZZZZZ' THEN
		RETURN 'inserted';
	WHEN undefined_column THEN
		GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
		RETURN format('%s (%s)', SQLERRM, substring(hint FROM 'ALTER EXTENSION.*'));
END $$;
SELECT is(pg_temp.insert_after('ALTER TABLE keepalive_policy ADD COLUMN of_a_newer_version text'), 'inserted',
	'a newer table may have more columns');
SELECT is(pg_temp.insert_after('ALTER TABLE keepalive_policy DROP COLUMN client'),
	'table "keepalive_policy" has no column "client" of the expected type (ALTER EXTENSION keepalive_guard UPDATE.)',
	'a missing column of the table is noticed');
SELECT is(pg_temp.insert_after('ALTER TABLE keepalive_policy ALTER COLUMN role TYPE name'),
	'table "keepalive_policy" has no column "role" of the expected type (ALTER EXTENSION keepalive_guard UPDATE.)',
	'a column of another type is noticed');

-- From PostgreSQL 18 on a library says its name and version.
SELECT to_regprocedure('pg_get_loaded_modules()') IS NOT NULL AS has_modules \gset
\if :has_modules
	SELECT is(
		(SELECT concat_ws(' ', module_name, version) FROM pg_get_loaded_modules() WHERE file_name LIKE 'keepalive\_guard%'),
		(SELECT 'keepalive_guard ' || default_version FROM pg_available_extensions WHERE name = 'keepalive_guard'),
		'pg_get_loaded_modules() has the library''s name and version');
\else
	SELECT skip('there is no pg_get_loaded_modules()', 1);
\endif

SELECT * FROM finish();
ROLLBACK;
