# The files of monitoring/: rules and their tests by promtool, the text of
# keepalive_openmetrics() by the reference parser, the queries of all collectors as
# pg_monitor, the claims of doc/monitoring.md on alerts, and check_pgsql on
# keepalive_check().
use strict;
use warnings;

use IPC::Run ();
use JSON::PP 'decode_json';
use KeepaliveGuard::Cluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use Time::HiRes 'sleep';

# Output and exit status of a command.
sub run_with
{
	my ($input, @command) = @_;
	my $out = '';
	IPC::Run::run([@command], '<', \$input, '>&', \$out);
	return ($out, $? >> 8);
}

sub yaml
{
	my ($text) = @_;
	my ($json, $status) = run_with($text, 'python3', '-c', 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)');
	die $json if $status;
	return decode_json($json);
}
sub file { my ($name) = @_; return yaml(slurp_file("monitoring/$name")) }

# --- rules ------------------------------------------------------------------------------

foreach my $command ([qw(check rules monitoring/alerts.yml)], [qw(test rules test/monitoring/alerts_test.yml)],
	[qw(check config monitoring/prometheus.yml)])
{
	my ($out, $status) = run_with('', 'promtool', @$command);
	is($status, 0, "promtool @$command") or diag($out);
}

my @alerts = grep { $_->{alert} } @{ file('alerts.yml')->{groups}[0]{rules} };
my %tested = map { $_->{alertname} => 1 } map { @{ $_->{alert_rule_test} } } @{ yaml(slurp_file('test/monitoring/alerts_test.yml'))->{tests} };
my %described = map { $_ => 1 } slurp_file('doc/monitoring.md') =~ /^### (\w+)$/mg;
is_deeply([ sort keys %tested ], [ sort map { $_->{alert} } @alerts ], 'every alert is tested');
foreach my $alert (@alerts)
{
	ok($described{ $alert->{alert} }, "$alert->{alert} is in doc/monitoring.md");
	is($alert->{annotations}{runbook}, 'doc/monitoring.md#' . lc $alert->{alert}, "$alert->{alert} has a link to it");
}

# --- queries ----------------------------------------------------------------------------

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->unix_session;
$admin->query('CREATE ROLE monitor LOGIN IN ROLE pg_monitor');
$node->policy(name => "one \"two\" \\three\nfour", tcp_keepalives_idle => '1min');
$node->wait_for_policies;
$node->session->reset foreach 1 .. 2;
sleep 0.5;
my $monitor = $node->session(user => 'monitor');
my $names = join ' ', map { $_->[0] } @{ $monitor->query('SELECT DISTINCT name FROM keepalive_metrics ORDER BY 1') };

sub columns_of
{
	my ($query) = @_;
	$query =~ s/;?\s*$//;
	my $rows = $monitor->query("SELECT to_json(q)::text FROM ($query) AS q");
	return [ sort keys %{ decode_json($rows->[0][0]) } ] if @$rows;
	$monitor->query("CREATE TEMP TABLE q AS SELECT * FROM ($query) AS q LIMIT 0");
	my $columns = [ sort map { $_->[0] } @{ $monitor->query(q{SELECT attname FROM pg_attribute WHERE attrelid = 'q'::regclass AND attnum > 0}) } ];
	$monitor->query('DROP TABLE q');
	return $columns;
}

my $exporter = file('postgres_exporter.yaml');
foreach my $query (sort keys %$exporter)
{
	my @columns = map { my ($name) = keys %$_; $_->{$name}{usage} eq 'HISTOGRAM' ? ($name, map { "${name}_$_" } qw(bucket sum count)) : $name } @{ $exporter->{$query}{metrics} };
	is_deeply(columns_of($exporter->{$query}{query}), [ sort @columns ], "postgres_exporter.yaml: columns of $query");
}
my $cluster = yaml(file('cloudnative-pg.yaml')->{data}{queries});
is_deeply(delete $cluster->{$_}{target_databases}, ['postgres'], "cloudnative-pg.yaml: database of $_") foreach sort keys %$cluster;
delete $exporter->{$_}{master} foreach keys %$exporter;
is_deeply($cluster, $exporter, 'cloudnative-pg.yaml has the queries of postgres_exporter.yaml');

