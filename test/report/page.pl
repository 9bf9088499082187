# make test-report: keepalive_report() of a server with living, idle, slow, lost and blocked
# sessions, and of one without any, in headless Chromium (browse.js).
#
# REPORT_ROUNDS=n sets how many times connections are lost (default 6, 8 s each).
use strict;
use warnings;

use File::Path 'make_path';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets 'wait_until_acknowledged';
use KeepaliveGuard::Network;
use KeepaliveGuard::Router;
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = $ENV{REPORT_ROUNDS} || 6;
my $pages = 'build/report';
make_path($pages);

# Writes the report, as a role that may only monitor.
sub write_page
{
	my ($node, $name) = @_;
	my $file = "$pages/$name.html";
	my ($status, undef, $stderr) = $node->psql('postgres', 'SELECT keepalive_report()',
		extra_params => [ '-XAt', '-U', 'monitor', '-o', $file ]);
	is("$status $stderr", '0 ', "$name: the report is written by a member of pg_monitor");
	return $file;
}

# --- the server, its policies and its clients -----------------------------------------

my $network = KeepaliveGuard::Network->new;
my ($web, $workers, $branch, $kiosks, $analysts, $standby) = map { $network->add_host } 1 .. 6;
my $router = KeepaliveGuard::Router->new(101, forgets_after => 3);
my $node = KeepaliveGuard::Cluster->start_new('shop-db-1', allows_streaming => 1);
my $admin = $node->unix_session(application_name => 'psql');
my $hostile = '</table><script>alert(1)</script>';
$admin->query($_) foreach
  'CREATE ROLE monitor LOGIN IN ROLE pg_monitor', 'CREATE DATABASE shop', 'CREATE DATABASE "<i>&quot;\'"',
  (map { "CREATE ROLE $_ LOGIN" } qw(app worker kiosk batch reports analyst legacy), '"<b onload=alert(1)>"'),
  q{DO $$ BEGIN EXECUTE (SELECT policy FROM keepalive_plan('2 min', '350 s')); END $$};
$node->policy(name => 'branch office', client => '10.77.3.0/24', tcp_keepalives_idle => '3s', tcp_keepalives_interval => '3s',
	tcp_keepalives_count => 9);
$node->policy(name => 'kiosks', role => 'kiosk', tcp_keepalives_idle => '1s', tcp_keepalives_interval => '1s', tcp_keepalives_count => 2);
$node->policy(name => 'batch jobs', role => 'batch', tcp_keepalives_idle => '2s', tcp_keepalives_interval => '1s', tcp_keepalives_count => 9,
	dead_after => '5s');
$node->policy(name => 'exports', role => 'reports', stall_timeout => '5s', client_connection_check_interval => '5s');
$node->policy(name => 'analysts', role => 'analyst', tcp_user_timeout => '4s');
$node->policy(name => 'standbys', backend => 'replication', tcp_keepalives_idle => '10s', tcp_keepalives_interval => '5s', tcp_keepalives_count => 3);
$node->policy(name => 'old driver, without limits', role => 'legacy', final => 'true');
$node->policy(name => $hostile, role => '<b onload=alert(1)>', tcp_keepalives_idle => '45s');
$node->wait_for_policies;

my @kept;
push @kept, $node->session(host => $web, user => 'app', dbname => 'shop', application_name => "web-$_") foreach 1 .. 24;
push @kept, $node->session(host => $workers, user => 'worker', dbname => 'shop', application_name => "worker-$_") foreach 1 .. 9;
push @kept, $node->session(host => $workers, ipv6 => 1, user => 'worker', dbname => 'shop', application_name => 'worker-10');
push @kept, $node->session(host => $web, user => 'legacy', dbname => 'shop', application_name => 'invoices 2009') foreach 1 .. 2;
push @kept, $node->session(host => $web, user => '<b onload=alert(1)>', dbname => '<i>&quot;\'', application_name => $hostile);
my $shop = $node->unix_session(dbname => 'shop');
$shop->query('CREATE TABLE stock AS SELECT i AS item, 10 AS pieces FROM generate_series(1, 9) i; GRANT ALL ON stock TO PUBLIC');

# --- connections are lost, for different causes -----------------------------------------

