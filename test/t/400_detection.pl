# When a backend ends after its client is lost, for each combination of what the backend is
# doing, its settings, and how the client is lost: always within the interval that the model
# (src/model, asked through build/predict) gives, and as keepalive_status()
# predicts meanwhile.  All combinations run at once.  Writes the matrix to matrix.md in $TESTDIR
# (test/detection_matrix).  160 sessions, some of them computing, have to be in place before the
# first of them ends by itself.
# alone
use strict;
use warnings;

use IO::Select ();
use IPC::Run ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets 'socket_lines';
use List::Util 'max';
use Test::More;
use Time::HiRes qw(sleep time);

# Short kernel defaults, for the cells that depend on them; the real defaults are tested
# as arithmetic only (test/unit/model_detection.cpp).
my $retries = 4;
my %sysctl = (tcp_keepalive_time => 3, tcp_keepalive_intvl => 1, tcp_keepalive_probes => 3,
	tcp_retries2 => $retries);
my $fin_timeout = 2;
my $watch_interval = 1000;

# Time that a process needs beyond the model, which is about the kernel and the guard: to
# be scheduled on a loaded machine, and to be observed.
my $slack = 1.0;

# Seconds for which the backends that never end, according to the model, are observed.
my $never = 32;

# --- the matrix -------------------------------------------------------------------

# Columns of a policy, undef: none.
my @settings = (
	[ 'keepalive only', { tcp_keepalives_idle => 2, tcp_keepalives_interval => 1, tcp_keepalives_count => 3 } ],
	[
		'with client check',
		{
			tcp_keepalives_idle => 2, tcp_keepalives_interval => 1, tcp_keepalives_count => 3,
			client_connection_check_interval => 1
		} ],
	[
		'with user timeout',
		{
			tcp_keepalives_idle => 2, tcp_keepalives_interval => 1, tcp_keepalives_count => 3,
			tcp_user_timeout => 4, client_connection_check_interval => 1
		} ],
	[
		'dead_after',
		{
			tcp_keepalives_idle => 2, tcp_keepalives_interval => 2, tcp_keepalives_count => 20,
			dead_after => 3
		} ],
	[ 'native default', undef ]);

# What the backend is doing, the model's name for it, and how to bring the backend there.
my @states = (
	[ 'idle', 'waiting' ],
	[ 'idle in transaction', 'waiting', sub { $_[0]->query('BEGIN') } ],
	[ 'sleeping', 'working', sub { $_[0]->send('SELECT pg_sleep(600)') } ],
	[
		'CPU-bound',
		'working',
		sub {
			$_[0]->send('DO $$BEGIN LOOP END LOOP; END$$');
			# There are twenty of them.  With the lowest priority, the scheduler of a busy
			# machine would let them run once in a second.
			setpriority 0, $_[0]->pid, 10;
		} ],
	[ 'waiting for a lock', 'working', sub { $_[0]->send('SELECT pg_advisory_lock(1)') } ],
	[ 'notification in flight', 'in_flight', sub { $_[0]->query('LISTEN going') } ],
	[
		'sending a large result',
		'in_flight',
		sub {
			$_[0]->send(q(SELECT repeat('x', 30000), pg_sleep(0.02) FROM generate_series(1, 100000)));
		} ],
	[
		'zero window',
		'stalled',
		sub { $_[0]->send(q(SELECT repeat('x', 10000) FROM generate_series(1, 100000))) } ]);

my @faults = (
	[ 'packets dropped', 'silent', sub { $_[0]->drop } ],
	[ 'host restarted (reset)', 'reset', sub { $_[0]->refuse } ],
	[ 'link down', 'silent', sub { $_[0]->link_down } ],
	# The kernel has closed the sockets when it is a zombie.
	[ 'client killed', 'closed', sub { kill 'KILL', $_[1]; waitpid $_[1], 0 } ]);

# --- server, hosts and sessions ---------------------------------------------------

sub set_sysctl
{
	my ($prefix, $name, $value) = @_;
	IPC::Run::run [ @$prefix, 'sh', '-c', "echo $value >/proc/sys/net/ipv4/$name" ]
	  or die "cannot set $name";
	return;
}

sub get_sysctl
{
	my ($name) = @_;
	open my $file, '<', "/proc/sys/net/ipv4/$name" or return;
	return 0 + <$file>;
}

my $network = KeepaliveGuard::Network->new;
# Set before the listener exists: connections inherit tcp_rto_max_ms from it.
set_sysctl([], $_, $sysctl{$_}) foreach sort keys %sysctl;
set_sysctl([], 'tcp_rto_max_ms', 4000) if defined get_sysctl('tcp_rto_max_ms'); # from 6.15
my $rto_max = get_sysctl('tcp_rto_max_ms') // 120_000;
my $node = KeepaliveGuard::Cluster->start_new('primary',
	conf => "max_connections = 250\nmax_wal_senders = 0\nkeepalive_guard.watch_interval = ${watch_interval}ms\n");
