# The reading functions show the same figures as `ss -tnoiem` for more than a hundred
# connections: idle ones after traffic, some with traffic at this moment, some whose client
# does not read, and some whose client is lost.
#
# ss is read before and after, so that
# - a figure of a socket without packets meanwhile equals ss's, and a time that passes
#   (last_*, timer_expires) lies between ss's two values, with a tolerance of 8 ms (two
#   of the kernel's ticks) and of ss's rounding;
# - a count of a socket with packets meanwhile lies between ss's two values.
use strict;
use warnings;

use JSON::PP 'decode_json';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets qw(ss_milliseconds wait_until_acknowledged);
use KeepaliveGuard::Settings 'seconds_until';
use List::Util qw(max min sum);
use Test::More;
use Time::HiRes qw(sleep time);

my $tick = 8; # ms

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary', conf => "max_connections = 300\n");
my $reader = $node->unix_session;
is($reader->value(q{SELECT count(*) FROM keepalive_tcp_info()}), 0, 'keepalive_tcp_info() has no row for a Unix socket');

# --- what ss shows ------------------------------------------------------------------------

# Our column => [ pattern in ss's line, factor to our unit, kind, value if ss does not show
# it ].  Kinds: count (never decreases), gauge, time (passes), busy (a time that only
# increases).
my %figure = (
	backoff => [ qr/ backoff:(\d+)/, 1, 'gauge', 0 ],
	snd_wscale => [ qr/ wscale:(\d+),/, 1, 'gauge' ],
	rcv_wscale => [ qr/ wscale:\d+,(\d+)/, 1, 'gauge' ],
	delivery_rate_app_limited => [ qr/ app_limit(e)d/, sub { 1 }, 'gauge', 0 ],
	rto => [ qr/ rto:([\d.]+)/, 1000, 'gauge' ],
	rtt => [ qr{ rtt:([\d.e+-]+)/}, 1000, 'gauge' ],
	rttvar => [ qr{ rtt:[^/]+/([\d.e+-]+)}, 1000, 'gauge' ],
	ato => [ qr/ ato:([\d.]+)/, 1000, 'gauge', 0 ],
	snd_mss => [ qr/ mss:(\d+)/, 1, 'gauge' ],
	pmtu => [ qr/ pmtu:(\d+)/, 1, 'gauge' ],
	rcv_mss => [ qr/ rcvmss:(\d+)/, 1, 'gauge' ],
	advmss => [ qr/ advmss:(\d+)/, 1, 'gauge' ],
	snd_cwnd => [ qr/ cwnd:(\d+)/, 1, 'gauge' ],
	snd_ssthresh => [ qr/ ssthresh:(\d+)/, 1, 'gauge' ],
	bytes_sent => [ qr/ bytes_sent:(\d+)/, 1, 'count', 0 ],
	bytes_retrans => [ qr/ bytes_retrans:(\d+)/, 1, 'count', 0 ],
	bytes_acked => [ qr/ bytes_acked:(\d+)/, 1, 'count', 0 ],
	bytes_received => [ qr/ bytes_received:(\d+)/, 1, 'count', 0 ],
	segs_out => [ qr/ segs_out:(\d+)/, 1, 'count', 0 ],
	segs_in => [ qr/ segs_in:(\d+)/, 1, 'count', 0 ],
	data_segs_out => [ qr/ data_segs_out:(\d+)/, 1, 'count', 0 ],
	data_segs_in => [ qr/ data_segs_in:(\d+)/, 1, 'count', 0 ],
	last_data_sent => [ qr/ lastsnd:(\d+)/, 1, 'time', 0 ],
	last_data_recv => [ qr/ lastrcv:(\d+)/, 1, 'time', 0 ],
	last_ack_recv => [ qr/ lastack:(\d+)/, 1, 'time', 0 ],
	pacing_rate => [ qr/ pacing_rate (\d+)bps/, 1 / 8, 'gauge' ],
	delivery_rate => [ qr/ delivery_rate (\d+)bps/, 1 / 8, 'gauge', 0 ],
	delivered => [ qr/ delivered:(\d+)/, 1, 'count', 0 ],
	busy_time => [ qr/ busy:(\d+)ms/, 1000, 'busy', 0 ],
	rwnd_limited => [ qr/ rwnd_limited:(\d+)ms/, 1000, 'busy', 0 ],
	sndbuf_limited => [ qr/ sndbuf_limited:(\d+)ms/, 1000, 'busy', 0 ],
	unacked => [ qr/ unacked:(\d+)/, 1, 'gauge', 0 ],
	retrans => [ qr{ retrans:(\d+)/}, 1, 'gauge', 0 ],
	total_retrans => [ qr{ retrans:\d+/(\d+)}, 1, 'count', 0 ],
	lost => [ qr/ lost:(\d+)/, 1, 'gauge', 0 ],
	sacked => [ qr/ sacked:(\d+)/, 1, 'gauge', 0 ],
	dsack_dups => [ qr/ dsack_dups:(\d+)/, 1, 'count', 0 ],
	reordering => [ qr/ reordering:(\d+)/, 1, 'gauge', 3 ],
	reord_seen => [ qr/ reord_seen:(\d+)/, 1, 'count', 0 ],
	rcv_rtt => [ qr/ rcv_rtt:([\d.e+-]+)/, 1000, 'gauge', 0 ],
	rcv_space => [ qr/ rcv_space:(\d+)/, 1, 'gauge', 0 ],
	rcv_ssthresh => [ qr/ rcv_ssthresh:(\d+)/, 1, 'gauge', 0 ],
	notsent_bytes => [ qr/ notsent:(\d+)/, 1, 'gauge', 0 ],
	min_rtt => [ qr/ minrtt:([\d.e+-]+)/, 1000, 'gauge' ],
	rcv_ooopack => [ qr/ rcv_ooopack:(\d+)/, 1, 'count', 0 ],
	snd_wnd => [ qr/ snd_wnd:(\d+)/, 1, 'gauge', 0 ],
	rmem_alloc => [ qr/skmem:\(r(\d+)/, 1, 'gauge' ],
	rcvbuf => [ qr/,rb(\d+)/, 1, 'gauge' ],
	wmem_alloc => [ qr/,t(\d+)/, 1, 'gauge' ],
	sndbuf => [ qr/,tb(\d+)/, 1, 'gauge' ],
	fwd_alloc => [ qr/,f(\d+)/, 1, 'gauge' ],
	wmem_queued => [ qr/,w(\d+)/, 1, 'gauge' ],
	optmem => [ qr/,o(\d+)/, 1, 'gauge' ],
	backlog => [ qr/,bl(\d+)/, 1, 'gauge' ],
	drops => [ qr/,d(\d+)\)/, 1, 'count' ],
	congestion => [ qr/ ((?:bbr|cubic|reno|dctcp|vegas|westwood|bic|htcp|illinois)\d?) /, undef, 'gauge' ],
	# of the other functions
	'status.tcp_state' => [ qr/^(\S+)/, undef, 'gauge' ],
	'status.recv_queue' => [ qr/^\S+ +(\d+)/, 1, 'gauge' ],
	'status.send_queue' => [ qr/^\S+ +\d+ +(\d+)/, 1, 'gauge' ],
	'status.rtt_ms' => [ qr{ rtt:([\d.e+-]+)/}, 1, 'gauge' ],
	'status.timer' => [ qr/timer:\((\w+),/, undef, 'gauge', 'off' ],
	'sockets.tcp_state' => [ qr/^(\S+)/, undef, 'gauge' ],
	'sockets.recv_queue' => [ qr/^\S+ +(\d+)/, 1, 'gauge' ],
	'sockets.send_queue' => [ qr/^\S+ +\d+ +(\d+)/, 1, 'gauge' ],
	'sockets.rtt_ms' => [ qr{ rtt:([\d.e+-]+)/}, 1, 'gauge' ],
	'sockets.timer' => [ qr/timer:\((\w+),/, undef, 'gauge', 'off' ]);

my %our_word = (
	ESTAB => 'ESTABLISHED', 'CLOSE-WAIT' => 'CLOSE_WAIT', 'FIN-WAIT-1' => 'FIN_WAIT1',
	'LAST-ACK' => 'LAST_ACK', on => 'retransmit');

# { "address port" of the client => ss's line about the server's end }.  Two hosts may use
# the same port.
sub ss_lines
{
	my %line;
	foreach (split /\n/, `ss -tnoiemOH state connected sport = :@{[$node->port]}`)
	{
		s/\s+$/ /;
		my ($address, $client_port) = /^\S+ +\d+ +\d+ +\S+ +\[?(?:::ffff:)?([\w.:]+?)\]?:(\d+) /
		  or die "ss says \"$_\"";
		$line{"$address $client_port"} = $_ unless /^(?:TIME-WAIT|SYN-RECV)/;
	}
	return \%line;
}

# ss's value of a figure, in our unit; undef if ss does not show it.
sub ss_figure
{
	my ($line, $figure) = @_;
	my ($pattern, $unit, $kind, $default) = @$figure;
	return $default unless $line =~ $pattern;
	return $our_word{$1} // $1 unless defined $unit;
	return ref $unit ? $unit->($1) : $1 * $unit;
}

# --- the connections ---------------------------------------------------------------------

my @sessions;
foreach my $i (1 .. 120)
{
	my $s = $node->session(host => $host, ipv6 => $i % 2, application_name => "idle $i");
	$s->query('SET tcp_keepalives_idle = ' . ($i % 4 ? 9 : 30)) if $i % 3;
	$s->query("SELECT repeat('x', $_)") foreach map { $_ * 37 * $i } 1 .. 3;
	push @sessions, $s;
}
my @slow;
foreach my $i (0 .. 5) # clients that do not read
{
	my $s = $node->session(host => $host, ipv6 => $i % 2, receive_buffer => 4096);
	$s->send("SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
	push @slow, $s;
}
my @lost;
$reader->query('SELECT pg_advisory_lock(1)'); # until they are lost
foreach my $i (0 .. 5) # clients that are lost while the answer is sent
{
	my $s = $node->session(host => $network->add_host, ipv6 => $i % 2);
	$s->send('SELECT pg_advisory_lock_shared(1), repeat(\'x\', 100000)');
	push @lost, $s;
}
my @silent;
foreach my $i (0 .. 3) # clients that are lost while idle
{
	my $s = $node->session(host => $network->{hosts}[ 1 + $i ]);
	$s->query('SET tcp_keepalives_idle = 1; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 60');
	wait_until_acknowledged($s->port);
	push @silent, $s;
}
my @busy = map { $node->session(host => $host, ipv6 => $_ % 2, application_name => 'busy') }
  1 .. 20;
$node->wait_for_wait_event($_->pid, 'advisory') foreach @lost;
$_->drop foreach @{ $network->{hosts} }[ 1 .. 6 ];
$reader->query('SELECT pg_advisory_unlock(1)');

# Waits until a query of $reader has this result.
sub becomes
{
	my ($sql, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $rows;
	seconds_until(20, sub { $rows = $reader->query($sql); Test::More::eq_array($rows, $expected) });
	return is_deeply($rows, $expected, $name);
}
my $timers = q{SELECT timer, count(*) FILTER (WHERE unanswered_probes > 0), count(*) FILTER (WHERE retransmits > 0)
	FROM keepalive_status() WHERE timer <> 'off' GROUP BY 1 ORDER BY 1};
my $expected_timers = [ [ 'keepalive', scalar @silent, 0 ], [ 'persist', 0, 0 ], [ 'retransmit', 0, scalar @lost ] ];
becomes($timers, $expected_timers,
	'unread connections have the persist timer, lost ones are retransmitted, silent ones have unanswered probes');
sleep 2; # for longer times until the next retransmission

my $traffic = fork // die "fork: $!";
if ($traffic == 0)
{
	while (1)
	{
		foreach my $n (1 .. 50)
		{
			$_->send("SELECT repeat('y', $n * 400)") foreach @busy;
			$_->result foreach @busy;
		}
	}
}

# --- the comparison -----------------------------------------------------------------------

# Whether our value agrees with ss's values before and after.
sub agrees
{
	my ($kind, $ours, $before, $after) = @_;
	return 1 if !defined $before && !defined $after; # ss does not show it
	return 0 unless defined $ours;
	return (defined $before && $ours eq $before) || (defined $after && $ours eq $after)
	  if ($before // $after) !~ /^[\d.e+-]+$/;
	my ($low, $high) = (min($before, $after), max($before, $after));
	($low, $high) = ($low - $tick, $high + $tick) if $kind eq 'time';
	$high += 1000 if $kind eq 'busy'; # ss shows whole milliseconds
	# ss prints six digits of a floating-point value.
	return $ours >= $low * (1 - 2e-6) - 1e-6 && $ours <= $high * (1 + 2e-6) + 1e-6;
}

my (%compared, @wrong, %moved);

sub compare_once
{
	my $before = ss_lines();
	my %ours;
	my $functions = $reader->query(<<'END')->[0];
SELECT json_object_agg(concat_ws(' ', host(i.remote_addr), i.remote_port), i),
	(SELECT json_object_agg(concat_ws(' ', host(client_addr), client_port), s)
		FROM keepalive_status() s WHERE transport = 'tcp'),
	(SELECT json_object_agg(concat_ws(' ', host(remote_addr), remote_port), s)
		FROM keepalive_sockets() s WHERE kind = 'client')
FROM keepalive_tcp_info() i
END
	@ours{ '', 'status.', 'sockets.' } = map { decode_json($_) } @$functions;
	my $after = ss_lines();

	is_deeply([ sort keys %{ $ours{$_} } ], [ sort keys %$before ], "the function has the same sockets as ss: " . ($_ || 'tcp_info.'))
	  foreach sort keys %ours;
	foreach my $client (keys %$before)
	{
		my @lines = ($before->{$client}, $after->{$client} // next);
		# The figures that change when a packet is sent or received, or a timer fires.
		my ($was, $is) = map {
			join ' ', map { s/,[^,]*,/,/r } /(segs_\w+:\d+|retrans:\S+|backoff:\d+|timer:\(\w+,.*?,\d+\))/g
		} @lines;
		my $quiet = $was eq $is;
		$moved{$quiet ? 'quiet' : 'moving'}++;

		foreach my $name (sort keys %figure)
		{
			my ($prefix, $column) = $name =~ /^(\w+\.)?(\w+)$/;
			my $kind = $figure{$name}[2];
			next if !$quiet && $kind ne 'count' && $kind ne 'busy';
			my ($b, $a) = map { ss_figure($_, $figure{$name}) } @lines;
			my $ours = $ours{ $prefix // '' }{$client}{$column};
			$compared{$name}++ if defined $b;
			push @wrong, "$name: " . ($ours // 'NULL') . ", ss: $b, $a\n$lines[0]"
			  unless agrees($kind, $ours, $b, $a);
		}
		next unless $quiet;
		compare_timer($ours{$_}{$client}, $_, @lines) foreach 'status.', 'sockets.';
	}
	return;
}

# Compares the timer's expiry, which ss shows in minutes, seconds or milliseconds, and its
# count.
sub compare_timer
{
	my ($ours, $which, @lines) = @_;
	my ($b, $a) = map { [ /timer:\((\w+),([^,]*),(\d+)\)/ ] } @lines;
	return if !@$b || !@$a;
	my ($hours, $minutes, $seconds) = ($ours->{timer_expires} // '') =~ /^(\d+):(\d+):([\d.]+)$/;
	my $expires = defined $seconds ? ($hours * 60 + $minutes) * 60_000 + $seconds * 1000 : -1;
	my $unit = $b->[1] =~ /min/ ? 60_000 : $b->[1] =~ /sec/ ? 1000 : 0;
	my ($high, $low) = map { ss_milliseconds($_->[1]) } $b, $a;
	# A timer that was restarted meanwhile is not compared.
	if ($low <= $high)
	{
		$compared{"${which}timer_expires"}++;
		push @wrong, "${which}timer_expires: $expires, ss: $b->[1], $a->[1]"
		  unless $expires >= $low - $tick && $expires <= $high + $unit + $tick;
	}
	return if $which ne 'status.';
	my $count = $b->[0] eq 'on' ? 'retransmits' : 'unanswered_probes';
	$compared{"status.$count"}++;
	push @wrong, "status.$count: $ours->{$count}, ss: $b->[2]" unless $ours->{$count} == $b->[2];
	return;
}

# At least five rounds, and until all that is to be compared was compared.
my $rounds = 0;
my $until = time + 60;
do
{
	compare_once();
	$rounds++;
	sleep 0.2;
} while $rounds < 5
  || time < $until && (($moved{moving} // 0) < 20 || grep { !$compared{"status.$_"} } qw(unanswered_probes retransmits timer_expires));
kill 'KILL', $traffic;
waitpid $traffic, 0;

my @names = grep { $compared{$_} } keys %compared;
is(scalar @wrong, 0, sum(values %compared) . ' values of ' . @names . ' figures agree with ss')
  or diag(join "\n", @wrong > 8 ? @wrong[ 0 .. 7 ] : @wrong);
cmp_ok($moved{quiet}, '>=', 100 * $rounds, "the comparison covers enough sockets without packets ($moved{quiet})");
cmp_ok($moved{moving} // 0, '>=', 20, "the comparison covers enough sockets with packets ($moved{moving})");
foreach my $name (qw(rtt bytes_sent segs_in last_ack_recv pacing_rate busy_time unacked
	total_retrans lost notsent_bytes snd_wnd rcvbuf congestion backoff status.timer_expires
	status.unanswered_probes status.retransmits sockets.send_queue))
{
	ok($compared{$name}, "the comparison covers $name");
}

# --- figures that ss does not show -------------------------------------------------------

is($reader->value(<<'END'), 0, 'no field that this kernel has is NULL');
SELECT count(*) FROM keepalive_tcp_info() WHERE total_rto_time IS NULL OR snd_wnd IS NULL
END
becomes($timers, $expected_timers, 'the connections are still in these states');

done_testing();