sub idle_behind_router
{
	my ($count) = @_;
	return map {
		$node->session(host => $router, user => 'app', dbname => 'shop', application_name => 'partner',
			options => '-c tcp_keepalives_idle=4 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=1')
	} 1 .. $count;
}
my @brief = idle_behind_router(6);
sleep 1.7;
$_->terminate foreach @brief;

foreach my $round (1 .. $rounds)
{
	push @kept, idle_behind_router(2) if $round <= 3;
	my @kiosks = map { $node->session(host => $kiosks, user => 'kiosk', dbname => 'shop', application_name => "kiosk-$_") } 1 .. 1 + $round % 3;
	my $batch = $node->session(host => $kiosks, user => 'batch', dbname => 'shop', application_name => 'nightly import');
	$batch->query('BEGIN; SELECT count(*) FROM stock');
	my $analyst = $node->session(host => $analysts, user => 'analyst', dbname => 'shop', application_name => 'notebook');
	my $export = $round % 2 && $node->session(host => $web, user => 'reports', dbname => 'shop', application_name => 'export', receive_buffer => 4096);
	$export->send('COPY (SELECT repeat(md5(i::text), 9) FROM generate_series(1, 100000) i) TO STDOUT') if $export;
	wait_until_acknowledged($_->port) foreach @kiosks, $batch;
	$kiosks->drop;
	$analyst->send('SELECT pg_sleep(0.5), repeat(md5(random()::text), 1000)');
	sleep 0.2;
	$analysts->drop;
	foreach my $client (1 .. 1 + $round * 2 % 5)
	{
		my $pod = $node->session(host => $web, user => 'app', dbname => 'shop', application_name => "pod-$client");
		sleep 0.2;
		$client % 3 == 2 ? $pod->reset : $pod->vanish;
	}
	sleep 7;
	$_->restore foreach $kiosks, $analysts;
	push @kept, @kiosks, $batch, $analyst, $export || ();
}

# --- and at last a host with locks --------------------------------------------------------

my @branch = map { $node->session(host => $branch, user => 'app', dbname => 'shop', application_name => "branch-$_") } 1 .. 5;
$branch[0]->query('BEGIN; UPDATE stock SET pieces = pieces - 1 WHERE item < 4');
$branch[1]->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM stock');
$kept[24]->query('BEGIN; UPDATE stock SET pieces = 0 WHERE item = 9');
$kept[24]->send('UPDATE stock SET pieces = 0 WHERE item = 1');
sleep 0.3;
$kept[$_]->send('UPDATE stock SET pieces = 0 WHERE item = ' . ($_ < 28 ? 2 : 9)) foreach 25 .. 29;
my $reader = $node->session(host => $web, user => 'analyst', dbname => 'shop', application_name => 'slow download', receive_buffer => 4096,
	options => '-c tcp_user_timeout=0');
$reader->send('COPY (SELECT repeat(md5(i::text), 9) FROM generate_series(1, 100000) i) TO STDOUT');
my $walsender = $node->session(host => $standby, replication => 'true', application_name => 'standby-b');
$walsender->send('START_REPLICATION PHYSICAL ' . $admin->value('SELECT pg_current_wal_lsn()'));
wait_until_acknowledged($_->port) foreach @branch;
$branch->drop;
sleep 9;

my $lost = q{SELECT count(*) FILTER (WHERE health NOT IN ('alive', 'zero_window')) FROM keepalive_status()};
ok(defined seconds_until(20, sub { $admin->value($lost) == 5 }), 'five clients do not answer');
my $busy = write_page($node, 'busy');

my $quiet = KeepaliveGuard::Cluster->start_new('quiet');
$quiet->safe_psql('postgres', 'CREATE ROLE monitor LOGIN IN ROLE pg_monitor');
$quiet->safe_psql('postgres', q{DO $$ BEGIN EXECUTE (SELECT policy FROM keepalive_plan('1 min')); END $$});
$quiet->wait_for_policies;
my $empty = write_page($quiet, 'quiet');

# --- the browser --------------------------------------------------------------------------

open my $browser, '-|', 'uncapped', 'node', 'test/report/browse.js', 'build/browser/node_modules', $busy, $empty or die "node: $!";
while (my $line = <$browser>)
{
	chomp $line;
	if ($line =~ /^(not )?ok - (.*)/) { ok(!$1, $2); }
	else { diag($line); }
}
close $browser;
is($?, 0, 'the browser has opened all pages');

done_testing();
