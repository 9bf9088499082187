# monitoring/ against real programs: postgres_exporter and sql_exporter export the metrics
# of keepalive_metrics; Prometheus scrapes them while clients die, policies break and a
# standby falls behind; every alert fires and clears, every metric moves, and every
# expression of the dashboard has data.
use strict;
use warnings;

use HTTP::Tiny ();
use IO::Socket::INET ();
use IPC::Run ();
use JSON::PP 'decode_json';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use Time::HiRes qw(sleep time);

my $directory = PostgreSQL::Test::Utils::tempdir();
my $network = KeepaliveGuard::Network->new;
my ($dying, $living) = ($network->add_host, $network->add_host);

my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1);
my $admin = $node->unix_session;
$admin->query(<<'END');
CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
END
$node->policy(name => 'monitor', role => 'monitor', tcp_keepalives_idle => '1min');
$node->policy(
	name => 'app', role => 'app', tcp_keepalives_idle => '2s', tcp_keepalives_interval => '1s',
	tcp_keepalives_count => 100);
$node->policy(name => 'dead', role => 'app', priority => 1, dead_after => '5s', log_only => 1);
$node->backup('backup');
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->wait_for_policies;

# --- programs -------------------------------------------------------------------------

my @programs;

# Starts a program that runs until the end of the test.
sub start_program
{
	my ($name, @command) = @_;
	push @programs,
	  IPC::Run::start([ 'uncapped', @command ], '<', \undef, '>', "$directory/$name.log", '2>&1');
	return;
}

# Copies a file of monitoring/, with changes.
sub configure
{
	my ($file, $change) = @_;
	local $_ = slurp_file("monitoring/$file");
	$change->();
	open my $copy, '>', "$directory/$file" or die "$file: $!";
	print $copy $_;
	close $copy;
	return "$directory/$file";
}

my %port = (primary => 9187, standby => 9188, sql => 9237);
foreach my $server ($node, $standby)
{
	local $ENV{DATA_SOURCE_NAME} = sprintf 'host=%s port=%d user=monitor dbname=postgres sslmode=disable', $server->host, $server->port;
	start_program('postgres_exporter ' . $server->name,
		'prometheus-postgres-exporter', '--extend.query-path=monitoring/postgres_exporter.yaml',
		'--disable-default-metrics', '--disable-settings-metrics',
		'--web.listen-address=127.0.0.1:' . $port{ $server->name });
}
start_program(
	'sql_exporter', 'prometheus-sql-exporter', '-web.listen-address', "127.0.0.1:$port{sql}", '-config.file',
	configure(
		'sql_exporter-justwatch.yml',
		sub { s{interval: 15s}{interval: 1s}; s{localhost/}{'127.0.0.1:' . $node->port . '/'}e }));

# The times of a test, in place of those of production.
my $short = sub { s/\bfor: \d+m\b/for: 2s/g; s/\[10m\]/[20s]/g; s/\[1d\] offset 10m/[30s] offset 20s/g };
configure('alerts.yml', $short);
start_program(
	'prometheus', 'prometheus', "--storage.tsdb.path=$directory/data", '--web.listen-address=127.0.0.1:9090',
	'--config.file=' . configure(
		'prometheus.yml',
		sub {
			s/15s/1s\n  evaluation_interval: 1s/;
			s/'localhost:9187'/'127.0.0.1:9187', '127.0.0.1:9188'/;
			s/localhost:9237/127.0.0.1:9237/;
		}));

# --- Prometheus -----------------------------------------------------------------------

my $http = HTTP::Tiny->new(timeout => 20);

sub get
{
	my ($url) = @_;
	my $response = $http->get("http://127.0.0.1:$url");
	return $response->{success} ? $response->{content} : undef;
}

# The answer to a query at this moment, or, with a duration in seconds, until now.
sub ask
{
	my ($expression, $duration) = @_;
	my %form = (query => $expression);
	@form{qw(start end step)} = (time - $duration, time, 1) if $duration;
	my $response = $http->post_form('http://127.0.0.1:9090/api/v1/query' . ($duration ? '_range' : ''), \%form);
	die "$expression: $response->{content}\n" unless $response->{success};
	return decode_json($response->{content})->{data}{result};
}

# The value of an expression that has one series, or undef.
sub value
{
	my ($expression) = @_;
	my $result = ask($expression);
	return @$result ? $result->[0]{value}[1] : undef;
}

