# The test library itself, with a server that does not load the extension: hosts are
# separate, packets are dropped, and KernelSockets reads what the kernel has.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets qw(client_socket socket_line socket_options ss_milliseconds
  wait_until_acknowledged);
use KeepaliveGuard::Settings 'seconds_until';
use Socket qw(SOL_SOCKET SO_KEEPALIVE);
use Test::More;
use Time::HiRes 'time';

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $other = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('plain', preload => 0);
my $port = $node->port;

sub capabilities
{
	my ($pid) = @_;
	open my $status, '<', "/proc/$pid/status" or die "/proc/$pid/status: $!";
	return (map { /^CapPrm:\s+0*(\w+)/ } <$status>)[0];
}

# --- privileges -----------------------------------------------------------------

my ($postmaster) = $node->safe_psql('postgres', 'SELECT pg_read_file($$postmaster.pid$$)') =~ /^(\d+)/;
is(capabilities($postmaster), '0', 'the server has no capability');
isnt(capabilities($$), '0', 'the test process has capabilities');
my ($capabilities) = $host->run('grep', 'CapPrm', '/proc/self/status');
like($capabilities, qr/^CapPrm:\s+0+$/, 'a client process has no capability');
isnt($>, 0, 'the test process does not run as root');

# --- connections ------------------------------------------------------------------

my $session = $node->session(host => $host, application_name => 'lab');
is($session->value('SELECT pg_backend_pid()'), $session->pid, 'pid() is the pid of the session\'s backend');
is($session->value('SELECT host(inet_client_addr())'), $host->address, 'a session connects from its host\'s address');
is($session->value('SELECT inet_client_port()'), $session->port, 'port() is the client\'s port');
is($session->parameter('application_name'), 'lab', 'parameter() has the startup parameters that the server reported');

my $session6 = $node->session(host => $other, ipv6 => 1);
is($session6->value('SELECT host(inet_client_addr())'), $other->address6, 'a session connects over IPv6');

my $unix = $node->unix_session;
is($unix->value('SELECT inet_client_addr()'), undef, 'a session over a Unix socket has no client address');
is($unix->port, undef, 'a session over a Unix socket has no client port');
$unix->terminate;

my ($stdout, $stderr, $status) =
  $host->run('psql', '-XAtc', 'SELECT host(inet_client_addr())',
	"host=@{[$host->server]} port=$port user=postgres dbname=postgres");
is("$stdout$stderr$status", $host->address . '0', 'psql in a host connects from that host');
($stdout, $stderr, $status) = $other->run('python3', '-c', <<"END");
import psycopg2
connection = psycopg2.connect("host=@{[$other->server6]} port=$port user=postgres dbname=postgres")
cursor = connection.cursor()
cursor.execute("SELECT host(inet_client_addr())")
print(cursor.fetchone()[0])
END
is("$stdout$stderr$status", $other->address6 . '0', 'psycopg2 in a host connects from that host');

# --- results ----------------------------------------------------------------------

is_deeply($session->query("SELECT 1, NULL UNION ALL SELECT 2, ''"), [ [ 1, undef ], [ 2, '' ] ],
	'query() tells NULL from the empty string');
my $result = $session->try('SELECT 1/0');
is($result->{error}{sqlstate}, '22012', 'try() returns an error\'s SQLSTATE');
is($session->value('SELECT 3'), 3, 'a session works after an error');
$result = $session->try("DO \$\$BEGIN RAISE WARNING 'careful' USING HINT = 'look'; END\$\$");
is($result->{notices}[0]{message}, 'careful', 'try() returns a warning');
is($result->{notices}[0]{hint}, 'look', 'try() returns a warning\'s hint');
$session->send('SELECT pg_sleep(0.3), 4');
is_deeply($session->result->{rows}, [ [ '', 4 ] ], 'result() waits for the result of send()');
ok(!eval { $node->session(user => 'nobody_at_all'); 1 }, 'new() dies when the server refuses the connection');
like($@, qr/^FATAL: 28000: role "nobody_at_all"/, 'new() dies with the server\'s message');

