# A server in a sandbox that refuses netlink sockets (seccomp, as under systemd's
# RestrictAddressFamilies): the functions show what /proc/net/tcp and tcp6 have, the other
# columns are NULL, and each session gets one notice.
use strict;
use warnings;

use Errno qw(EAFNOSUPPORT EPERM);
use JSON::PP 'decode_json';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets qw(ss_milliseconds socket_lines wait_until_acknowledged);
use KeepaliveGuard::Seccomp 'answer_system_call';
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;

require 'syscall.ph';

use constant AF_NETLINK => 16;

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $lost_host = $network->add_host;
my $silent_host = $network->add_host;

sub rows
{
	my ($reader, $query) = @_;
	my $json = $reader->value("SELECT json_agg(r) FROM ($query) r");
	return defined $json ? decode_json($json) : [];
}

sub milliseconds
{
	my ($interval) = @_;
	my ($hours, $minutes, $seconds) = $interval =~ /^(\d+):(\d+):([\d.]+)$/ or return -1;
	return ($hours * 60 + $minutes) * 60_000 + $seconds * 1000;
}

foreach my $case ([ 'preloaded', 1, EPERM ], [ 'not preloaded', 0, EAFNOSUPPORT ])
{
	my ($name, $preload, $error) = @$case;
	my $node = KeepaliveGuard::Cluster->start_new("node$preload", preload => $preload);
	$node->safe_psql('postgres', 'CREATE EXTENSION keepalive_guard') unless $preload;
	$node->stop;
	is($node->start_after(sub { answer_system_call($error, SYS_socket(), 0 => AF_NETLINK) }),
		0, "$name: a server without netlink starts");
	my $reader = $node->unix_session;

	my $result = $reader->try('SELECT * FROM keepalive_status()');
	is($result->{error}, undef, "$name: keepalive_status() succeeds");
	is_deeply(
		[ map { [ @$_{qw(severity message)} ] } @{ $result->{notices} } ],
		[ [ 'NOTICE', 'netlink is unavailable, using /proc/net/tcp' ] ],
		"$name: keepalive_status() gives a notice");
	like($result->{notices}[0]{detail}, qr/netlink.*refused.*: @{[$error == EPERM ? 'Operation not permitted' : 'Address family not supported']}/i,
		"$name: the notice's detail has the reason");
	is(scalar map({ @{ $reader->try("SELECT * FROM keepalive_$_()")->{notices} } } qw(status tcp_info sockets)),
		0, "$name: further calls in the session give no notice");
	is(scalar @{ $node->unix_session->try('SELECT * FROM keepalive_sockets()')->{notices} },
		1, "$name: another session gets the notice");

	my @idle = map { $node->session(host => $host, ipv6 => $_ % 2) } 1 .. 30;
	$_->query('SET tcp_keepalives_idle = 9') foreach @idle;
	my $lost = $node->session(host => $lost_host);
	$reader->query('SELECT pg_advisory_lock(1)');
	$lost->send('SELECT pg_advisory_lock(1), 1');
	$node->wait_for_wait_event($lost->pid, 'advisory');
	my $slow = $node->session(host => $host, receive_buffer => 4096);
	$slow->send("SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
	my $silent = $node->session(host => $silent_host, ipv6 => 1);
	$silent->query(
		'SET tcp_keepalives_idle = 1; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 60');
	wait_until_acknowledged($silent->port);
	$_->drop foreach $lost_host, $silent_host;
	$reader->query('SELECT pg_advisory_unlock(1)');
	my @health = qw(alive retransmitting zero_window probing);
	seconds_until(30, sub {
			my %health = map { @$_ } @{ $reader->query('SELECT pid, health FROM keepalive_status()') };
			return "@health" eq join ' ', map { $health{ $_->pid } // '' } $idle[0], $lost, $slow, $silent;
		});

	# ss can use netlink here.
	my %before = map { $_->{peer_port} => $_ } grep { $_->{local_port} == $node->port } socket_lines();
	my %status = map { $_->{client_port} => $_ } @{ rows($reader, "SELECT * FROM keepalive_status() WHERE transport = 'tcp'") };
	my %after = map { $_->{peer_port} => $_ } socket_lines();
	is_deeply([ sort keys %status ], [ sort keys %before ], "$name: keepalive_status() has all sessions");
	my %timer = (on => 'retransmit', keepalive => 'keepalive', persist => 'persist');
	my @wrong;
	foreach my $client_port (keys %status)
	{
		my ($row, $b, $a) = ($status{$client_port}, $before{$client_port}, $after{$client_port});
		# A timer that was restarted meanwhile is not compared.
		next if $b->{timer}{count} != $a->{timer}{count} || $b->{timer}{name} ne $a->{timer}{name}
		  || $a->{timer}{expires} > $b->{timer}{expires};
		my $count = $b->{timer}{name} eq 'on' ? $row->{retransmits} : $row->{unanswered_probes};
		my $expires = milliseconds($row->{timer_expires});
		push @wrong, "$b->{text}: " . join ', ', map { $_ // 'NULL' } %$row
		  unless $row->{tcp_state} eq 'ESTABLISHED' && $b->{state} eq 'ESTAB'
		  && $row->{send_queue} == $b->{send_queue} && $row->{recv_queue} == $b->{recv_queue}
		  && $row->{timer} eq $timer{ $b->{timer}{name} }
		  && $count == $b->{timer}{count}
		  && $expires >= $a->{timer}{expires} - 20 && $expires <= $b->{timer}{expires} + 1000
		  && !defined $row->{rtt_ms} && !defined $row->{silent_for} && !defined $row->{gives_up_in};
	}
	is_deeply(\@wrong, [], "$name: state, queues, timer, retransmissions and probes agree with ss");
	is_deeply(
		[ map { $status{ $_->port }{health} } $idle[0], $lost, $slow, $silent ],
		\@health,
		"$name: health follows from what /proc has");

	is_deeply(
		rows($reader, "SELECT pid, remote_port FROM keepalive_tcp_info() WHERE local_port = @{[$node->port]} ORDER BY pid"),
		[ map { { pid => $_->pid, remote_port => $_->port } } sort { $a->pid <=> $b->pid } @idle, $lost, $slow, $silent ],
		"$name: keepalive_tcp_info() has addresses and ports");
	is($reader->value(<<'END'), 0, "$name: the other columns of keepalive_tcp_info() are NULL");
SELECT count(*) FROM keepalive_tcp_info() i, json_each(to_json(i))
WHERE value::text <> 'null' AND key NOT IN ('pid', 'local_addr', 'local_port', 'remote_addr', 'remote_port')
END
	is_deeply(
		[ map { "$_->{pid} $_->{remote_port}" } @{ rows($reader, "SELECT * FROM keepalive_sockets() WHERE kind = 'client' ORDER BY pid") } ],
		[ map { $_->pid . ' ' . $_->port } sort { $a->pid <=> $b->pid } @idle, $lost, $slow, $silent ],
		"$name: keepalive_sockets() has the clients");
	is($reader->value("SELECT count(*) FROM keepalive_sockets() WHERE kind = 'listener' AND backend_type = 'postmaster' AND accept_queue = 0 AND accept_queue_limit IS NULL"),
		2, "$name: keepalive_sockets() has the listeners without accept_queue_limit");
	is($reader->value('SELECT count(*) FROM keepalive_listeners() WHERE accept_queue = 0 AND accept_queue_limit IS NULL'),
		2, "$name: so has keepalive_listeners()");
	ok($reader->value('SELECT count(*) FROM keepalive_kernel() WHERE setting IS NOT NULL') > 15,
		"$name: keepalive_kernel() works");
	$_->restore foreach $lost_host, $silent_host;
	$node->stop('immediate');
}

done_testing();
