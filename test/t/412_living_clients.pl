# dead_after never ends the session of a client that has answered the kernel's last probe or
# retransmission, in any state of the connection, although the kernel asks again much later
# than that.  A client that disappears in the same states is found in time.
use strict;
use warnings;

use IO::Select ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets qw(socket_line wait_until_acknowledged);
use KeepaliveGuard::Network;
use KeepaliveGuard::Tls;
use KeepaliveGuard::TlsSession;
use List::Util 'max';
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;
use Time::HiRes qw(sleep time);

my $dead_after = 2;
my $watch_interval = 0.2;
my $idle = 8;           # also the interval: longer than dead_after
my $living = 42;        # seconds that the clients live
my $slack = 1;

# The kernel's gaps grow up to this, from Linux 6.15; else they grow as long as the test
# runs.  Before there is a listener, from which its connections have it.
my $rto_max = 12;
if (open my $sysctl, '>', '/proc/sys/net/ipv4/tcp_rto_max_ms')
{
	print $sysctl 1000 * $rto_max;
	close $sysctl or die "tcp_rto_max_ms: $!";
}
else
{
	$rto_max = 60;
}

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $lossy_host = $network->add_host;
my $interrupted_host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 1,
	conf => KeepaliveGuard::Tls::conf(PostgreSQL::Test::Utils::tempdir)
	  . 'keepalive_guard.watch_interval = ' . 1000 * $watch_interval . "ms\nwal_sender_timeout = 0\n");
my $superuser = $node->unix_session;
$superuser->query('CREATE ROLE living LOGIN REPLICATION');
$superuser->query('CREATE ROLE interrupted LOGIN');
$node->policy(name => 'living', role => 'living', dead_after => "${dead_after}s", tcp_keepalives_count => 100,
	tcp_keepalives_idle => "${idle}s", tcp_keepalives_interval => "${idle}s");
# Longer than its clients are interrupted.
$node->policy(name => 'interrupted', role => 'interrupted', dead_after => '5s', tcp_keepalives_count => 100,
	tcp_keepalives_idle => '2s', tcp_keepalives_interval => '20s');
$node->wait_for_policies;

# --- the clients ----------------------------------------------------------------------

my $large = q(SELECT repeat('x', 10000) FROM generate_series(1, 10000));
my %client; # state => session

sub connect_client
{
	my ($state, %options) = @_;
	my $class = delete $options{class} // 'KeepaliveGuard::Session';
	$client{$state} = $class->new(port => $node->port, host => $host, user => 'living', %options);
	wait_until_acknowledged($client{$state}->port);
	return $client{$state};
}

# Asks for a large result after the receive buffer has become so small that the client's
# kernel takes back the window that it has offered.
sub shrink
{
	my ($session) = @_;
	setsockopt $session->socket, SOL_SOCKET, SO_RCVBUF, 8192 or die "SO_RCVBUF: $!";
	$session->send($large);
	return;
}

connect_client('idle');
connect_client('idle in a transaction')->query('BEGIN');
connect_client('at work')->send('SELECT pg_sleep(600)');
connect_client('not reading', receive_buffer => 4096)->send($large);
connect_client('reading a little', receive_buffer => 4096)->send($large);
connect_client('not reading, TLS', class => 'KeepaliveGuard::TlsSession', receive_buffer => 4096)->send($large);
shrink(connect_client('window shrunk'));
shrink(connect_client('window shrunk, reading a little'));
connect_client('lossy path', host => $lossy_host);
$lossy_host->lose(4);

my $stopped = $host->start('psql', '-XAtqo', '/dev/null',
	'-c', q(COPY (SELECT repeat('x', 10000) FROM generate_series(1, 10000000)) TO STDOUT),
	"host=@{[$host->server]} port=@{[$node->port]} user=living dbname=postgres application_name=stopped");
my $stopped_client = $stopped->{KIDS}[0]{PID};
my $stopped_backend;
foreach (1 .. 500)
{
	last if $stopped_backend = $superuser->value(
		q(SELECT pid FROM pg_stat_activity WHERE application_name = 'stopped' AND state = 'active'));
	sleep 0.02;
}
die "psql does not connect\n" unless $stopped_backend;
kill 'STOP', $stopped_client;

my $standby = connect_client('standby not reading', replication => 'true', receive_buffer => 4096);
$standby->query('START_REPLICATION PHYSICAL ' . $superuser->value('SELECT pg_current_wal_flush_lsn()'));
$superuser->query(q(SELECT pg_logical_emit_message(false, 'test', repeat('x', 10000)) FROM generate_series(1, 1000)));

# The kernel may leave its count of unanswered probes as it is when data comes after the
# probe (on its fast path, for which the socket needs memory to spare): try some.
my @interrupted;
foreach my $unread (map { 1000 * $_ } 1 .. 8)
{
	my $session = connect_client("probe lost, then data ($unread)",
		host => $interrupted_host, user => 'interrupted');
	$session->send('SELECT pg_sleep(600)');
	push @interrupted, $session;
	sleep 0.1;
	$session->send('SELECT 1 /*' . 'x' x $unread . '*/'); # not read by the backend
}
sleep 0.5;
$interrupted_host->drop;
sleep 2.5;
$interrupted_host->restore;
$_->send('SELECT 2') foreach @interrupted;
sleep 0.3;
my @still_counted = grep { $node->status($_->pid)->{unanswered_probes} } @interrupted;
note('probe still counted: ' . @still_counted);