my $superuser = $node->unix_session;

foreach my $setting (@settings)
{
	my ($name, $policy) = @$setting;
	$superuser->query(qq(CREATE ROLE "$name" LOGIN));
	next unless $policy;
	my %columns = map { ($_ => $policy->{$_} . ($_ eq 'tcp_keepalives_count' ? '' : 's')) } keys %$policy;
	$node->policy(name => $name, role => $name, %columns);
}
$node->wait_for_policies;
$superuser->query('SELECT pg_advisory_lock(1)');

my @cells;

# Starts a process that holds the sockets of all clients of a host and reads from some.
sub client_process
{
	my (@own) = @_;
	pipe my $parent_end, my $child_end or die "pipe: $!";
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		my %own = map { ($_->{pid} => 1) } @own;
		$_->{session}->vanish foreach grep { !$own{ $_->{pid} } && $_->{session}->socket } @cells;
		close $child_end;
		my $reading =
		  IO::Select->new(map { $_->{session}->socket } grep { $_->{state} =~ /^sending/ } @own);
		while (1)
		{
			foreach my $socket ($reading->can_read)
			{
				$reading->remove($socket) unless sysread $socket, my $bytes, 1 << 20;
			}
			sleep 600 unless $reading->count;
		}
	}
	$_->{session}->vanish foreach @own;
	close $child_end;
	readline $parent_end; # until it has closed the sockets of others
	return $pid;
}

foreach my $fault (@faults)
{
	my ($fault_name, $fault_kind) = @$fault;
	my $host = $network->add_host;
	# rto_min as for a round trip of 100 ms: with the default, the last retransmission but
	# one is due exactly when the kernel's limit is reached.
	IPC::Run::run [ 'ip', 'route', 'change', $host->address =~ s/\d+$/0\/24/r, 'dev',
		"veth$host->{n}", 'src', $host->server, 'rto_min', '300ms' ]
	  or die 'cannot change the route';
	set_sysctl([ 'nsenter', '--target=' . $host->pid, '--net', '--' ],
		'tcp_fin_timeout', $fin_timeout);
	foreach my $setting (@settings)
	{
		my ($setting_name, $policy) = @$setting;
		foreach my $state (@states)
		{
			my ($state_name, $situation, $prepare) = @$state;
			my $session = $node->session(
				host => $host, user => $setting_name, dbname => 'postgres',
				$situation eq 'stalled' ? (receive_buffer => 4096) : ());
			push @cells,
			  {
				fault => $fault_name, kind => $fault_kind, setting => $setting_name,
				policy => $policy // {}, state => $state_name, situation => $situation,
				prepare => $prepare, host => $host, session => $session, pid => $session->pid,
				port => $session->port, samples => [] };
		}
	}
}

# --- the model's intervals ----------------------------------------------------------

