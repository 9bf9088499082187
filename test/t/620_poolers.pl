# Clients behind PgBouncer (session, transaction and statement pooling) and HAProxy: what the
# server sees of a client that lost power there, which settings of the pooler and which
# policies end its sessions, and what happens when the pooler's host fails.  doc/recipes.md
# has the times.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets 'wait_until_acknowledged';
use KeepaliveGuard::Network;
use KeepaliveGuard::Pooler;
use KeepaliveGuard::Settings 'seconds_until';
use List::Util 'max';
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my ($dying, $living, $pooler, $failing) = map { $network->add_host } 1 .. 4;
KeepaliveGuard::Pooler::route($dying, $living, $pooler, $failing);
my $node = KeepaliveGuard::Cluster->start_new('primary', conf => "keepalive_guard.watch_interval = 200ms\n");
my $admin = $node->unix_session;
$admin->query($_) foreach 'CREATE ROLE app LOGIN', 'CREATE ROLE checked LOGIN',
  'CREATE TABLE wide AS SELECT repeat(\'x\', 1000) FROM generate_series(1, 100000)', 'GRANT SELECT ON wide TO PUBLIC';

# PgBouncer with keepalive for its clients; one with timeouts and no keepalive; HAProxy.
my @keepalive = ('tcp_keepidle = 2', 'tcp_keepintvl = 1', 'tcp_keepcnt = 3');
my @running = (
	KeepaliveGuard::Pooler::pgbouncer($node, $pooler, 6432, @keepalive),
	KeepaliveGuard::Pooler::pgbouncer($node, $pooler, 6433, 'tcp_keepalive = 0', 'idle_transaction_timeout = 4', 'query_timeout = 4'),
	KeepaliveGuard::Pooler::haproxy($node, $pooler, 5000, 'timeout client 1h', 'timeout server 1h',
		'option clitcpka', 'clitcpka-idle 2s', 'clitcpka-intvl 1s', 'clitcpka-cnt 3'),
	KeepaliveGuard::Pooler::pgbouncer($node, $failing, 6432));

# The policy for poolers of the recipe, with short times.
$node->policy(
	name => 'pooler', client => $failing->address . '/32', tcp_keepalives_idle => '2s', tcp_keepalives_interval => '1s',
	tcp_keepalives_count => 20, dead_after => '3s');
$node->policy(name => 'checked', role => 'checked', client_connection_check_interval => '1s');
$node->policy(name => 'readers', client => $pooler->address . '/32', stall_timeout => '5s');
$node->wait_for_policies;

# --- sessions ---------------------------------------------------------------------------------

my %port = (keepalive => 6432, timeouts => 6433, haproxy => 5000);
my %case;

# Opens a session of a client of that host through the pooler, puts it into a state, and
# remembers the pid of its backend, which works for it as long as it has that state.
sub case
{
	my ($host, $through, $mode, $state, $role) = @_;
	my $name = join ' ', $through, $mode, $state, $role;
	my $session = $node->session(
		host => $host, address => $pooler->address, port => $port{$through}, user => $role,
		dbname => $through eq 'haproxy' ? 'postgres' : $mode,
		application_name => $name, $state eq 'not reading' ? (receive_buffer => 4096) : ());
	my $pid;
	if ($state eq 'idle in transaction')
	{
		$session->query('BEGIN');
		$pid = $session->value('SELECT pg_backend_pid()');
	}
	elsif ($state eq 'idle')
	{
		$pid = $session->value('SELECT pg_backend_pid()');
	}
	else
	{
		$session->send($state eq 'busy' ? 'SELECT pg_sleep(60)' : 'TABLE wide');
		my $until = time + 20;
		do { sleep 0.02; $pid = $admin->value(
			"SELECT pid FROM pg_stat_activity WHERE application_name = '$name' AND state = 'active'") }
		  until defined $pid || time > $until;
		die "$name does not run\n" unless defined $pid;
	}
	$case{$name} = { session => $session, pid => $pid };
	return;
}

foreach my $through ('keepalive', 'haproxy')
{
	foreach my $mode ($through eq 'haproxy' ? 'tcp' : qw(session transaction statement))
	{
		case($dying, $through, $mode, 'idle', 'app') if $mode eq 'session' || $mode eq 'tcp';
		case($dying, $through, $mode, 'idle in transaction', 'app') unless $mode eq 'statement';
		case($dying, $through, $mode, 'busy', $_) foreach 'app', 'checked';
	}
}
case($dying, 'timeouts', 'transaction', 'idle in transaction', 'app');
case($dying, 'timeouts', 'session', 'idle', 'app');
case($dying, 'timeouts', 'transaction', 'busy', $_) foreach 'app', 'checked';
case($dying, 'keepalive', 'transaction', 'not reading', 'checked');
my $receiving = delete $case{'keepalive transaction not reading checked'};
my $no_transactions = $node->session(host => $living, address => $pooler->address, port => 6432, dbname => 'statement')->try('BEGIN');
like($no_transactions->{error}{message}, qr/transaction blocks not allowed/, 'statement pooling has no transactions that could stay open');

# --- the client's host loses power ------------------------------------------------------------

wait_until_acknowledged($case{$_}{session}->port) foreach keys %case;
$dying->drop;
my $start = time;
sleep 0.5;