# --- they live ------------------------------------------------------------------------

my %sample; # pid => [ { silent_for, health, gives_up_in } ]

sub sample
{
	my $rows = $superuser->query(<<'END');
SELECT pid, extract(epoch FROM silent_for), health, extract(epoch FROM gives_up_in), timer
FROM keepalive_status() WHERE policies IS NOT NULL
END
	foreach my $row (@$rows)
	{
		my ($pid, %now) = shift @$row;
		@now{qw(silent_for health gives_up_in timer)} = @$row;
		push @{ $sample{$pid} }, { time => time, %now };
	}
	return;
}

# Reads what is there, this many bytes at the most.
sub read_some
{
	my ($session, $bytes) = @_;
	while ($bytes > 0 && IO::Select->new($session->socket)->can_read(0))
	{
		$bytes -= sysread($session->socket, my $data, $bytes) || last;
	}
	return;
}

my $until = time + $living;
for (my $round = 0; time < $until; $round++)
{
	sample();
	if ($round % 6 == 0)
	{
		read_some($client{$_}, 4096) foreach 'reading a little', 'window shrunk, reading a little';
	}
	read_some($client{'lossy path'}, 1 << 20);
	eval { $client{'lossy path'}->send(q(SELECT repeat('x', 3000))) } unless $round % 3;
	sleep 0.5;
}

sub longest_silence
{
	my ($pid) = @_;
	return max(map { $_->{silent_for} } @{ $sample{$pid} });
}

ok(-d "/proc/$stopped_backend", 'stopped by SIGSTOP: not ended');
foreach my $state (sort keys %client)
{
	my $pid = $client{$state}->pid;
	ok(-d "/proc/$pid", "$state: not ended")
	  or diag(map { join(' ', map { $_ // 'NULL' } @$_{qw(time silent_for health timer)}) . "\n" } @{ $sample{$pid} });
}
cmp_ok(longest_silence($client{$_}->pid), '>', 2 * $dead_after, "$_: the kernel's gaps are longer than dead_after")
  foreach 'idle', 'at work', 'not reading', 'not reading, TLS', 'window shrunk', 'standby not reading';
is_deeply($superuser->query(q(SELECT pid, silent_for, detail FROM keepalive_events() WHERE cause = 'dead_after')),
	[], 'no session is ended by dead_after');

my @shrunk = @{ $sample{ $client{'window shrunk'}->pid } };
is(scalar(grep { $_->{timer} eq 'retransmit' } @shrunk), scalar @shrunk,
	'the kernel probes a shrunk window by retransmissions');
is_deeply([ grep { $_->{health} ne 'zero_window' } @shrunk ], [], 'which is the health zero_window');
cmp_ok(scalar @still_counted, '>', 0, 'the kernel counts probes as unanswered although data came after them');

# --- they disappear ---------------------------------------------------------------------

delete @client{ grep { /^lossy|^probe lost/ } keys %client };
my %dies = map { ($client{$_}->pid => $_) } keys %client;
$dies{$stopped_backend} = 'stopped by SIGSTOP';
my $before = time;
$host->drop;
my $dropped = time;
sample();
my %foretold = map { ($_ => $sample{$_}[-1]{time} + $sample{$_}[-1]{gives_up_in}) } keys %dies;

# The next question comes after one period at the most.
my $latest = $dead_after + 2 * $watch_interval + max($rto_max, $idle) * 1.13;
my %ended;
foreach my $pid (keys %dies)
{
	$ended{$pid} = $node->ended_at($pid) if defined $node->wait_for_exit($pid, $latest + 10);
}
foreach my $pid (sort { $dies{$a} cmp $dies{$b} } keys %dies)
{
	my $state = $dies{$pid};
	# A WAL sender with a full send buffer ends by the second SIGTERM.
	my $slack = $state =~ /^standby/ ? $slack + 1 + 2 * $watch_interval : $slack;
	my $took = ($ended{$pid} // 9**9) - $dropped;
	cmp_ok($dropped - $before + $took, '>', $dead_after - $watch_interval, "$state: a dead client gets dead_after to answer");
	cmp_ok($took, '<', $latest + $slack, "$state: and is found after the kernel's next question");
	cmp_ok($dropped + $took, '<', $foretold{$pid} + $slack, "$state: not later than gives_up_in")
	  or diag(explain($sample{$pid}[-1]), $dropped);
	is($superuser->value("SELECT cause FROM keepalive_events() WHERE pid = $pid LIMIT 1"),
		'dead_after', "$state: by dead_after");
}

kill 'KILL', $stopped_client;
$stopped->kill_kill(grace => 1);
done_testing();
