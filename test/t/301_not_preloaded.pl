# The reading functions on a running server that has not loaded the library before CREATE
# EXTENSION.  They find the server's own sockets by its port, even if another server has
# the same port and clients with the same addresses and ports.
use strict;
use warnings;

use JSON::PP 'decode_json';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets 'client_socket';
use KeepaliveGuard::Seccomp 'answer_system_call';
use PostgreSQL::Test::Utils ();
use Socket qw(:DEFAULT IPPROTO_IPV6);
use Test::More;

require 'syscall.ph';

use constant IPV6_V6ONLY => 26;

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $second_host = $network->add_host;

# Two servers with the same port, on addresses of their own.
my @listen = ("'127.0.0.1, ::1, " . $host->server . "'", "'127.0.0.2, " . $host->server6 . "'");
my @nodes;
foreach my $i (0, 1)
{
	my $node = KeepaliveGuard::Cluster->start_new("server$i", preload => 0, allows_streaming => 1);
	$node->stop;
	$node->append_conf('postgresql.conf', "listen_addresses = $listen[$i]\n");
	push @nodes, $node;
}
$nodes[1]->{_port} = $nodes[0]->port;
$nodes[1]->{_host} = PostgreSQL::Test::Utils::tempdir_short();
$nodes[1]->append_conf('postgresql.conf',
	"port = $nodes[1]->{_port}\nunix_socket_directories = '$nodes[1]->{_host}'\n");
$_->start foreach @nodes;
my $port = $nodes[0]->port;

# A connection from this port of the client.
sub session_from
{
	my ($node, $address, $client_port) = @_;
	return KeepaliveGuard::Session->new(
		port => $port, address => $address, client_port => $client_port);
}

# Sessions that connect before the extension exists.  Each one of the first server has a
# counterpart at the second with the same client address and port.
my (@own, @others);
my $client_port = 30_000;
foreach (1 .. 10)
{
	push @own, session_from($nodes[0], '127.0.0.1', ++$client_port);
	push @others, session_from($nodes[1], '127.0.0.2', $client_port);
	push @own, $nodes[0]->session(host => $host), $nodes[0]->session(address => '::1');
	push @others, $nodes[1]->session(host => $host, ipv6 => 1);
}
my $walsender = $nodes[0]->session(address => '127.0.0.1', replication => 'true');
push @own, $walsender;

my @readers = map { $_->unix_session } @nodes;
$_->query('CREATE EXTENSION keepalive_guard') foreach @readers;

sub rows
{
	my ($reader, $query) = @_;
	my $json = $reader->value("SELECT json_agg(r) FROM ($query) r");
	return defined $json ? decode_json($json) : [];
}