sub firing
{
	my $alerts = decode_json(get('9090/api/v1/alerts') // '{}')->{data}{alerts};
	return join ' ', sort map { s/^KeepaliveGuard//r } map { $_->{labels}{alertname} } grep { $_->{state} eq 'firing' } @$alerts;
}

# Waits until the code returns true.  Returns whether it did.
sub wait_until
{
	my ($code, $seconds) = @_;
	my $until = time + ($seconds // 60);
	while (time < $until)
	{
		return 1 if eval { $code->() };
		sleep 0.3;
	}
	return 0;
}

sub fires { my ($name) = @_; my $all = ''; return ok(wait_until(sub { ($all = firing()) =~ /\b$name\b/ }), "$name fires") || diag($all) }
sub clears { my ($name) = @_; my $all = ''; return ok(wait_until(sub { ($all = firing()) !~ /\b$name\b/ }), "$name clears") || diag($all) }

# { name{labels} => 1 }, without the labels that exporters and Prometheus add.
sub series
{
	my ($selector) = @_;
	my %added = map { $_ => 1 } qw(__name__ instance job server driver host database user);
	return {
		map {
			my $labels = $_->{metric};
			"$labels->{__name__}\{" . join(',', map { "$_=$labels->{$_}" } grep { !$added{$_} && $labels->{$_} ne '' } sort keys %$labels) . '}' => 1
		} @{ ask($selector) } };
}

my $start = time;
ok(wait_until(sub { value('count(up == 1)') == 3 && value('count(keepalive_guard_worker_up)') == 3 }), 'Prometheus scrapes all exporters')
  or diag(map { slurp_file("$directory/$_.log") =~ s/^.*level=info.*\n//mgr } 'postgres_exporter primary', 'sql_exporter', 'prometheus');

# --- the same metrics -------------------------------------------------------------------

# One session of each kind, so that all labels that can be there are there.
my $app = $node->session(host => $living, user => 'app');
my @samples = @{ $admin->query('SELECT name, labels FROM keepalive_metrics') };
my $expected = {
	map {
		my $labels = decode_json($_->[1]);
		"$_->[0]\{" . join(',', map { "$_=$labels->{$_}" } grep { $labels->{$_} ne '' } sort keys %$labels) . '}' => 1
	} @samples };
my $own = '{__name__=~"keepalive_guard_.+"';
foreach my $case ([ 'postgres_exporter', "$own, job=\"postgres\", instance=~\".*:9187\"}" ], [ 'sql_exporter', "$own, job=\"sql\"}" ])
{
	my ($exporter, $selector) = @$case;
	my $seen;
	wait_until(sub { $seen = series($selector); is_same($seen, $expected) }, 20);
	is_deeply($seen, $expected, "$exporter exports exactly the metrics of keepalive_metrics")
	  or diag(join "\n", (grep { !$expected->{$_} } sort keys %$seen)[ 0 .. 5 ], (grep { !$seen->{$_} } sort keys %$expected)[ 0 .. 5 ],
		(split /\n/, slurp_file("$directory/sql_exporter.log"))[ -5 .. -1 ]);
}

sub is_same
{
	my ($one, $two) = @_;
	return join("\n", sort keys %$one) eq join("\n", sort keys %$two);
}

my $types = join '', grep { /^# TYPE keepalive_guard/ } map { "$_\n" } split /\n/, get("$port{primary}/metrics");
my %type = $types =~ /^# TYPE (\S+) (\S+)$/mg;
is_deeply(\%type,
	{ map { @$_ } @{ $admin->query(q{SELECT DISTINCT CASE type WHEN 'histogram' THEN regexp_replace(name, '_[a-z]+$', '') ELSE name END, type FROM keepalive_metrics}) } },
	'postgres_exporter exports their types');

# Everything that postgres_exporter says of keepalive_guard.
my ($lint) = run_with(join('', grep { /keepalive_guard/ } map { "$_\n" } split /\n/, get("$port{primary}/metrics")), 'promtool', 'check', 'metrics');
is($lint, '', 'promtool check metrics finds nothing');

sub run_with
{
	my ($input, @command) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([@command], '<', \$input, '>', \$out, '2>', \$err);
	return ("$out$err", $? >> 8);
}

my $first = series("$own, job=\"postgres\"}");

# --- a client dies and blocks others ----------------------------------------------------

sleep 1 while time < $start + 55; # the usual rate of lost connections is known by then
is(firing(), '', 'no alert fires while all is well');

my $victim = $node->session(host => $dying, user => 'app');
# No lock of a table: postgres_exporter reads the sizes of tables, and would wait too.
$victim->query('BEGIN; SELECT pg_current_xact_id(), pg_advisory_lock(1)');
my @waiting = map { my $s = $node->unix_session; $s->send('SELECT pg_advisory_lock(1)'); $s } 1 .. 2;
$dying->drop;
fires('DeadClientsBlock');
ok(wait_until(sub { value('sum(keepalive_guard_policy_would_end_total{job="postgres", policy="dead"})') >= 1 }), 'a log_only policy would have ended it');
$admin->query(q{UPDATE keepalive_policy SET log_only = false WHERE name = 'dead'});
ok(wait_until(sub { value('sum(keepalive_guard_policy_lost_connections_total{job="postgres", policy="dead", cause="dead_after"})') == 1 }), 'the policy ends it');
clears('DeadClientsBlock');
$dying->restore;
$_->terminate foreach @waiting;

# --- many connections are lost ------------------------------------------------------------

$node->session(host => $living, user => 'app')->reset foreach 1 .. 15;
fires('LostConnections');
clears('LostConnections');

# --- a session without a policy -----------------------------------------------------------

my $other = $node->session(host => $living, user => 'other');
fires('SessionsWithoutPolicy');
$other->terminate;
clears('SessionsWithoutPolicy');

# --- policies that are not applied --------------------------------------------------------

foreach my $case (
	[ 'keepalive_guard.enabled is off', 'ALTER SYSTEM SET keepalive_guard.enabled = off', 'ALTER SYSTEM RESET keepalive_guard.enabled' ],
	[
		'a policy is invalid',
		q{ALTER TABLE keepalive_policy DISABLE TRIGGER ALL; INSERT INTO keepalive_policy (name, tcp_keepalives_count) VALUES ('bad', 1000)},
		q{ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard, ENABLE ALWAYS TRIGGER keepalive_policy_guard_count,
			ENABLE ALWAYS TRIGGER keepalive_policy_guard_truncate; DELETE FROM keepalive_policy WHERE name = 'bad'} ],
	[ 'the table is not there', 'ALTER TABLE keepalive_policy RENAME TO renamed', 'ALTER TABLE renamed RENAME TO keepalive_policy' ])
{
	my ($name, $break, $mend) = @$case;
	foreach my $step ([ $break, \&fires ], [ $mend, \&clears ])
	{
		$admin->query($_) foreach split /;/, $step->[0];
		$admin->query($_) foreach 'SELECT pg_reload_conf()', 'SELECT * FROM keepalive_apply()';
		$step->[1]->('PolicyNotApplied') or diag($name);
	}
}

# --- a backlog in the accept queue ----------------------------------------------------------

# An exporter that opens a connection for each scrape, as newer postgres_exporters do, waits
# in the same queue, and sql_exporter opens one every other time.  So there are several
# attempts.

my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
my $fired;
for (my $attempt = 1; $attempt <= 6 && !$fired; $attempt++)
{
	kill 'STOP', $postmaster;
	my @backlog = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $node->port) } 1 .. 150;
	$fired = wait_until(sub { firing() =~ /\bAcceptQueue\b/ }, 10);
	close $_ foreach @backlog;
	kill 'CONT', $postmaster;
	sleep 3 unless $fired;
}
ok($fired, 'AcceptQueue fires');
clears('AcceptQueue');

# --- a standby that falls behind -------------------------------------------------------------

$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
fires('StandbyOutdated');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
clears('StandbyOutdated');

# --- the dashboard ---------------------------------------------------------------------------

my $dashboard = decode_json(slurp_file('monitoring/grafana-dashboard.json'));
my @expressions = map { $_->{expr} } map { @{ $_->{targets} // [] } } @{ $dashboard->{panels} };
push @expressions, grep { defined } map { $_->{expr} } @{ $dashboard->{annotations}{list} };
cmp_ok(scalar @expressions, '>=', 30, 'the dashboard has ' . @expressions . ' expressions');
my %used;
foreach my $expression (@expressions)
{
	$used{$1} = 1 while $expression =~ /(keepalive_guard_\w+)/g;
	$expression =~ s/\$instance/.+/g;
	$expression =~ s/\$__rate_interval/1m/g;
	unlike($expression, qr/\$/, "no variable is left in: $expression");
	my $result = ask($expression, time - $start);
	cmp_ok(scalar(grep { @{ $_->{values} } } @$result), '>', 0, "has data: $expression");
}

# --- the library is not preloaded ------------------------------------------------------------

sub restart_with
{
	my ($libraries) = @_;
	$standby->stop;
	$node->stop('fast');
	$node->append_conf('postgresql.conf', "shared_preload_libraries = '$libraries'\n");
	$node->start;
	$admin = $node->unix_session;
	return;
}
restart_with('');
fires('WorkerDown');
ok(wait_until(sub { value('keepalive_guard_preloaded{job="postgres", instance=~".*:9187"}') == 0 }), 'keepalive_guard_preloaded is 0');
restart_with('keepalive_guard');
clears('WorkerDown');

# --- every metric has moved ------------------------------------------------------------------

my $duration = int(time - $start) . 's';
my @names = map { $_->[0] } @{ $admin->query('SELECT DISTINCT name FROM keepalive_metrics ORDER BY 1') };
push @names, qw(keepalive_guard_policy_lost_connections_total keepalive_guard_policy_would_end_total);
my %seen;
foreach my $name (grep { !$seen{$_}++ } @names)
{
	next if $name eq 'keepalive_guard_build_info';
	my $jobs = $name =~ /accept_queue/ ? '.+' : 'postgres'; # see above
	my $moved = value("max(changes($name\{job=~\"$jobs\"}[$duration]))") // 0;
	my $appeared = grep { !$first->{$_} } keys %{ series("last_over_time($name\{job=\"postgres\"}[$duration])") };
	ok($moved > 0 || $appeared > 0, "$name has moved");
	ok($used{$name} || $name =~ /_queue_connections$/, "$name is in the dashboard");
}

done_testing();