# --- KernelSockets ----------------------------------------------------------------

foreach my $s ($session, $session6)
{
	my $family = $s == $session ? 'IPv4' : 'IPv6';
	$s->query('SET tcp_keepalives_idle = 123; SET tcp_keepalives_interval = 45;'
		  . 'SET tcp_keepalives_count = 6; SET tcp_user_timeout = 7890');
	is_deeply(
		socket_options($s->pid),
		{
			keepalive => 1, idle => 123, interval => 45, count => 6, user_timeout => 7890,
			port => $s->port },
		"socket_options() has the values that SET gave, $family");
	wait_until_acknowledged($s->port);
	my $line = socket_line($s->port);
	is($line->{state}, 'ESTAB', "socket_line() finds an established socket, $family");
	is($line->{timer}{name}, 'keepalive', "socket_line() has a keepalive timer, $family");
	cmp_ok($line->{timer}{expires}, '>', 100_000, "the keepalive timer expires after 100 s, $family");
	cmp_ok($line->{timer}{expires}, '<=', 123_000, "the keepalive timer expires within tcp_keepalives_idle, $family");
	my $so_cookie = 57;
	is($line->{cookie}, unpack('Q', getsockopt client_socket($s->pid), SOL_SOCKET, $so_cookie),
		"socket_line() has the socket's cookie, $family");
}
{
	my $socket = client_socket($session->pid, $session->port);
	setsockopt $socket, SOL_SOCKET, SO_KEEPALIVE, 0;
}
is(socket_options($session->pid)->{keepalive}, 0, 'socket_options() shows that SO_KEEPALIVE is off');
is(socket_line($session->port)->{timer}, undef, 'a socket with SO_KEEPALIVE off has no timer');
is(socket_options($session->pid, 1), undef, 'socket_options() is undef for a port without a connection');
is(ss_milliseconds('9.120ms'), 9120, 'ss_milliseconds() reads seconds with a fraction, as older versions write');
is(ss_milliseconds('9.120sec'), 9120, 'ss_milliseconds() reads seconds with a fraction, as newer versions write');
is(ss_milliseconds('450ms'), 450, 'ss_milliseconds() reads milliseconds');
is(ss_milliseconds('12sec'), 12_000, 'ss_milliseconds() reads seconds');
is(ss_milliseconds('119min'), 7_140_000, 'ss_milliseconds() reads minutes');
is(ss_milliseconds('1min5.020ms'), 65_020, 'ss_milliseconds() reads minutes, seconds and a fraction');

# --- silence ----------------------------------------------------------------------

sub fast_keepalive
{
	my ($s, $idle, $interval, $count) = @_;
	$s->query("SET tcp_keepalives_idle = $idle; SET tcp_keepalives_interval = $interval;"
		  . "SET tcp_keepalives_count = $count; SET tcp_user_timeout = 0");
	wait_until_acknowledged($s->port);
	return $s;
}