my $pids = join ',', map { $_->{pid} } values %case;
my $seen = $admin->query("SELECT health, host(client_addr), count(*) FROM keepalive_status() WHERE pid IN ($pids) GROUP BY 1, 2");
is_deeply($seen, [ [ 'alive', $pooler->address, scalar keys %case ] ],
	'the server sees the pooler, which is alive, and nothing of the client that is dead');

# When each backend left the dead client: it exited, or went back to the pool.
my %left;
my $leaves = sub {
	my ($name) = @_;
	return $name =~ /idle app/ ? $name !~ /^timeouts/ : $name !~ / busy app/;
};
my $looked = time; # when those that have not left were seen
while (time - $start < 8 || time - $start < 20 && grep { $leaves->($_) && !defined $left{$_} } keys %case)
{
	my $last_looked = $looked;
	$looked = time;
	my %now = map { @$_ } @{ $admin->query("SELECT pid, query FROM pg_stat_activity WHERE pid IN ($pids)") };
	foreach my $name (keys %case)
	{
		$left{$name} //= $last_looked - $start if ($now{ $case{$name}{pid} } // 'DISCARD ALL') eq 'DISCARD ALL';
	}
	sleep 0.1;
}
note sprintf '%-55s %s', $_, defined $left{$_} ? sprintf('%.1f s', $left{$_}) : 'stays' foreach sort keys %case;

foreach my $name (sort grep { /idle in transaction/ } keys %case)
{
	ok(defined $left{$name} && $left{$name} <= 7, "$name: the transaction ends when the pooler finds its client dead");
}
foreach my $name (sort grep { / busy checked/ } keys %case)
{
	ok(defined $left{$name} && $left{$name} <= 8.5, "$name: with a client check, the query ends when the pooler has left");
}
foreach my $name (sort grep { / busy app/ } keys %case)
{
	ok(!defined $left{$name}, "$name: without one, it runs on");
}
my $health;
seconds_until(20, sub {
		$health = $admin->query("SELECT health, count(*) FROM keepalive_status() WHERE pid IN ($pids) AND client_connection_check_interval = '0' GROUP BY 1 ORDER BY 1");
		return join(' ', map { @$_ } @$health) eq 'alive 2 closed_by_peer 4 dead 1';
	});
is_deeply($health, [ [ 'alive', 2 ], [ 'closed_by_peer', 4 ], [ 'dead', 1 ] ],
	'the server sees that PgBouncer has closed the connections of these, and that HAProxy has reset its own');
is($admin->value("SELECT query FROM pg_stat_activity WHERE pid = $case{'keepalive session idle app'}{pid}"), 'DISCARD ALL',
	'session pooling: the server connection of an idle client goes back to the pool');
ok(!defined $left{'timeouts session idle app'}, 'session pooling without keepalive: it does not');
ok(defined $left{'haproxy tcp idle app'}, 'HAProxy: the session of an idle client ends');
my %cause = map { ($_->[0] => $_->[1]) } @{ $admin->query(
	"SELECT application_name, cause FROM keepalive_events() WHERE application_name LIKE '%idle in transaction%'") };
note "$_: $cause{$_}" foreach sort keys %cause;
ok(!(grep { /dead|timeout|unreachable/ } values %cause), 'no event tells of a dead client: the pooler has closed the connection');

# --- clients that do not read ------------------------------------------------------------------

# PgBouncer has data in flight to this one, so its keepalive does not work.  The policy for
# its address has stall_timeout.
ok(defined $node->wait_for_exit($receiving->{pid}, 20), 'stall_timeout ends the session of a client that died while it was sent a result');
is($admin->value("SELECT cause FROM keepalive_events() WHERE pid = $receiving->{pid}"), 'stall_timeout', 'and the event says so');

my $reading_start = time;
case($living, 'keepalive', 'transaction', 'not reading', 'app');
my $reader = $case{'keepalive transaction not reading app'}{pid};
my $zero;
until ($zero || time - $reading_start > 10)
{
	$zero = (($node->status($reader) // {})->{health} // '') eq 'zero_window';
	sleep 0.1;
}
ok($zero, 'the server sees that a client behind the pooler does not read');
ok(defined $node->wait_for_exit($reader, 20), 'stall_timeout ends its session');
is($admin->value("SELECT cause FROM keepalive_events() WHERE pid = $reader"), 'stall_timeout', 'and the event says so');

# --- the pooler's host loses power ----------------------------------------------------------------

my @behind = map {
	my $client = $node->session(host => $living, address => $failing->address, port => 6432, user => 'app', dbname => 'session');
	{ client => $client, pid => $client->value('SELECT pg_backend_pid()') }
} 1 .. 3;
$behind[1]{client}->query('BEGIN');
$behind[2]{client}->send('SELECT pg_sleep(60)');
sleep 0.3;
$failing->drop;
$start = time;
foreach my $session (@behind)
{
	ok(defined $node->wait_for_exit($session->{pid}, 12), 'the session of a dead pooler ends');
}
my $ended = max(map { $node->ended_at($_->{pid}) } @behind) - $start;
note sprintf 'all sessions of the dead pooler ended after %.1f s', $ended;
cmp_ok($ended, '<', 9, 'within the time of the policy for the pooler');
is_deeply(
	$admin->query("SELECT DISTINCT cause, policies::text FROM keepalive_events() WHERE client_addr = '@{[$failing->address]}'"),
	[ [ 'dead_after', '{pooler}' ] ], 'by that policy');

$_->kill_kill(grace => 0) foreach @running;
done_testing();