# Sets earliest and latest of each case: { kind, situation, policy }.
sub predict
{
	my (@cases) = @_;
	my $input = '';
	foreach my $cell (@cases)
	{
		my $p = $cell->{policy};
		$input .= join(' ',
			@$cell{qw(kind situation)}, 1,
			$p->{tcp_keepalives_idle} // $sysctl{tcp_keepalive_time},
			$p->{tcp_keepalives_interval} // $sysctl{tcp_keepalive_intvl},
			$p->{tcp_keepalives_count} // $sysctl{tcp_keepalive_probes},
			(map { 1000 * ($p->{$_} // 0) }
				  qw(tcp_user_timeout client_connection_check_interval dead_after stall_timeout)),
			$watch_interval, $retries, $rto_max, 1000 * $fin_timeout) . "\n";
	}
	my $output = '';
	IPC::Run::run([ 'make', '-s', 'build/predict', "PG_CONFIG=$ENV{PG_CONFIG}" ]) or die 'build/predict';
	IPC::Run::run(['build/predict'], '<', \$input, '>', \$output) or die 'build/predict';
	my @lines = split /\n/, $output;
	die "build/predict: $output" unless @lines == @cases;
	foreach my $cell (@cases)
	{
		@$cell{qw(earliest latest)} = map { $_ eq '-' ? undef : $_ / 1000 } split ' ', shift @lines;
	}
	return;
}
predict(@cells);

# --- the clients are lost ------------------------------------------------------------

# Stalled sessions last: their user timeout may run while the client lives.
foreach my $cell (sort { ($a->{situation} eq 'stalled') <=> ($b->{situation} eq 'stalled') } @cells)
{
	$cell->{prepare}->($cell->{session}) if $cell->{prepare};
}
my %client;
my $test_process = $$;

END
{
	kill 'KILL', values %client if defined $test_process && $$ == $test_process;
}

foreach my $fault (@faults)
{
	$client{ $fault->[0] } = client_process(grep { $_->{fault} eq $fault->[0] } @cells);
}

my $settled = time + 10;
while (1)
{
	# Clients of two hosts may have the same port.
	my %line = map { ("$_->{peer}:$_->{peer_port}" => $_) } socket_lines();
	my @not_yet = grep {
		my $socket = $line{ $_->{host}->address . ":$_->{port}" };
		my $timer = $socket->{timer}{name} // '';
		$_->{situation} eq 'stalled' ? $timer ne 'persist'
		  : $_->{state} =~ /^sending/ ? 0
		  : $timer ne 'keepalive' || $socket->{send_queue} != 0
	} @cells;
	last unless @not_yet;
	die map { "not ready: $_->{state}, $_->{setting}: " . ($line{ $_->{host}->address . ":$_->{port}" }{text} // 'gone') . "\n" } @not_yet
	  if time > $settled;
	sleep 0.02;
}

foreach my $fault (@faults)
{
	my ($name, undef, $happen) = @$fault;
	my @gone = grep { $_->{fault} eq $name } @cells;
	$_->{before} = time foreach @gone;
	$happen->($gone[0]{host}, $client{$name});
	$_->{after} = time foreach @gone;
}
$superuser->query('NOTIFY going');
$_->{after} = time foreach grep { $_->{state} =~ /^notification/ } @cells;

# --- observation ----------------------------------------------------------------------

sub sample
{
	my $start = time;
	my $rows = $superuser->query(<<'END');
SELECT pid, health, extract(epoch FROM gives_up_in), extract(epoch FROM detects_idle),
	extract(epoch FROM detects_busy), rto / 1e6, timer, unanswered_probes, s.retransmits
FROM keepalive_status() s LEFT JOIN keepalive_tcp_info() USING (pid)
WHERE transport = 'tcp'
END
	my $time = ($start + time) / 2;
	my %cell = map { ($_->{pid} => $_) } @cells;
	foreach my $row (@$rows)
	{
		my ($pid, $health, $gives_up_in, $idle, $busy, $rto, @timer) = @$row;
		my $cell = $cell{$pid} // next;
		push @{ $cell->{samples} },
		  {
			time => $time, health => $health, gives_up_in => $gives_up_in, rto => $rto // 0,
			timer => join(' ', map { $_ // '' } @timer) };
		@$cell{qw(detects_idle detects_busy)} = ($idle, $busy);
	}
	return;
}

my $start = time;
my $next_sample = $start;
while (time - $start < 120)
{
	foreach my $cell (grep { !$_->{end} } @cells)
	{
		$cell->{end} = time unless -d "/proc/$cell->{pid}";
	}
	last
	  if time - $start > $never && !grep { !$_->{end} && defined $_->{latest} } @cells;
	if (time >= $next_sample)
	{
		sample();
		$next_sample = time + 0.4;
	}
	sleep 0.02;
}

# When the connection ended, by the backend's own clock, and not when the test saw that it had
# exited.
foreach my $row (@{ $superuser->query('SELECT pid, extract(epoch FROM ended_at) FROM keepalive_events()') })
{
	my ($cell) = grep { $_->{pid} == $row->[0] && $_->{end} } @cells;
	@$cell{qw(exited end)} = ($cell->{end}, $row->[1]) if $cell;
}

# --- comparison with the model --------------------------------------------------------

# The first moment at which the kernel or the guard had given up the client; undef if
# there is none.
sub given_up
{
	my ($cell) = @_;
	my ($dead) = grep { $_->{health} eq 'dead' } @{ $cell->{samples} };
	return $dead ? $dead->{time} : $cell->{end};
}

sub name_of
{
	my ($cell) = @_;
	return "$cell->{fault}, $cell->{state}, $cell->{setting}";
}

sub seconds
{
	my ($seconds) = @_;
	return defined $seconds ? sprintf '%.1f', $seconds : 'never';
}

sub show
{
	my ($cell) = @_;
	diag(sprintf "from %s to %s, predicted [%s, %s]",
		$cell->{end} ? map { seconds($cell->{end} - $cell->{$_}) } qw(after before) : ('', 'never'),
		map { seconds($_) } @$cell{qw(earliest latest)});
	diag(map { sprintf "%6.2f %s gives_up_in %s timer %s\n", $_->{time} - $cell->{after}, $_->{health},
			$_->{gives_up_in} // 'NULL', $_->{timer} } @{ $cell->{samples} });
	return;
}

# The backend's end.
foreach my $cell (@cells)
{
	my $name = name_of($cell);
	my $good;
	if (!defined $cell->{latest})
	{
		$good = ok(!$cell->{end}, "$name: the backend does not end");
	}
	else
	{
		my $end = $cell->{end};
		$good = ok(
			$end && $end - $cell->{before} > $cell->{earliest} - 0.05
			  && $end - $cell->{after} < $cell->{latest} + $slack
			  && defined $cell->{exited} && $cell->{exited} - $end < 10,
			sprintf '%s: the backend ends after %s s, in [%s, %s]', $name, seconds($end && $end - $cell->{after}),
			map { seconds($_) } @$cell{qw(earliest latest)});
	}
	show($cell) unless $good;
}

# gives_up_in is an upper bound while the client is silent.
foreach my $cell (grep { $_->{kind} eq 'silent' } @cells)
{
	my $name = name_of($cell);
	my $death = given_up($cell);
	if (!$death)
	{
		fail("$name: the client is given up");
		show($cell);
		next;
	}
	# What is sent later cannot be predicted: the notification, and more of a result whose
	# backend waited for a CPU when the client had acknowledged all before.
	my @way = grep {
			 $_->{time} > $cell->{after}
		  && $_->{time} < $death
		  && $_->{health} ne 'dead'
		  && ($cell->{state} !~ /^(?:notification|sending)/ || $_->{timer} =~ /^retransmit/)
	} @{ $cell->{samples} };
	# Some seconds after the link is down, ARP reports that the client is unreachable.  That
	# restarts the retransmission timer, for one period at most (src/model/verdict.hpp), unless dead_after
	# ends it: the last sample comes after it.
	my $moved = $cell->{fault} eq 'link down' && !$cell->{policy}{dead_after}
	  ? max(0, map { $_->{rto} } @way[ 0 .. $#way - 1 ])
	  : 0;
	my @too_early = grep {
		my $unforeseen = $_ != $way[-1] && $_->{timer} =~ /^retransmit/ ? $moved : 0;
		!defined $_->{gives_up_in} || $_->{time} + $_->{gives_up_in} + $unforeseen < $death - 0.5
	} @way;
	my $last = @way ? $way[-1]{time} + $way[-1]{gives_up_in} - $death : 0;
	# The watcher checks twice in its interval; otherwise the kernel's last timer is late.
	my $good = ok(!@too_early, "$name: gives_up_in is an upper bound");
	$good &= cmp_ok($last, '<', 2.5, "$name: gives_up_in converges to the end");
	show($cell) unless $good;
}

# The worst cases that keepalive_status() and keepalive_explain() show.
foreach my $setting (@settings)
{
	my ($name, $policy) = @$setting;
	my @worst = map { { kind => 'silent', situation => $_, policy => $policy // {} } } qw(waiting busy);
	predict(@worst);
	my $expected = [ map { defined $_->{latest} ? 0 + $_->{latest} : undef } @worst ];
	my ($cell) = grep { $_->{setting} eq $name && $_->{state} eq 'idle' } @cells;
	my $numbers = sub { [ map { defined $_ ? 0 + $_ : undef } @_ ] };
	is_deeply($numbers->(@$cell{qw(detects_idle detects_busy)}), $expected, "$name: keepalive_status() shows the model's worst cases");
	my ($row) = @{ $superuser->query(<<"END") };
SELECT extract(epoch FROM detects_idle), extract(epoch FROM detects_busy)
FROM keepalive_explain('postgres', '$name', '10.77.1.2') WHERE kind = 'outcome'
END
	is_deeply($numbers->(@$row), $expected, "$name: keepalive_explain() shows the model's worst cases");
}

# --- the matrix, for doc/detection.md -------------------------------------------------

sub cell_text
{
	my ($cell) = @_;
	my $end = $cell->{end} ? seconds($cell->{end} - $cell->{after}) : 'never';
	return 'never' if $end eq 'never' && !defined $cell->{latest};
	return sprintf '%s (%s to %s)', $end, map { seconds($_) } @$cell{qw(earliest latest)};
}

open my $matrix, '>', "$ENV{TESTDIR}/matrix.md" or die "$ENV{TESTDIR}/matrix.md: $!";
foreach my $fault (@faults)
{
	print $matrix "### \u$fault->[0]\n\n";
	print $matrix join(' | ', 'The backend is', map { $_->[0] =~ /^dead/ ? "`$_->[0]`" : $_->[0] } @settings), "\n";
	print $matrix join(' | ', ('---') x (1 + @settings)), "\n";
	foreach my $state (@states)
	{
		my @row = grep { $_->{fault} eq $fault->[0] && $_->{state} eq $state->[0] } @cells;
		print $matrix join(' | ', $state->[0], map { cell_text($_) } @row), "\n";
	}
	print $matrix "\n";
}
close $matrix or die "matrix.md: $!";

done_testing();
