# The test library itself, with a plain PostgreSQL: that hosts are apart, that
# dropped packets are dropped, and that the oracle tells what the kernel has.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets qw(client_socket socket_line socket_options ss_milliseconds
  wait_until_acknowledged);
use Socket qw(SOL_SOCKET SO_KEEPALIVE);
use Test::More;
use Time::HiRes qw(sleep time);

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
isnt(capabilities($$), '0', 'the test has some');
my ($capabilities) = $host->run('grep', 'CapPrm', '/proc/self/status');
like($capabilities, qr/^CapPrm:\s+0+$/, 'a client has none');
isnt($>, 0, 'nor is the test root');

# --- connections ------------------------------------------------------------------

my $session = $node->session(host => $host, application_name => 'lab');
is($session->value('SELECT pg_backend_pid()'), $session->pid, 'a session tells its pid');
is($session->value('SELECT host(inet_client_addr())'), $host->address, 'its address is the host\'s');
is($session->value('SELECT inet_client_port()'), $session->port, 'its port too');
is($session->parameter('application_name'), 'lab', 'it keeps its startup parameters');

my $session6 = $node->session(host => $other, ipv6 => 1);
is($session6->value('SELECT host(inet_client_addr())'), $other->address6, 'IPv6');

my $unix = $node->unix_session;
is($unix->value('SELECT inet_client_addr()'), undef, 'a Unix socket');
is($unix->port, undef, 'has no port');
$unix->terminate;

my ($stdout, $stderr, $status) =
  $host->run('psql', '-XAtc', 'SELECT host(inet_client_addr())',
	"host=@{[$host->server]} port=$port user=postgres dbname=postgres");
is("$stdout$stderr$status", $host->address . '0', 'psql in a host');
($stdout, $stderr, $status) = $other->run('python3', '-c', <<"END");
import psycopg2
connection = psycopg2.connect("host=@{[$other->server6]} port=$port user=postgres dbname=postgres")
cursor = connection.cursor()
cursor.execute("SELECT host(inet_client_addr())")
print(cursor.fetchone()[0])
END
is("$stdout$stderr$status", $other->address6 . '0', 'psycopg2 in a host');

# --- results ----------------------------------------------------------------------

is_deeply($session->query("SELECT 1, NULL UNION ALL SELECT 2, ''"), [ [ 1, undef ], [ 2, '' ] ],
	'rows with NULL and the empty string');
my $result = $session->try('SELECT 1/0');
is($result->{error}{sqlstate}, '22012', 'an error\'s SQLSTATE');
is($session->value('SELECT 3'), 3, 'the session goes on after an error');
$result = $session->try("DO \$\$BEGIN RAISE WARNING 'careful' USING HINT = 'look'; END\$\$");
is($result->{notices}[0]{message}, 'careful', 'a warning');
is($result->{notices}[0]{hint}, 'look', 'and its hint');
$session->send('SELECT pg_sleep(0.3), 4');
is_deeply($session->result->{rows}, [ [ '', 4 ] ], 'a result that is waited for later');
ok(!eval { $node->session(user => 'nobody_at_all'); 1 }, 'a refused connection dies');
like($@, qr/^FATAL: 28000: role "nobody_at_all"/, 'with the server\'s message');

# --- the oracle -------------------------------------------------------------------

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
		"what SET did is in the kernel, $family");
	wait_until_acknowledged($s->port);
	my $line = socket_line($s->port);
	is($line->{state}, 'ESTAB', "ss has the socket, $family");
	is($line->{timer}{name}, 'keepalive', 'with a keepalive timer');
	cmp_ok($line->{timer}{expires}, '>', 100_000, 'that runs out late');
	cmp_ok($line->{timer}{expires}, '<=', 123_000, 'but not too late');
	my $so_cookie = 57;
	is($line->{cookie}, unpack('Q', getsockopt client_socket($s->pid), SOL_SOCKET, $so_cookie),
		'and the socket\'s cookie');
}
{
	my $socket = client_socket($session->pid, $session->port);
	setsockopt $socket, SOL_SOCKET, SO_KEEPALIVE, 0;
}
is(socket_options($session->pid)->{keepalive}, 0, 'SO_KEEPALIVE off is seen');
is(socket_line($session->port)->{timer}, undef, 'and has no timer');
is(socket_options($session->pid, 1), undef, 'no options for a port that is not there');
is(ss_milliseconds('9.120ms'), 9120, 'ss: seconds and milliseconds');
is(ss_milliseconds('9.120sec'), 9120, 'ss: the same of newer versions');
is(ss_milliseconds('450ms'), 450, 'ss: milliseconds');
is(ss_milliseconds('12sec'), 12_000, 'ss: seconds');
is(ss_milliseconds('119min'), 7_140_000, 'ss: minutes');
is(ss_milliseconds('1min5.020ms'), 65_020, 'ss: all of them');

