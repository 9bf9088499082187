# The watcher ends sessions in time while the worker has more to match than it can.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets 'wait_until_acknowledged';
use KeepaliveGuard::Network;
use List::Util 'min';
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary',
	conf => "keepalive_guard.watch_interval = 200ms\nkeepalive_guard.max_policies = 3000\n");
my $admin = $node->unix_session;
my $editor = $node->unix_session;
$admin->query('CREATE ROLE dead LOGIN; CREATE ROLE many LOGIN');
$node->policy(
	name => 'dead', role => 'dead', tcp_keepalives_idle => '1s', tcp_keepalives_interval => '1s',
	tcp_keepalives_count => 100, dead_after => '2s');
my $session = $node->session(host => $host, user => 'dead', dbname => 'postgres');
my @many = map { $node->session(user => 'many') } 1 .. 60;

# Patterns that take long to compile, and match nobody: as many as this machine needs.
my ($policies, $start, $took) = (0, 0, 0);
while ($took <= 12 && $policies < 2500)
{
	my $more = $policies ? min(2500 - $policies, int($policies * (13 / $took - 1)) + 1) : 160;
	$editor->query(<<"END");
INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle)
	SELECT 'p' || i, '/^(' || (SELECT string_agg(i || 'a' || j, '|') FROM generate_series(1, 25) j) || ')\$', '60s'
	FROM generate_series($policies + 1, $policies + $more) i
END
	$policies += $more;
	$start = time;
	$editor->query(q{SELECT * FROM keepalive_apply('5min')}, timeout => 300);
	$took = time - $start;
}
cmp_ok($took, '>', 12, sprintf 'matching all sessions takes long (%.1f s)', $took);

# From now on there is always something to match.
my $next = 0;
sub edit { $editor->query('UPDATE keepalive_policy SET priority = ' . (200 + $next++) . q{ WHERE name = 'p1'}); return }
edit();
wait_until_acknowledged($session->port);
$host->drop;
$start = time;
while (-d '/proc/' . $session->pid && time - $start < 30)
{
	edit();
	sleep 0.1;
}
# On a slow machine, both take longer.
my $seconds = ($node->ended_at($session->pid) // time) - $start;
cmp_ok($seconds, '<', $took / 2, sprintf 'dead_after ends a session in time (%.1f s)', $seconds);
is($admin->query('SELECT cause FROM keepalive_events() WHERE pid = ' . $session->pid)->[0][0], 'dead_after', 'by dead_after');

$start = time;
$editor->query(q{DELETE FROM keepalive_policy WHERE name LIKE 'p%'});
is($admin->value(q{SELECT pending FROM keepalive_apply('5min')}, timeout => 300), 0,
	sprintf 'all sessions are up to date in the end (%.1f s)', time - $start);

done_testing();
