# dead_after and stall_timeout: which sessions the watcher ends and which it does not, what
# it logs, and that it sleeps when no session has these settings.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets qw(client_socket socket_line wait_until_acknowledged);
use KeepaliveGuard::Settings 'seconds_until';
use KeepaliveGuard::Signals 'use_up_descriptors';
use List::Util 'max';
use Socket qw(SOL_SOCKET SO_SNDBUF);
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $other = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 1, conf => "keepalive_guard.watch_interval = 200ms\nlog_min_messages = debug1\n");
my $superuser = $node->unix_session;
my %keepalive = (tcp_keepalives_idle => '1s', tcp_keepalives_interval => '1s', tcp_keepalives_count => 100);

foreach my $role (qw(plain dead stalled double patient))
{
	$superuser->query("CREATE ROLE $role LOGIN");
}
$node->policy(name => 'plain', role => 'plain', %keepalive);
$node->policy(name => 'dead', role => 'dead', %keepalive, dead_after => '2s');
$node->policy(name => 'stalled', role => 'stalled', %keepalive, stall_timeout => '2s');
$node->policy(name => 'double', role => 'double', %keepalive, dead_after => '3s', stall_timeout => '2s');
$node->policy(name => 'patient', role => 'patient', %keepalive, dead_after => '5s');
$node->wait_for_policies;

sub session
{
	my ($role, %options) = @_;
	my $session = $node->session(host => $host, user => $role, dbname => 'postgres', %options);
	wait_until_acknowledged($session->port);
	return $session;
}

