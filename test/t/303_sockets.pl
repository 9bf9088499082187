# keepalive_sockets() has every TCP socket of every process of a server, for each kind of
# process, and none of another server.
use strict;
use warnings;

use IO::Socket::IP ();
use JSON::PP 'decode_json';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets 'socket_lines';
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;
use Time::HiRes 'sleep';

my $primary = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 'logical', conf => "listen_addresses = '127.0.0.1, ::1'\n");
$primary->safe_psql('postgres', <<'END');
CREATE TABLE t (i int);
CREATE PUBLICATION everything FOR ALL TABLES;
END
$primary->backup('backup');

# A standby and a subscriber, over TCP.
my $port = $primary->port;
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup');
$standby->append_conf('postgresql.conf',
	"primary_conninfo = 'host=127.0.0.1 port=$port user=postgres'\nhot_standby = on\n");
$standby->set_standby_mode;
$standby->start;
my $subscriber = KeepaliveGuard::Cluster->start_new('subscriber');
$subscriber->safe_psql('postgres', <<"END");
CREATE TABLE t (i int);
CREATE SUBSCRIPTION s CONNECTION 'host=::1 port=$port user=postgres dbname=postgres' PUBLICATION everything;
CREATE EXTENSION dblink;
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'postgres');
CREATE FOREIGN TABLE far_t (i int) SERVER far OPTIONS (table_name 't');
END
$primary->wait_for_catchup('s');
$primary->wait_for_catchup($standby, 'replay');

my $fdw = $subscriber->session;
$fdw->query('BEGIN; SELECT * FROM far_t');
my $dblink = $subscriber->unix_session;
$dblink->query("SELECT dblink_connect('far', 'host=127.0.0.1 port=$port user=postgres dbname=postgres')");

sub sockets
{
	my ($node) = @_;
	my $json = $node->safe_psql('postgres', 'SELECT json_agg(s) FROM keepalive_sockets() s');
	return @{ decode_json($json) };
}

# --- outbound ------------------------------------------------------------------------

my @standby = grep { $_->{kind} eq 'outbound' } sockets($standby);
is_deeply(
	[ map { [ @$_{qw(backend_type remote_addr remote_port tcp_state)} ] } @standby ],
	[ [ 'walreceiver', '127.0.0.1', $port, 'ESTABLISHED' ] ],
	'the WAL receiver\'s socket is outbound');

my $apply = $subscriber->safe_psql('postgres',
	q{SELECT DISTINCT backend_type FROM pg_stat_activity JOIN pg_stat_subscription USING (pid) WHERE relid IS NULL});
my @outbound;
# The worker that copied the table may still have to exit.
seconds_until(20, sub { @outbound = grep { $_->{kind} eq 'outbound' } sockets($subscriber); @outbound == 3 });
is_deeply(
	[ sort map { join ' ', @$_{qw(backend_type remote_addr remote_port tcp_state)} } @outbound ],
	[ sort "$apply ::1 $port ESTABLISHED", ("client backend 127.0.0.1 $port ESTABLISHED") x 2 ],
	'the sockets of the apply worker, postgres_fdw and dblink are outbound');
is_deeply(
	[ sort map { $_->{pid} } grep { $_->{backend_type} eq 'client backend' } @outbound ],
	[ sort $fdw->pid, $dblink->pid ],
	'the sockets of postgres_fdw and dblink have their backends\' pids');
cmp_ok($_->{rtt_ms}, '>', 0, "an outbound socket has a round-trip time: $_->{backend_type}") foreach @outbound;

# The two ends of each connection.
my %at_primary = map { ("$_->{remote_addr} $_->{remote_port}" => $_) }
  grep { $_->{kind} eq 'client' } sockets($primary);
is_deeply(
	[ map { $at_primary{"$_->{local_addr} $_->{local_port}"}{kind} } @standby, @outbound ],
	[ ('client') x 4 ],
	'the other ends of the outbound sockets are client sockets of the primary');
is_deeply(
	[ sort map { $at_primary{"$_->{local_addr} $_->{local_port}"}{backend_type} } @standby, @outbound ],
	[ 'client backend', 'client backend', 'walsender', 'walsender' ],
	'the other ends belong to walsenders and client backends');
my ($client) = grep { $_->{kind} eq 'client' } sockets($subscriber);
is($client->{pid}, $fdw->pid, 'a backend with a client and a foreign server has a client socket too');
is($client->{remote_port}, $fdw->port, 'the client socket has the client\'s port');

# --- listeners -----------------------------------------------------------------------------

my ($postmaster) = $primary->safe_psql('postgres', 'SELECT pg_read_file($$postmaster.pid$$)') =~ /^(\d+)/;
sub listeners
{
	return grep { $_->{kind} eq 'listener' } sockets($primary);
}
is_deeply(
	[ sort map { join ' ', @$_{qw(pid backend_type local_addr local_port tcp_state accept_queue)} } listeners() ],
	[ map { "$postmaster postmaster $_ $port LISTEN 0" } '127.0.0.1', '::1' ],
	'each listener is shown once, as the postmaster\'s');
my ($limit) = `ss -tlnH 'src 127.0.0.1:$port'` =~ /^LISTEN +\d+ +(\d+)/;
is_deeply([ map { $_->{accept_queue_limit} } listeners() ], [ $limit, $limit ], 'accept_queue_limit is the limit that ss shows');

my $reader = $primary->unix_session;
kill 'STOP', $postmaster;
my @waiting = map { IO::Socket::IP->new(PeerHost => '127.0.0.1', PeerPort => $port) } 1 .. 5;
sleep 0.1;
is($reader->value(
	q{SELECT string_agg(accept_queue::text, ' ' ORDER BY local_addr) FROM keepalive_sockets() WHERE kind = 'listener'}),
	'5 0', 'accept_queue counts connections that the postmaster has not accepted');
kill 'CONT', $postmaster;
undef @waiting;

# --- all sockets of the server, and no others -----------------------------------------------

# The socket inodes of a process and its children, from their descriptors.
sub held_sockets
{
	my ($parent) = @_;
	my %inode;
	foreach my $status (glob '/proc/[0-9]*/status')
	{
		my ($pid) = $status =~ /(\d+)/;
		open my $file, '<', $status or next;
		my ($is) = map { /^PPid:\s+(\d+)/ ? $1 : () } <$file>;
		next unless $is == $parent || $pid == $parent;
		/^socket:\[(\d+)\]/ && $inode{$1}++ foreach map { readlink } glob "/proc/$pid/fd/*";
	}
	return \%inode;
}
foreach my $node ($primary, $standby, $subscriber)
{
	my ($pid) = $node->safe_psql('postgres', 'SELECT pg_read_file($$postmaster.pid$$)') =~ /^(\d+)/;
	my (@shown, @expected);
	# Backends whose clients have gone may still have to exit.
	seconds_until(20, sub {
			my $held = held_sockets($pid);
			my %ends = map { $_->{text} =~ /\bino:(\d+)/ && $held->{$1} ? ("$_->{local_port} $_->{peer_port}" => 1) : () } socket_lines();
			@expected = sort keys %ends;
			@shown = sort map { "$_->{local_port} $_->{remote_port}" } grep { $_->{kind} ne 'listener' } sockets($node);
			return "@shown" eq "@expected";
		});
	is_deeply(\@shown, \@expected, $node->name . ': keepalive_sockets() has exactly the sockets of its processes');
}

$subscriber->stop('immediate');
$standby->stop('immediate');
$primary->stop('immediate');
done_testing();
