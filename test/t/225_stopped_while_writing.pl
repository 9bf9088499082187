# A session whose process is stopped while it writes its slot in shared memory: no reader
# gets anything from it then.  The change that it misses reaches it later, and until then
# it counts as pending.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Settings qw(seconds_until wait_for_kernel);
use KeepaliveGuard::SlotMemory;
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary', conf => "keepalive_guard.watch_interval = 200ms\n");
my $admin = $node->unix_session;
$admin->query('CREATE ROLE stopped_app LOGIN');
$admin->query('CREATE ROLE other_app LOGIN');
$node->policy(name => 'app', role => '/_app$', tcp_keepalives_idle => '100s', tcp_keepalives_interval => '5s');
$node->wait_for_policies;

sub state_of
{
	my ($pid) = @_;
	open my $stat, '<', "/proc/$pid/stat" or die "stat: $!";
	return (<$stat> =~ /\) (\w)/)[0];
}

# Stops a session as if while it writes its slot.  Returns a function that lets it go on.
sub stop_writing
{
	my ($session, $role) = @_;
	my $pid = $session->pid;
	my $slot = KeepaliveGuard::SlotMemory->new($pid, $role);
	kill 'STOP', $pid;
	sleep 0.01 until state_of($pid) eq 'T';
	my $sequence = $slot->sequence;
	die "the sequence number $sequence is odd" if $sequence % 2;
	$slot->set_sequence($sequence + 1);
	return sub {
		$slot->set_sequence($sequence + 2);
		kill 'CONT', $pid;
	};
}

sub apply
{
	my ($timeout) = @_;
	my %counts;
	@counts{qw(sessions applied overridden failed pending without_policy)} =
	  @{ $admin->query("SELECT sessions, applied, overridden, failed, pending, without_policy FROM keepalive_apply('$timeout')")->[0] };
	return \%counts;
}

sub policy_state
{
	my ($session) = @_;
	return $node->status($session->pid)->{policy_state} // 'none';
}

# Waits until the kernel has this tcp_keepalives_idle for the session.
sub wait_for_idle
{
	my ($session, $idle) = @_;
	return scalar wait_for_kernel($session, { idle => $idle }, 10);
}

# --- a change of a policy ----------------------------------------------------------

my $stopped = $node->session(host => $host, user => 'stopped_app');
my $other = $node->session(host => $host, user => 'other_app');
is(policy_state($stopped), 'applied', 'the session has its policy');
is(apply('5s')->{pending}, 0, 'no session is pending');

my $go_on = stop_writing($stopped, 'stopped_app');
$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '200s'});
ok(defined wait_for_idle($other, 200), 'the change reaches the other session');

my $start = time;
my $counts = apply('4s');
cmp_ok(time - $start, '>=', 3.9, 'keepalive_apply() waits for the stopped session');
is($counts->{pending}, 1, 'keepalive_apply() counts it as pending');
is($counts->{applied}, 1, 'keepalive_apply() counts the other session as applied');
is($counts->{sessions}, $counts->{applied} + $counts->{pending} + $counts->{without_policy}, 'keepalive_apply() counts all sessions');

my $status = $node->status($stopped->pid);
is($status->{policy_state}, 'pending', 'keepalive_status() shows it as pending');
is($status->{policy}, 'app', 'keepalive_status() shows its policy');
is($status->{usename}, 'stopped_app', 'keepalive_status() shows its role');
is($status->{client_addr}, $host->address, 'keepalive_status() shows its client');
is($status->{health}, 'alive', 'keepalive_status() shows what the kernel knows of it');
is($status->{tcp_keepalives_idle}, undef, 'keepalive_status() does not show settings that it cannot read');
is($admin->value(q{SELECT sessions FROM keepalive_stats() WHERE policy = 'app'}), 2, 'keepalive_stats() counts it');

$go_on->();
my $seconds = wait_for_idle($stopped, 200);
ok(defined $seconds, 'the change reaches the session once it goes on, without another change');
cmp_ok($seconds // 99, '<', 2, 'that takes less than two seconds');
ok(defined seconds_until(5, sub { policy_state($stopped) eq 'applied' }), 'keepalive_status() shows it as applied');
is($stopped->value('SHOW tcp_keepalives_idle'), 200, 'the session shows the new value');
is(apply('5s')->{pending}, 0, 'no session is pending any more');

# --- the worker restarts, and the session ends ----------------------------------------

$go_on = stop_writing($stopped, 'stopped_app');
$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '300s'});
ok(defined wait_for_idle($other, 300), 'another change reaches the other session');
my $worker = $node->worker_pid;
kill 'TERM', $worker;
my $until = time + 20;
sleep 0.1 until time > $until || $node->worker_pid =~ /^(?!$worker$)\d+$/;
is(apply('4s')->{pending}, 1, 'after a restart of the worker it is pending');
$go_on->();
ok(defined wait_for_idle($stopped, 300), 'the new worker brings the change as well');
is(apply('5s')->{pending}, 0, 'no session is pending afterwards');

$go_on = stop_writing($stopped, 'stopped_app');
$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '400s'});
ok(defined wait_for_idle($other, 400), 'a third change reaches the other session');
$stopped->vanish;
$go_on->();
ok(defined $node->wait_for_exit($stopped->pid, 10), 'a stopped session whose client has gone ends');
is(apply('5s')->{pending}, 0, 'it is not pending any more');

# --- the worker is stopped while it writes what a session should have ------------------------

{
	my $session = $node->session(host => $host, user => 'stopped_app');
	my $idle = 500;
	my $slot = KeepaliveGuard::SlotMemory->new($session->pid, 'stopped_app');
	my $end_writing = $slot->begin_to_write_wanted(sub {
		$idle += 100;
		$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s'");
		$node->wait_for_policies;
	});
	$session->terminate;
	sleep 0.5;
	$end_writing->();
	ok(defined $node->wait_for_exit($session->pid, 10), 'a session ends once the worker goes on');
	is($admin->value('SELECT policies[1] FROM keepalive_events() WHERE pid = ' . $session->pid), 'app', 'its event has its policy');
}

# --- dead_after -------------------------------------------------------------------

# The only session to watch, so the worker would sleep if it took the slot for a free one.
$other->terminate;
$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '1s', tcp_keepalives_interval = '1s', dead_after = '5s'});
$node->wait_for_policies;
my $watched = $node->session(host => $host, user => 'stopped_app');
sleep 0.5;
$go_on = stop_writing($watched, 'stopped_app');
sleep 1;
$go_on->();
sleep 0.5;
$host->drop;
ok(defined $node->wait_for_exit($watched->pid, 15), 'dead_after ends a session that could not be read for a while');
is($admin->value('SELECT cause FROM keepalive_events() WHERE pid = ' . $watched->pid), 'dead_after', 'the cause is dead_after');

done_testing();