# A session whose client does not read, and two times between which its window was closed.
sub unread
{
	my ($role, %options) = @_;
	my $session = session($role, receive_buffer => 4096, %options);
	my $before = time;
	$session->send(q(SELECT repeat('x', 10000) FROM generate_series(1, 3000)));
	seconds_until(20, sub { (socket_line($session->port)->{timer}{name} // '') eq 'persist' });
	return ($session, $before, time);
}

sub is_there
{
	my ($session) = @_;
	return -d '/proc/' . $session->pid;
}

sub cause_of
{
	my ($session) = @_;
	my $pid = $session->pid;
	return $superuser->query("SELECT cause, policies[1] FROM keepalive_events() WHERE pid = $pid LIMIT 1")->[0];
}

# The number of times that the worker has woken up.  The watcher would wake it ten times in
# two seconds.
my $worker = $node->worker_pid;

sub wake_ups
{
	open my $status, '<', "/proc/$worker/status" or die "no worker: $!";
	my ($count) = map { /^voluntary_ctxt_switches:\s+(\d+)/ ? $1 : () } <$status>;
	return $count;
}

# Whether the worker stops waking up.
sub sleeps
{
	return defined seconds_until(20, sub { my $before = wake_ups(); sleep 2; wake_ups() <= $before + 1 });
}

# Whether the worker wakes up once a second at least.
sub wakes_regularly
{
	my $before = wake_ups();
	return defined seconds_until(5, sub { wake_ups() >= $before + 5 });
}

# --- no session with dead_after or stall_timeout -----------------------------------

{
	my $plain = session('plain');
	my $unix = $node->unix_session(user => 'dead', dbname => 'postgres');
	# The policy reader's exit wakes the worker.
	$node->poll_query_until('postgres',
		q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'keepalive_guard policy reader'})
	  or die "the policy reader does not exit\n";
	ok(sleeps(), 'the worker sleeps while no TCP session has dead_after or stall_timeout');

	my $dead = session('dead');
	ok(wakes_regularly(), 'the worker wakes regularly while a session has dead_after');
	$dead->terminate;
	ok(sleeps(), 'the worker sleeps again after the session with dead_after has ended');

	$plain->query(q(SELECT 1));
	$superuser->query(q(UPDATE keepalive_policy SET dead_after = '60s' WHERE name = 'plain'));
	$node->wait_for_policies;
	ok(wakes_regularly(), 'the worker wakes regularly once a connected session gets dead_after');
	$superuser->query(q(UPDATE keepalive_policy SET dead_after = NULL WHERE name = 'plain'));
	$node->wait_for_policies;
	$_->terminate foreach $plain, $unix;
}

# --- which sessions are ended -------------------------------------------------------

{
	my $log = $node->log_end;
	my ($reader, $before, $after) = unread('stalled');
	my ($patient) = unread('dead');
	ok(defined $node->wait_for_exit($reader->pid, 10), 'stall_timeout ends a living client that does not read');
	my $ended = $node->ended_at($reader->pid);
	cmp_ok($ended - $before, '>', 1.8, 'stall_timeout does not end the session early');
	cmp_ok($ended - $after, '<', 4, 'stall_timeout does not end the session late');
	is_deeply(cause_of($reader), [ 'stall_timeout', 'stalled' ], 'the event has cause stall_timeout and the policy');
	my $pid = $reader->pid;
	is($node->log_count(qr/DEBUG:  keepalive_guard: terminating session with PID $pid: client has read nothing for [\d.]+ s \(stall_timeout 2\.000 s of policy "stalled"\)/, $log),
		1, 'the worker logs that stall_timeout ends the session');
	my $client = $host->address . ':' . $reader->port;
	is($node->log_count(qr/DETAIL:  Client \Q$client\E: silent for [\d.]+ s, state ESTABLISHED, timer persist, /, $log),
		1, 'the log message\'s detail has the state of the connection');
	sleep 3;
	ok(is_there($patient), 'dead_after does not end a living client that does not read');
	# Not while the kernel waits for the answer to a probe.
	ok(defined seconds_until(10, sub { $superuser->value('SELECT health FROM keepalive_status() WHERE pid = ' . $patient->pid) eq 'zero_window' }),
		'health of the client that does not read is zero_window');
	is(scalar @{ $patient->result->{rows} }, 3000, 'the client that paused can still read the whole result');
	$patient->terminate;
}

{
	# Sessions that are never silent for as long as dead_after at a time: idle, in a
	# transaction, busy, slow.
	my $idle = session('double');
	my $in_transaction = session('double');
	$in_transaction->query('BEGIN');
	my $sleeping = session('double');
	$sleeping->send('SELECT pg_sleep(60)');
	my $interrupted = session('patient');
	my $slow = session('double', receive_buffer => 4096);
	$slow->send(q(SELECT repeat('x', 10000) FROM generate_series(1, 3000)));
	my $until = time + 12;
	my ($windows_closed, $looks) = (0, 0);
	# How long the client was unreachable, and did not read, if the test had to wait for a CPU.
	my ($longest_drop, $longest_pause, $dropped, $read) = (0, 0, undef, time);
	for (my $round = 0; time < $until; $round++)
	{
		if ($round % 10 == 5)
		{
			$dropped = time;
			$host->drop(port => $interrupted->port);
		}
		if ($round % 10 == 9)
		{
			$host->restore;
			$longest_drop = max($longest_drop, time - $dropped);
		}
		sleep 0.3;
		$windows_closed++ if (socket_line($slow->port)->{timer}{name} // '') eq 'persist';
		$looks++;
		sysread $slow->socket, my $bytes, 4096;
		$longest_pause = max($longest_pause, time - $read);
		$read = time;
	}
	$host->restore;
	$longest_drop = max($longest_drop, time - $dropped);
	cmp_ok($windows_closed, '>', $looks / 2, 'a slow reader\'s window is closed most of the time');
	ok(is_there($slow) || $longest_pause > 1.5, 'stall_timeout does not end a slow reader');
	ok(is_there($_->[0]), "a session that is $_->[1] is not ended")
	  foreach [ $idle, 'idle' ], [ $in_transaction, 'idle in a transaction' ], [ $sleeping, 'busy' ];
	ok(is_there($interrupted) || $longest_drop > 4, 'a session that is at times unreachable is not ended');
	$_->vanish foreach $idle, $in_transaction, $sleeping, $interrupted, $slow;
	note sprintf 'unreachable for %.1f s, not reading for %.1f s', $longest_drop, $longest_pause;
}

{
	my $walsender = $node->session(host => $host, user => 'postgres', replication => 'true',
		dbname => 'replication');
	$superuser->query(q(UPDATE keepalive_policy SET role = NULL, backend = 'replication' WHERE name = 'dead'));
	$node->wait_for_policies;
	wait_until_acknowledged($walsender->port);
	my $log = $node->log_end;
	my $dropped = time;
	$host->drop;
	ok(defined $node->wait_for_exit($walsender->pid, 20), 'dead_after ends a walsender too');
	cmp_ok($node->ended_at($walsender->pid) - $dropped, '>', 2, 'dead_after does not end the walsender early');
	is_deeply(cause_of($walsender), [ 'dead_after', 'dead' ], 'the event of the walsender has cause dead_after and the policy');
	my $pid = $walsender->pid;
	is($node->log_count(qr/terminating session with PID $pid: client has not answered for [\d.]+ s \(dead_after 2\.000 s of policy "dead"\)/, $log),
		1, 'the worker logs that dead_after ends the walsender');
	cmp_ok($node->log_count(qr/DETAIL:  Client .* timer keepalive, [1-9]\d* unanswered probes/, $log),
		'==', 1, 'the log message\'s detail has the unanswered probes');
	$host->restore;
	$superuser->query(q(UPDATE keepalive_policy SET role = 'dead', backend = NULL WHERE name = 'dead'));
	$node->wait_for_policies;
}

# --- backends that do not exit at the first signal -----------------------------------

{
	my $log = $node->log_end;
	my $sending = session('dead');
	my $stopped = session('dead');
	# Its last error message contains the statement (_SPI_error_callback), and is longer than
	# the send buffer.
	$sending->send(
		q(DO $$BEGIN EXECUTE 'SELECT pg_sleep(60) /*' || repeat('x', 300000) || '*/'; END$$));
	$node->wait_for_wait_event($sending->pid, 'PgSleep');
	{
		my $socket = client_socket($sending->pid, $sending->port);
		setsockopt $socket, SOL_SOCKET, SO_SNDBUF, 1 or die "SO_SNDBUF: $!";
	}
	$host->drop;
	kill 'STOP', $stopped->pid;
	my $pid = $sending->pid;
	my $signalled = qr/terminating session with PID $pid:/;
	$node->wait_for_log($signalled, $log);
	ok(defined $node->wait_for_exit($pid, 20), 'a backend that blocks while it sends its last message ends by a second signal');
	my $took = $node->ended_at($pid) - ($node->log_times($signalled, $log))[0];
	cmp_ok($took, '>', 0.9, 'a backend that blocks while it sends does not end by the first signal');
	cmp_ok($took, '<', 3, 'the second signal comes soon');
	is_deeply(cause_of($sending), [ 'dead_after', 'dead' ], 'the event of the blocked backend has cause dead_after and the policy');

	$pid = $stopped->pid;
	$node->wait_for_log(qr/session with PID $pid did not exit within 10 s of SIGTERM/, $log);
	sleep 1;
	is($node->log_count(qr/session with PID $pid did not exit/, $log), 1, 'the worker logs once that a stopped backend did not exit');
	kill 'TERM', $worker;
	ok(defined $node->wait_for_exit($worker, 5), 'the worker exits');
	kill 'CONT', $pid;
	ok(defined $node->wait_for_exit($pid, 5), 'the stopped backend exits once it runs again');
	is_deeply(cause_of($stopped), [ 'dead_after', 'dead' ], 'its event has cause dead_after and the policy, although the worker has exited');
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'keepalive_guard worker'});
	$worker = $node->worker_pid;
	$host->restore;
}

# --- a worker that can open no descriptor for a backend ----------------------------------

{
	my $log = $node->log_end;
	my @dead = map { session('dead') } 1 .. 2;
	my $restore = use_up_descriptors($worker);
	$host->drop;
	my $failed = qr/LOG:  keepalive_guard: could not terminate session with PID \d+: Too many open files/;
	$node->wait_for_log($failed, $log);
	sleep 4;
	is(scalar(grep { is_there($_) } @dead), 2, 'a worker that can open no descriptor cannot terminate sessions');
	$restore->();
	ok(defined $node->wait_for_exit($_->pid, 10), 'it tries again, until it can') foreach @dead;
	is_deeply(cause_of($_), [ 'dead_after', 'dead' ], 'the cause of the event is dead_after') foreach @dead;
	is($node->log_count($failed, $log), 1, 'the log has the error once');
	is($node->log_count(qr/did not exit within/, $log), 0, 'a backend without SIGTERM does not count as one that ignores it');
	$host->restore;
}

# --- a worker, or a whole machine, that was stopped for a while ---------------------------

{
	# Again, if the test had to wait for a CPU until the session was ended.
	my $dead;
	foreach (1 .. 3)
	{
		$dead = session('dead');
		$host->drop;
		seconds_until(10, sub { (socket_line($dead->port) // { timer => { count => 1 } })->{timer}{count} });
		kill 'STOP', $worker;
		last if is_there($dead);
		kill 'CONT', $worker;
		$host->restore;
	}
	sleep 6;
	my $resumed = time;
	kill 'CONT', $worker;
	ok(defined $node->wait_for_exit($dead->pid, 20), 'dead_after ends a session after the worker was stopped');
	cmp_ok($node->ended_at($dead->pid) - $resumed, '>=', 2, 'silence while the worker was stopped does not count for dead_after');
	$host->restore;
}

# --- watch_interval = 0 ---------------------------------------------------------------

{
	$node->append_conf('postgresql.conf', "keepalive_guard.watch_interval = 0\n");
	$node->reload;
	my $dead = session('dead');
	ok(defined seconds_until(10, sub { $superuser->value('SELECT gives_up_in > interval \'60s\' FROM keepalive_status() WHERE pid = ' . $dead->pid) eq 't' }),
		'with watch_interval = 0, gives_up_in ignores dead_after');
	sleeps(); # it has seen the setting too
	my $before = wake_ups();
	$host->drop;
	sleep 5;
	ok(is_there($dead), 'with watch_interval = 0, dead_after does not end a session');
	cmp_ok(wake_ups(), '<=', $before + 1, 'with watch_interval = 0, the worker sleeps');
	$node->append_conf('postgresql.conf', "keepalive_guard.watch_interval = 200ms\n");
	$node->reload;
	ok(defined $node->wait_for_exit($dead->pid, 10), 'dead_after ends the session once watch_interval is set again');
	$host->restore;
}

done_testing();