# Tests that each session's socket is the one that its process has.
sub right_sockets
{
	my ($which, $reader, @sessions) = @_;
	my %status = map { $_->{pid} => $_ } @{ rows($reader, 'SELECT * FROM keepalive_status()') };
	my %info = map { $_->{pid} => $_ } @{ rows($reader, 'SELECT * FROM keepalive_tcp_info()') };
	is_deeply(
		[ sort keys %info ],
		[ sort map { $_->pid } @sessions ],
		"$which: keepalive_tcp_info() has a row for each TCP session");
	my (@wrong, @pids);
	foreach my $s (@sessions)
	{
		my $local = getsockname client_socket($s->pid);
		my ($local_port, $address) = sockaddr_family($local) == AF_INET
		  ? sockaddr_in($local) : Socket::sockaddr_in6($local);
		my $shown = $info{ $s->pid };
		$address = Socket::inet_ntop(sockaddr_family($local), $address) =~ s/^::ffff://r;
		push @wrong, join ' ', map { $_ // 'NULL' } %$shown
		  unless ($shown->{local_addr} // '') eq $address && $shown->{local_port} == $local_port
		  && $shown->{remote_port} == $s->port && $shown->{state} == 1
		  && $status{ $s->pid }{client_port} == $s->port
		  && $status{ $s->pid }{tcp_state} eq 'ESTABLISHED' && $status{ $s->pid }{health} eq 'alive';
	}
	is_deeply(\@wrong, [], "$which: each session has its own socket with its own server's address");
	my $row = $status{ $sessions[0]->pid };
	is_deeply(
		{ map { $_ => $row->{$_} } grep { defined $row->{$_} } qw(policy policy_state keepalive
			tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count tcp_user_timeout
			client_connection_check_interval gives_up_in detects_idle detects_busy) },
		{}, "$which: columns that only the backend knows are NULL");
	return;
}
right_sockets('the first server', $readers[0], @own);
right_sockets('the second server', $readers[1], @others);
is($readers[0]->value("SELECT backend_type FROM keepalive_status() WHERE pid = @{[$walsender->pid]}"),
	'walsender', 'keepalive_status() has a row for a walsender');
is($readers[0]->value("SELECT tcp_state FROM keepalive_status() WHERE transport = 'unix'"),
	undef, 'a session over a Unix socket has no TCP state');

# --- keepalive_sockets() of two servers ------------------------------------------------

is_deeply(
	rows($readers[0], "SELECT kind, backend_type, local_addr FROM keepalive_sockets() WHERE kind <> 'client' ORDER BY local_addr"),
	[ map { { kind => 'listener', backend_type => 'postmaster', local_addr => $_ } } $host->server, '127.0.0.1', '::1' ],
	'keepalive_sockets() has the listeners of the first server');
is_deeply(
	rows($readers[1], "SELECT kind, backend_type, local_addr FROM keepalive_sockets() WHERE kind <> 'client' ORDER BY local_addr"),
	[ map { { kind => 'listener', backend_type => 'postmaster', local_addr => $_ } } '127.0.0.2', $host->server6 ],
	'keepalive_sockets() has the listeners of the second server');
foreach my $i (0, 1)
{
	my @sessions = $i ? @others : @own;
	is_deeply(
		[ sort map { "$_->{pid} $_->{remote_port}" } @{ rows($readers[$i], "SELECT * FROM keepalive_sockets() WHERE kind = 'client'") } ],
		[ sort map { $_->pid . ' ' . $_->port } @sessions ],
		"keepalive_sockets() of server $i has exactly its clients' sockets");
}

# --- a client at two addresses of one server -----------------------------------------------

my @twice = map { session_from($nodes[0], $_, 29_999) } '127.0.0.1', $host->server;
right_sockets('one client port at two addresses', $readers[0], @own, @twice);
$_->terminate foreach @twice;
$nodes[0]->wait_for_exit($_->pid, 20) foreach @twice;

# --- a connection that was reset ------------------------------------------------------------

my $dead = session_from($nodes[0], '127.0.0.1', 29_998);
$dead->query('SET client_connection_check_interval = 0');
$dead->send('SELECT pg_sleep(100)');
$nodes[0]->wait_for_wait_event($dead->pid, 'PgSleep');
my $dead_pid = $dead->pid;
$dead->reset;
my $successor = session_from($nodes[0], '127.0.0.1', 29_998);
is_deeply(
	rows($readers[0], "SELECT tcp_state, health FROM keepalive_status() WHERE pid = $dead_pid"),
	[ { tcp_state => 'CLOSE', health => 'dead' } ],
	'a backend whose connection was reset is dead');
is_deeply(
	rows($readers[0], "SELECT tcp_state, health FROM keepalive_status() WHERE pid = @{[$successor->pid]}"),
	[ { tcp_state => 'ESTABLISHED', health => 'alive' } ],
	'a new connection with the same addresses and ports is alive');
is($readers[0]->value("SELECT state FROM keepalive_tcp_info() WHERE pid = $dead_pid"), undef,
	'keepalive_tcp_info() has no figures for the dead connection');
$readers[0]->query("SELECT pg_terminate_backend($dead_pid)");
$nodes[0]->wait_for_exit($dead_pid, 20);

# --- privileges --------------------------------------------------------------------------------

$readers[0]->query('CREATE ROLE someone LOGIN; CREATE ROLE monitor LOGIN IN ROLE pg_monitor');
my $someone = $nodes[0]->session(user => 'someone');
is_deeply(
	rows($someone, 'SELECT pid, remote_port FROM keepalive_tcp_info() WHERE num_nonnulls(remote_addr, remote_port, state, rtt, congestion, rcvbuf) > 0'),
	[ { pid => $someone->pid, remote_port => $someone->port } ],
	'a role sees the details of its own session only');
is($someone->value('SELECT count(*) FROM keepalive_status()'),
	$readers[0]->value('SELECT count(*) FROM keepalive_status()'), 'a role sees a row for each other session');
is($someone->try("SELECT * FROM $_()")->{error}{sqlstate}, '42501', "$_() is refused for an ordinary role")
  foreach qw(keepalive_sockets keepalive_kernel);
my $monitor = $nodes[0]->session(user => 'monitor');
ok(!$monitor->try("SELECT * FROM $_()")->{error}, "$_() is allowed for pg_monitor")
  foreach qw(keepalive_sockets keepalive_kernel);
is($monitor->value('SELECT count(*) FROM keepalive_tcp_info() WHERE state IS NULL'), 0,
	'pg_monitor sees the details of all sessions');

# --- a dual-stack listener ------------------------------------------------------------------------

$_->stop('immediate') foreach @nodes;
$nodes[0]->append_conf('postgresql.conf', "listen_addresses = '::'\n");
is($nodes[0]->start_after(sub { answer_system_call(0, SYS_setsockopt(), 1 => IPPROTO_IPV6, 2 => IPV6_V6ONLY) }),
	0, 'a server with a dual-stack listener starts');
my $reader = $nodes[0]->unix_session;
my @dual = map { ($nodes[0]->session(host => $_), $nodes[0]->session(host => $_, ipv6 => 1)) } $host, $second_host;
is(sockaddr_family(getpeername client_socket($dual[0]->pid)), AF_INET6, 'the dual-stack listener has IPv4-mapped clients');
right_sockets('dual stack', $reader, @dual);
is($reader->value("SELECT remote_addr FROM keepalive_tcp_info() WHERE pid = @{[$dual[0]->pid]}"),
	$host->address, 'an IPv4-mapped client is shown with its IPv4 address');
$nodes[0]->stop('immediate');

done_testing();