my $job = file('sql_exporter-justwatch.yml')->{jobs}[0]{queries}[0];
is_deeply(columns_of($job->{query}), [ sort @{ $job->{labels} }, @{ $job->{values} } ], 'sql_exporter-justwatch.yml: columns');

my $collector = file('sql_exporter-burningalchemist.collector.yml');
my %column = map { $_ => 1 } map { @{ $_->{key_labels} // [] }, @{ $_->{values} } } @{ $collector->{metrics} };
my $query = $collector->{queries}[0]{query};
is_deeply(columns_of($query), [ sort keys %column ], 'sql_exporter-burningalchemist.collector.yml: columns');
my %exported;
foreach my $metric (@{ $collector->{metrics} })
{
	my ($name) = @{ $metric->{values} };
	my $labels = join ', ', map { "'$_', $_" } @{ $metric->{key_labels} // [] };
	is($monitor->value(
			"SELECT count(*) FROM (SELECT $name AS value, jsonb_build_object($labels) AS labels FROM ($query) AS q WHERE $name IS NOT NULL) AS q
			FULL JOIN (SELECT * FROM keepalive_metrics WHERE name = '$name') AS m USING (labels) WHERE (m.value IS NULL) <> (q.value IS NULL)"),
		0, "sql_exporter-burningalchemist.collector.yml: labels of $name");
	$exported{$name} = 1;
}
is(join(' ', grep { $exported{$_} } split / /, $names), $names, 'sql_exporter-burningalchemist.collector.yml has all metrics');

my ($sql) = values %{ file('pgwatch.yaml')->{metrics}{keepalive_guard}{sqls} };
is($monitor->value("SELECT count(*) FROM ($sql) AS q"), $monitor->value('SELECT count(*) FROM keepalive_metrics'), 'pgwatch.yaml: a row for each value');
is_deeply([ grep { !/^(epoch_ns|value|tag_\w+)$/ } @{ columns_of($sql) } ], [], 'pgwatch.yaml: columns');

# --- keepalive_openmetrics() --------------------------------------------------------------

my $text = $monitor->value('SELECT keepalive_openmetrics()');
my ($parsed, $status) = run_with($text, 'python3', '-c', <<'END');
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        print(json.dumps([sample.name, sample.labels, family.type], sort_keys=True))
END
is($status, 0, 'the reference parser reads keepalive_openmetrics()') or diag($parsed);
my $canonical = JSON::PP->new->canonical;
is_deeply(
	[ sort map { $canonical->encode($_) } map { decode_json($_) } split /\n/, $parsed ],
	[ sort map { $canonical->encode([ $_->[0], decode_json($_->[1]), $_->[2] ]) } @{ $monitor->query('SELECT name, labels, type FROM keepalive_metrics') } ],
	'and finds the metrics of keepalive_metrics');

# --- check_pgsql ----------------------------------------------------------------------------

my ($check) = slurp_file('doc/monitoring.md') =~ /^(check_pgsql .*?[^\\])$/ms;
ok($check, 'doc/monitoring.md has a command with check_pgsql');
$check =~ s/\\\n//g;
$check =~ s/-H \S+/'-H ' . $node->host . ' -P ' . $node->port/e;

sub check_pgsql
{
	local $ENV{PATH} = "/usr/lib/nagios/plugins:$ENV{PATH}";
	return run_with('', 'sh', '-c', $check);
}
# Each state: a finding of that severity is the worst.
$admin->query('TRUNCATE keepalive_policy');
$admin->query(q{INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, dead_after, client_connection_check_interval)
	SELECT 'baseline', 1000, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, dead_after, client_connection_check_interval FROM keepalive_plan('1min')});
$node->wait_for_policies;
foreach my $case (
	[ 'SELECT 1', 0, 'OK' ],
	[ q{UPDATE keepalive_policy SET tcp_user_timeout = '1min'}, 1, 'WARNING' ],
	[ 'ALTER TABLE keepalive_policy RENAME TO renamed', 2, 'CRITICAL' ])
{
	my ($change, $exit, $word) = @$case;
	$admin->query($change);
	$admin->query('SELECT * FROM keepalive_apply()');
	my ($out, $code) = check_pgsql();
	is($code, $exit, "check_pgsql exits with $exit") or diag($out, map { "@$_\n" } @{ $admin->query('SELECT severity, subject, problem FROM keepalive_check()') });
	like($out, qr/\b$word\b/, "... and says $word");
}

done_testing();
