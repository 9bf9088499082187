-- keepalive_report(): a page that is well-formed, escapes all names, and shows in each
-- section what the functions return that it is made of.  These return artificial rows here;
-- test/t/460_blockers.pl and test/report have real ones.
BEGIN;
CREATE ROLE test_monitor IN ROLE pg_monitor;
CREATE ROLE test_nobody;

CREATE TEMP TABLE page (source text, document xml);
GRANT ALL ON page TO PUBLIC;
-- Makes the page anew.
CREATE FUNCTION make_page() RETURNS void LANGUAGE sql AS $$
	DELETE FROM page;
	INSERT INTO page SELECT source, xmlparse(document source) FROM (SELECT keepalive_report() AS source OFFSET 0) AS made;
$$;
CREATE FUNCTION nodes(path text) RETURNS SETOF xml LANGUAGE sql AS $$
	SELECT unnest(xpath(path, document, '{{h,http://www.w3.org/1999/xhtml}}')) FROM page;
$$;
-- The text of each of these elements, with its escapes, without tags.
CREATE FUNCTION texts(path text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT btrim(regexp_replace(regexp_replace(node::text, '<[^>]*>', ' ', 'g'), '\s+', ' ', 'g')) FROM nodes(path) AS node;
$$;

SELECT plan(49);

-- --- a server without clients, policies and events --------------------------------------

SELECT throws_ok('SET ROLE test_nobody; SELECT keepalive_report()', '42501', NULL, 'not everyone can make the report');
RESET ROLE;
SET ROLE test_monitor;
SELECT lives_ok('SELECT make_page()', 'a member of pg_monitor can make the report, and it is well-formed');
RESET ROLE;
SELECT is(ARRAY(SELECT texts('//h:h2')),
	'{Health of all connections,Blocked sessions,Lost connections,Policies,Round-trip times,Paths to the clients,Findings}',
	'it has a section for each subject');
SELECT is(ARRAY(SELECT texts('//h:nav//h:a')), ARRAY(SELECT texts('//h:h2')), 'and links to them');
SELECT is_empty($$SELECT substr(href::text, 2) FROM nodes('//@href') AS href EXCEPT SELECT id::text FROM nodes('//@id') AS id$$,
	'every link leads to a part of the page');
SELECT is(ARRAY(SELECT texts('//h:section[@id="policies"]//h:tbody/h:tr/h:th')), '{no policy PostgreSQL without policies}',
	'without policies, the detection times are those of PostgreSQL');

-- --- the page ------------------------------------------------------------------------------

SELECT is((SELECT substring(source FROM 'style-src ''sha256-([^'']+)''') FROM page),
	(SELECT encode(sha256(convert_to(substring(source FROM '<style>(.*)</style>'), 'UTF8')), 'base64') FROM page),
	'the security policy has the hash of the style sheet');
SELECT is((SELECT regexp_replace(content::text, '''sha256-[^'']+''', 'hash') FROM nodes('//h:meta[@http-equiv]/@content') AS content),
	'default-src ''none''; style-src hash; base-uri ''none''; form-action ''none''', 'the security policy allows nothing else');
SELECT is_empty($$SELECT nodes('//h:script | //h:img | //h:link | //h:iframe | //@style | //@*[starts-with(name(), "on")]')$$,
	'there are no scripts, images, links to files, style attributes and handlers');
SELECT ok(source ~ '^<!DOCTYPE html>\n' AND source !~ '[^\x01-\x7f]', 'the page is HTML in ASCII') FROM page;
SELECT is_empty($$SELECT id::text FROM nodes('//@id') AS id GROUP BY 1 HAVING count(*) > 1$$, 'no two elements have the same id');
SELECT is(octet_length(source) < 30000, true, 'the page is small') FROM page;

-- --- times and numbers ------------------------------------------------------------------

SELECT is(keepalive_report_time(duration), text, format('%s is shown as %s', duration, text))
FROM (VALUES
	(interval '0', '0 ms'), ('349.6 ms', '350 ms'), ('999.6 ms', '1 s'), ('1540 ms', '1.5 s'), ('59.7 s', '1 min'), ('101.51 s', '1 min 42 s'),
	('3599.6 s', '1 h'), ('8875.202 s', '2 h 28 min'), ('86399 s', '1 d'), ('90000 s', '1 d 1 h'), ('2 mon', '60 d'), ('-1 s', '0 ms'))
	AS expected (duration, text);
SELECT is(ARRAY(SELECT keepalive_report_milliseconds(ms) FROM unnest('{0.024,0.5,5.666,12.345,1234}'::float8[]) AS ms),
	'{0.02 ms,0.5 ms,5.7 ms,12 ms,1.2 s}', 'round-trip times have two digits');
SELECT is(ARRAY(SELECT keepalive_report_count(n, 'session', 'sessions') FROM unnest('{0,1,12345}'::bigint[]) AS n),
	'{0 sessions,1 session,"12,345 sessions"}', 'numbers have the right noun');
SELECT is(ARRAY(SELECT keepalive_report_position(d) FROM unnest('{1ms,1s,1d,100d,NULL}'::interval[]) AS d), '{3.0,3.0,80.0,80.0,94}'::numeric[],
	'detection times from one second to a day, and never, have a position');

-- --- artificial rows ----------------------------------------------------------------------

-- Makes each of these functions return the rows of a table of the same name.
CREATE FUNCTION make_artificial(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE artificial.%I AS SELECT * FROM %I() LIMIT 0', name, name);
	EXECUTE format('CREATE OR REPLACE FUNCTION %I(%s) RETURNS SETOF record LANGUAGE sql VOLATILE PARALLEL RESTRICTED AS %L',
		name, pg_get_function_arguments(name::regproc), format('TABLE artificial.%I', name));
END $$;
CREATE SCHEMA artificial;
SELECT make_artificial(name) FROM unnest('{keepalive_status,keepalive_events,keepalive_stats,keepalive_policy_problems,keepalive_path_evidence,keepalive_check}'::text[]) AS name \g /dev/null
SELECT make_page() \g /dev/null
SELECT is(ARRAY(SELECT texts('//h:section[@id="blockers" or @id="lost"]//h:p[@class="empty"]')),
	'{No session waits for one whose client does not answer or does not read.,No lost connection is recorded.}',
	'sections without contents say so');

SELECT $$</td><script>alert(1)</script>&lt;"onload='x'$$ || chr(1) || chr(8238) AS evil,
	$$&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;lt;"onload='x'$$ || chr(65533) || chr(65533) AS evil_text \gset
INSERT INTO artificial.keepalive_status (pid, application_name, usename, datname, transport, client_addr, client_port, policies, health,
	silent_for, gives_up_in, rtt_ms) VALUES
	(1, 'web-1', 'app', 'shop', 'tcp', '10.0.1.5', 4001, '{app,baseline}', 'alive', '1 s', '45 s', 0.3),
	(2, 'web-2', 'app', 'shop', 'tcp', '10.0.1.6', 4002, '{app,baseline}', 'alive', '1 s', '45 s', 0.4),
	(3, 'web-3', 'app', 'shop', 'tcp', '10.0.2.5', 4003, NULL, 'alive', '1 s', '45 s', 12),
	(4, 'slow', 'app', 'shop', 'tcp', '10.0.2.6', 4004, '{app}', 'zero_window', '2 s', NULL, 30),
	(5, 'gone', 'app', 'shop', 'tcp', 'fd00::5', 4005, '{app}', 'probing', '70 s', '20 s', NULL),
	(6, 'gone', 'app', 'shop', 'tcp', '10.0.2.8', 4006, NULL, 'probing', '1 h', NULL, NULL),
	(7, '', :'evil', :'evil', 'tcp', '10.0.2.9', 4007, ARRAY[:'evil'], 'dead', '5 s', '0', NULL),
	(8, 'psql', 'postgres', 'postgres', 'unix', NULL, -1, NULL, NULL, NULL, NULL, NULL);
INSERT INTO artificial.keepalive_events (ended_at, pid, cause, policies, application_name, usename, datname, client_addr, client_port, silent_for, transaction_age)
SELECT clock_timestamp() - make_interval(mins => 30 * n), 100 + n, CASE WHEN n <= 12 THEN 'reset' ELSE 'dead_after' END, ARRAY['app'],
	'pod', 'app', 'shop', '10.0.3.1', 5000 + n, '61 s', CASE n WHEN 1 THEN interval '95 s' END
FROM generate_series(1, 18) AS n;
INSERT INTO artificial.keepalive_events (ended_at, pid, cause, policies, application_name, usename, datname) VALUES
	(clock_timestamp() - interval '40 h', 200, 'client_vanished', NULL, 'old', 'app', 'shop'),
	(clock_timestamp() - interval '1 min', 203, 'client_vanished', ARRAY[:'evil'], :'evil', :'evil', :'evil'),
	(clock_timestamp(), 201, 'client_closed', NULL, 'closed', 'app', 'shop'),
	(clock_timestamp(), 202, 'would_end', NULL, 'lives', 'app', 'shop');
INSERT INTO artificial.keepalive_stats
SELECT policy, sessions, 100, 50, 1, 2, 3, 4, 5, 6, 7, 8, 1000, 2000, 3000, 9, 4000, '2026-01-02 03:04:05'
FROM (VALUES (:'evil', 5), (NULL, 2), ('useless', 0)) AS given (policy, sessions);
INSERT INTO artificial.keepalive_policy_problems (policy, replication_only, problem, detects_idle, detects_busy) VALUES
	(:'evil', false, NULL, '101.51 s', '49 s'), ('useless', true, 'gives nothing', '10 s', '10 s'), (NULL, false, NULL, '8875 s', NULL);
INSERT INTO artificial.keepalive_path_evidence
SELECT '192.0.2.1', timestamptz '2026-01-01 00:00Z' + n * interval '1 h', CASE WHEN n <= 5 THEN interval '270 s' ELSE interval '360 s' END,
	CASE WHEN n <= 5 THEN 'survived' ELSE 'lost' END FROM generate_series(1, 10) AS n;
INSERT INTO artificial.keepalive_check VALUES
	('error', 'worker', 'the worker is not running', 'grep worker server.log'),
	('warning', :'evil', :'evil', :'evil'), ('info', 'session 5', 'something', 'SELECT 1;');
SELECT lives_ok('SELECT make_page()', 'with artificial rows, the page is well-formed');

SELECT is((SELECT texts('//h:div[contains(@class, "bad")]/h:strong')), '3 of 8 clients do not answer', 'the headline has the clients that do not answer');
SELECT is(ARRAY(SELECT texts('//h:dl/h:div')),
	ARRAY['connected sessions 8', 'clients that do not answer 3', 'blocked sessions 0', 'connections lost in the last 24 hours 19',
		'sessions without a policy 3', 'errors and warnings 2'], 'the most important numbers');
SELECT is(ARRAY(SELECT texts('//h:section[@id="health"]/h:table[1]/h:tbody/h:tr')),
	ARRAY['Given up by the kernel the session has not noticed it yet 1', 'Probes unanswered idle, and the client does not answer 2',
		'Answers, but reads nothing 1', 'Alive 3', 'On this host Unix socket 1'], 'health: sessions by state');
SELECT is((SELECT array_agg(width::text) FROM nodes('//h:section[@id="health"]/h:table[1]//h:rect[2]/@width') AS width),
	'{12.5%,25.0%,12.5%,37.5%,12.5%}', 'health: the bars have these lengths');
SELECT is(ARRAY(SELECT texts('//h:section[@id="health"]/h:table[2]/h:tbody/h:tr')),
	ARRAY[format('unnamed %1$s on %1$s , 10.0.2.9:4007, pid 7 dead 5 s 0 ms %1$s', :'evil_text'),
		'gone app on shop , 10.0.2.8:4006, pid 6 probing 1 h never none',
		'gone app on shop , [fd00::5]:4005, pid 5 probing 1 min 10 s 20 s app',
		'slow app on shop , 10.0.2.6:4004, pid 4 zero_window 2 s never app'], 'health: clients that do not answer or read, the most urgent first');
SELECT is(ARRAY(SELECT texts('//h:section[@id="lost"]/h:table[1]/h:tbody/h:tr')),
	ARRAY['Reset reset: by the client''s host after a restart, or by a device on the path 12',
		'Ended by the guard dead_after: the client did not answer 6',
		'Closed without notice client_vanished: the client was killed, or dropped the connection 2'], 'lost connections: by cause');
SELECT matches((SELECT texts('//h:section[@id="lost"]/h:table[1]/h:caption')), '^20 lost connections since .*, by cause; a column is 1 h, the highest has 2$',
	'lost connections: the caption has their number and the scale');
SELECT is((SELECT count(*) FROM nodes('//h:section[@id="lost"]/h:table[1]//h:tr[1]//h:rect[not(@class)]')) IN (6, 7), true,
	'lost connections: two an hour for six hours are six or seven columns');
SELECT is((SELECT count(*) FROM nodes('//h:section[@id="lost"]/h:table[2]/h:tbody/h:tr')), 15::bigint, 'lost connections: the latest are listed');
SELECT is((SELECT texts('//h:section[@id="lost"]/h:table[2]/h:tbody/h:tr[2]')),
	(SELECT to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS') FROM artificial.keepalive_events WHERE pid = 101)
	|| ' pod app on shop , 10.0.3.1:5001, pid 101 reset 1 min 1 s 1 min 35 s app', 'lost connections: what is known of each');
SELECT is(ARRAY(SELECT texts('//h:section[@id="policies"]/h:table/h:tbody/h:tr')),
	ARRAY[format('%s 1 min 42 s 49 s 5 45', :'evil_text'), 'useless has no effect: see the findings replication – – 0 45',
		'no policy PostgreSQL without policies 2 h 28 min never 2 45'], 'policies: their promises, sessions and lost connections');
SELECT is(ARRAY(SELECT width::text FROM nodes('//h:section[@id="policies"]//h:td[@class="plot"]//h:circle/@cx') AS width),
	ARRAY[keepalive_report_position('101.51 s') || '%', keepalive_report_position('8875 s') || '%'], 'policies: the picture has the time of idle sessions');
SELECT is((SELECT texts('//h:section[@id="round-trips"]/h:p[not(@class)]')),
	'Half of the clients answer within 6.2 ms , nineteen of twenty within 27 ms , the slowest needs 30 ms .', 'round-trip times: in a sentence');
SELECT is(ARRAY(SELECT texts('//h:section[@id="round-trips"]/h:table[1]/h:tbody/h:tr')),
	'{0.2 to 0.5 ms 2,0.5 to 1 ms 0,1 to 2 ms 0,2 to 5 ms 0,5 to 10 ms 0,10 to 20 ms 1,20 to 50 ms 1}', 'round-trip times: as a histogram');
SELECT is(ARRAY(SELECT texts('//h:section[@id="round-trips"]/h:table[2]/h:tbody/h:tr')),
	'{10.0.2.0/24 2 21 ms 30 ms,10.0.1.0/24 2 0.35 ms 0.4 ms}', 'round-trip times: by network');
SELECT is(ARRAY(SELECT texts('//h:section[@id="paths"]/h:table/h:tbody/h:tr')),
	'{192.0.2.0/24 drops idle connections 5 4 min 30 s 5 at most 6 min 45 s 4 min}', 'paths: the observed timeout');
SELECT is(ARRAY(SELECT texts('//h:section[@id="findings"]//h:li')),
	ARRAY['error worker the worker is not running grep worker server.log',
		format('warning %1$s %1$s %1$s', :'evil_text'), 'info session 5 something SELECT 1;'], 'findings: with their commands');

SELECT is((SELECT count(*) FROM nodes('//*[contains(., "alert(1)")]') AS node WHERE node::text ~ '^<bdi'), 11::bigint, 'all names are text');
SELECT is_empty($$SELECT nodes('//@*[contains(., "alert(1)")]')$$, 'no name is in an attribute');
SELECT is_empty($$SELECT nodes('//h:script | //@onload')$$, 'no name is an element');

SELECT * FROM finish();
ROLLBACK;
