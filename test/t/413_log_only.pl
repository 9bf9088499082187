# Policies that are log_only: their dead_after and stall_timeout end no session.  What they
# would have ended is logged, recorded and counted, once for each time that a client stops
# answering or reading.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets qw(socket_line wait_until_acknowledged);
use KeepaliveGuard::Network;
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary', conf => "keepalive_guard.watch_interval = 200ms\n");
my $admin = $node->unix_session;
my %keepalive = (tcp_keepalives_idle => '1s', tcp_keepalives_interval => '1s', tcp_keepalives_count => 100);

$admin->query("CREATE ROLE $_ LOGIN") foreach qw(tried doubly stalled);
$node->policy(name => 'trial', role => 'tried', log_only => 'true', dead_after => '2s', %keepalive);
$node->policy(name => 'trial of both', role => 'doubly', log_only => 'true', dead_after => '2s', %keepalive);
$node->policy(name => 'strict', priority => 200, role => 'doubly', dead_after => '5s');
$node->policy(name => 'trial of stalls', role => 'stalled', log_only => 'true', stall_timeout => '2s', %keepalive);
$node->wait_for_policies;

sub events_of
{
	my ($pid) = @_;
	return $admin->query("SELECT cause, detail FROM keepalive_events() WHERE pid = $pid ORDER BY ended_at");
}

sub counted
{
	my ($policy) = @_;
	my $row;
	seconds_until(10, sub {
			$row = $admin->query("SELECT would_end, sessions FROM keepalive_stats() WHERE policy = '$policy'")->[0];
			return $row->[0]; # it is counted after it was recorded
		});
	return $row;
}

sub wait_for_event
{
	my ($pid, $number) = @_;
	my $until = time + 15;
	sleep 0.1 until @{ events_of($pid) } >= $number || time > $until;
	return scalar @{ events_of($pid) };
}

# --- dead_after ---------------------------------------------------------------------------

my $tried = $node->session(host => $host, user => 'tried');
my $both = $node->session(host => $host, user => 'doubly');
wait_until_acknowledged($_->port) foreach $tried, $both;
is_deeply($node->status($both->pid)->{policies}, [ 'trial of both', 'strict' ],
	'keepalive_status() names the log_only policy and the one that ends sessions');
my $log = $node->log_end;
$host->drop;

is(wait_for_event($tried->pid, 1), 1, 'a client that does not answer is recorded');
my ($event) = @{ events_of($tried->pid) };
is($event->[0], 'would_end', 'the cause is would_end');
like($event->[1], qr/^dead_after of policy "trial": client has not answered for [2-9]\.\d{3} s$/,
	'the detail names the setting, the policy and the time');
ok(-d '/proc/' . $tried->pid, 'the session goes on');
is_deeply(counted('trial'), [ 1, 1 ], 'keepalive_stats() counts it under the policy');
like($node->status($tried->pid)->{health}, qr/probing/, 'keepalive_status() shows that the client does not answer');

ok(defined $node->wait_for_exit($both->pid, 15), 'the policy without log_only ends the session');
is_deeply([ map { $_->[0] } @{ events_of($both->pid) } ], [ 'would_end', 'dead_after' ],
	'both policies count for the session that has both');
is($node->log_count(qr/log_only: would have ended the session with PID @{[$tried->pid]} by dead_after of policy "trial"/, $log), 1,
	'there is one line in the server log');

sleep 3;
is(scalar @{ events_of($tried->pid) }, 1, 'nothing more is recorded while the client goes on not answering');
$host->restore;
my $until = time + 10;
sleep 0.1 until ($node->status($tried->pid)->{health} // '') eq 'alive' || time > $until;
is($tried->value('SELECT 1'), 1, 'the client is back and the session works');
$host->drop;
is(wait_for_event($tried->pid, 2), 2, 'the next time that the client does not answer is recorded as well');
$host->restore;

# --- stall_timeout --------------------------------------------------------------------------

my $stalled = $node->session(host => $host, user => 'stalled', receive_buffer => 4096);
wait_until_acknowledged($stalled->port);
$stalled->send(q(SELECT repeat('x', 10000) FROM generate_series(1, 3000)));
is(wait_for_event($stalled->pid, 1), 1, 'a client that does not read is recorded');
like(events_of($stalled->pid)->[0][1],
	qr/^stall_timeout of policy "trial of stalls": client has read nothing for [2-9]\.\d{3} s$/,
	'the detail says that it does not read');
ok(-d '/proc/' . $stalled->pid, 'the session of a client that does not read goes on');
is_deeply(counted('trial of stalls'), [ 1, 1 ], 'keepalive_stats() counts it under its policy');

is_deeply($admin->query('SELECT policy, would_end FROM keepalive_stats() WHERE would_end > 0 ORDER BY policy'),
	[ [ 'trial', 2 ], [ 'trial of both', 1 ], [ 'trial of stalls', 1 ] ], 'nothing else is counted');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');
done_testing();