# Waits until the number of a client's unanswered probes satisfies a condition.
sub wait_for_probes
{
	my ($s, $wanted) = @_;
	return defined seconds_until(10, sub { $wanted->(socket_line($s->port)->{timer}{count} // -1) });
}

my $victim = fast_keepalive($node->session(host => $host), 1, 1, 20);
my $neighbour = fast_keepalive($node->session(host => $host), 1, 1, 3);
my $elsewhere = fast_keepalive($node->session(host => $other), 1, 1, 3);

$host->drop(port => $victim->port);
ok(wait_for_probes($victim, sub { $_[0] > 1 }), 'a client whose packets are dropped does not answer probes');
ok(wait_for_probes($neighbour, sub { $_[0] == 0 }), 'another client of the same host answers probes');
$host->restore;
ok(wait_for_probes($victim, sub { $_[0] == 0 }), 'a restored client answers probes again');
is($victim->value('SELECT 5'), 5, 'a restored client\'s session works');
fast_keepalive($victim, 1, 1, 3);

my $log = $node->log_end;
my $before = time;
$host->drop;
my $gone = $node->wait_for_exit($victim->pid, 20);
cmp_ok($gone // 99, '<', 8, 'the backend of a silent client ends after the kernel\'s timeout');
cmp_ok(time - $before, '>', 2.4, 'the backend of a silent client does not end before the kernel\'s timeout');
ok(defined $node->wait_for_exit($neighbour->pid, 5), 'every client of the dropped host is lost');
is($elsewhere->value('SELECT 6'), 6, 'a client of another host is not affected');
is($node->log_count(qr/could not receive data from client: Connection timed out/, $log),
	2, 'PostgreSQL logs why each connection was lost');
$host->restore;

# --- other ways to lose a connection ----------------------------------------------

$log = $node->log_end;
$victim = fast_keepalive($node->session(host => $host), 1, 1, 9);
$host->refuse;
ok(defined $node->wait_for_exit($victim->pid, 8), 'refuse() answers a probe with a reset');
is($node->log_count(qr/Connection reset by peer/, $log), 1, 'PostgreSQL logs the reset');
$host->restore;

$log = $node->log_end;
$victim = $node->session(host => $host);
$victim->query('SET tcp_user_timeout = 1000');
wait_until_acknowledged($victim->port);
$host->unreachable;
$victim->send('SELECT 7');
ok(!defined $node->wait_for_exit($victim->pid, 1), 'unreachable() drops a query');
$host->restore;
is_deeply($victim->result->{rows}, [ [7] ], 'the server answers the query after restore()');
$victim->query('SET client_connection_check_interval = 0');
my $locker = $node->unix_session;
$locker->query('SELECT pg_advisory_lock(1)');
$victim->send('SELECT pg_advisory_lock(1), 8');
$node->wait_for_wait_event($victim->pid, 'advisory');
$host->unreachable;
$locker->terminate;
ok(defined $node->wait_for_exit($victim->pid, 10), 'a connection ends when its answer cannot reach the host');
is($node->log_count(qr/No route to host/, $log), 1, 'PostgreSQL logs the ICMP error');
$host->restore;

# Given up before ARP fails, after three seconds, and the kernel has that for a reason.
$log = $node->log_end;
$victim = fast_keepalive($node->session(host => $host), 1, 1, 2);
$host->power_off;
ok(defined $node->wait_for_exit($victim->pid, 10), 'a connection to a host without power ends');
is($node->log_count(qr/Connection timed out/, $log), 1, 'PostgreSQL logs that a connection to a host without power timed out');
$host->restore;

$victim = fast_keepalive($node->session(host => $host), 1, 1, 2);
$host->link_down;
ok(defined $node->wait_for_exit($victim->pid, 10), 'a connection over a link that is down ends');
$host->restore;
is($node->session(host => $host, ipv6 => 1)->value('SELECT 9'), 9, 'restore() brings the link up again, with its IPv6 address');

$log = $node->log_end;
$victim = $node->session(host => $host);
$victim->vanish;
ok(defined $node->wait_for_exit($victim->pid, 5), 'a backend ends after vanish()');
$victim = $node->session(host => $host);
$victim->reset;
ok(defined $node->wait_for_exit($victim->pid, 5), 'a backend ends after reset()');
is($node->log_count(qr/Connection reset by peer/, $log), 1, 'PostgreSQL logs a reset by the client');
$victim = $node->session(host => $host);
$victim->half_close;
ok(defined $victim->wait_for_end(5), 'the server closes the connection after half_close()');

# --- a client that does not read ----------------------------------------------------

my $reader = $node->session(host => $host, receive_buffer => 4096);
$reader->send("SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
ok(defined seconds_until(20, sub { (socket_line($reader->port)->{timer}{name} // '') eq 'persist' }),
	'the server\'s persist timer runs when a client does not read');
is(scalar @{ $reader->result->{rows} }, 20_000, 'a client that paused can still read the whole result');

done_testing();