# --- silence ----------------------------------------------------------------------

sub fast_keepalive
{
	my ($s, $idle, $interval, $count) = @_;
	$s->query("SET tcp_keepalives_idle = $idle; SET tcp_keepalives_interval = $interval;"
		  . "SET tcp_keepalives_count = $count; SET tcp_user_timeout = 0");
	wait_until_acknowledged($s->port);
	return $s;
}

# Waits until a client's unanswered probes are as asked.
sub unanswered
{
	my ($s, $wanted) = @_;
	my $until = time + 8;
	while (time < $until)
	{
		return 1 if $wanted->(socket_line($s->port)->{timer}{count});
		sleep 0.05;
	}
	return 0;
}

my $victim = fast_keepalive($node->session(host => $host), 1, 1, 20);
my $neighbour = fast_keepalive($node->session(host => $host), 1, 1, 3);
my $elsewhere = fast_keepalive($node->session(host => $other), 1, 1, 3);

$host->drop(port => $victim->port);
ok(unanswered($victim, sub { $_[0] > 0 }), 'a dropped client answers no probe');
is(socket_line($neighbour->port)->{timer}{count}, 0, 'one beside it does');
$host->restore;
ok(unanswered($victim, sub { $_[0] == 0 }), 'so does it again when restored');
is($victim->value('SELECT 5'), 5, 'and goes on');
fast_keepalive($victim, 1, 1, 3);

my $log = $node->log_end;
$host->drop;
my $gone = $node->wait_for_exit($victim->pid, 20);
cmp_ok($gone, '>', 2.4, "a silent client lives on as the kernel promises ($gone s)");
cmp_ok($gone, '<', 8, 'and then no longer');
ok(defined $node->wait_for_exit($neighbour->pid, 5), 'so does all of its host');
is($elsewhere->value('SELECT 6'), 6, 'but no other host');
is($node->log_count(qr/could not receive data from client: Connection timed out/, $log),
	2, 'PostgreSQL says why');
$host->restore;

# --- other ways to go -------------------------------------------------------------

$log = $node->log_end;
$victim = fast_keepalive($node->session(host => $host), 1, 1, 9);
$host->refuse;
ok(defined $node->wait_for_exit($victim->pid, 8), 'a probe is answered by a reset');
is($node->log_count(qr/Connection reset by peer/, $log), 1, 'which PostgreSQL tells');
$host->restore;

$log = $node->log_end;
$victim = $node->session(host => $host);
$victim->query('SET tcp_user_timeout = 1000');
$host->unreachable;
$victim->send('SELECT 7');
ok(!defined $node->wait_for_exit($victim->pid, 1), 'a query is not received from an unreachable host');
$host->restore;
is_deeply($victim->result->{rows}, [ [7] ], 'until it is restored');
$victim->query('SET client_connection_check_interval = 0');
$victim->send('SELECT pg_sleep(0.5), 8');
sleep 0.3;
$host->unreachable;
ok(defined $node->wait_for_exit($victim->pid, 10), 'the answer to an unreachable host ends it');
is($node->log_count(qr/No route to host/, $log), 1, 'by the ICMP error');
$host->restore;

$log = $node->log_end;
$victim = fast_keepalive($node->session(host => $host), 1, 1, 3);
$host->power_off;
ok(defined $node->wait_for_exit($victim->pid, 10), 'a neighbour that is gone');
is($node->log_count(qr/Connection timed out/, $log), 1, 'has timed out');
$host->restore;

$victim = fast_keepalive($node->session(host => $host), 1, 1, 2);
$host->link_down;
ok(defined $node->wait_for_exit($victim->pid, 10), 'a link that is down');
$host->restore;
is($node->session(host => $host, ipv6 => 1)->value('SELECT 9'), 9, 'is up again, IPv6 too');

$log = $node->log_end;
$victim = $node->session(host => $host);
$victim->vanish;
ok(defined $node->wait_for_exit($victim->pid, 5), 'FIN without Terminate');
$victim = $node->session(host => $host);
$victim->reset;
ok(defined $node->wait_for_exit($victim->pid, 5), 'a reset');
is($node->log_count(qr/Connection reset by peer/, $log), 1, 'is told');
$victim = $node->session(host => $host);
$victim->half_close;
ok(defined $victim->wait_for_end(5), 'the server closes too after a FIN');

# --- a client that does not read ----------------------------------------------------

my $reader = $node->session(host => $host, receive_buffer => 4096);
$reader->send("SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
my $timer = '';
foreach (1 .. 50)
{
	$timer = socket_line($reader->port)->{timer}{name} // '';
	last if $timer eq 'persist';
	sleep 0.1;
}
is($timer, 'persist', 'a client that does not read closes its window');
is(scalar @{ $reader->result->{rows} }, 20_000, 'it can still read all of it');

done_testing();
