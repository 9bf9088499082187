-- keepalive_paths: well-known idle timeouts of network paths.
BEGIN;
SELECT plan(6);

SELECT columns_are('keepalive_paths', '{path,idle_timeout,what_happens,source}'::name[]);
SELECT col_type_is('keepalive_paths', 'idle_timeout', 'interval', 'idle_timeout is an interval');
SELECT is_empty(
	$$SELECT * FROM keepalive_paths
		WHERE (path <> '' AND idle_timeout > '0' AND what_happens ~ '^(reset|silent)' AND source ~ '^https://') IS NOT TRUE$$,
	'each path has a timeout, what happens then, and a URL as source');
SELECT results_eq(
	'SELECT path, extract(epoch FROM idle_timeout)::integer FROM keepalive_paths ORDER BY path COLLATE "C"',
	$$VALUES ('AWS NAT gateway', 350), ('AWS Network Load Balancer', 350),
		('AWS security group, Nitro v6 instances', 350), ('AWS security group, older instances', 432000),
		('Azure Load Balancer and NAT', 240), ('Google Cloud VPC', 600), ('Kubernetes kube-proxy, IPVS', 900),
		('Kubernetes kube-proxy, conntrack', 86400), ('Linux conntrack', 432000)$$,
	'the view has the expected paths and timeouts');
SELECT is_empty(
	$$SELECT c.relname, attname
		FROM pg_class AS c JOIN pg_attribute AS a ON attrelid = c.oid
		WHERE c.relname IN ('keepalive_paths', 'keepalive_blockers', 'keepalive_metrics', 'keepalive_top') AND attnum > 0
			AND col_description(c.oid, attnum) IS NULL$$,
	'every column of the views has a comment');

CREATE ROLE test_nobody;
SET LOCAL ROLE test_nobody;
SELECT lives_ok('TABLE keepalive_paths', 'keepalive_paths is readable by everybody');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
