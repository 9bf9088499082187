# The causes of ended connections: each is provoked over TCP, TLS and Unix sockets, by
# clients that close connections and by networks that fail.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::ExpectedEvents;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets qw(socket_line wait_until_acknowledged);
use KeepaliveGuard::Tls;
use KeepaliveGuard::TlsSession;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my ($living, $silent, $unreachable, $prohibited) = map { $network->add_host } 1 .. 4;
my $node = KeepaliveGuard::Cluster->start_new('primary',
	conf => KeepaliveGuard::Tls::conf(PostgreSQL::Test::Utils::tempdir)
	  . "autovacuum = off\nmax_connections = 150\n");
$node->safe_psql('postgres', 'CREATE TABLE t (i int)');

sub set_retries
{
	my ($times) = @_;
	open my $retries2, '>', '/proc/sys/net/ipv4/tcp_retries2' or die "tcp_retries2: $!";
	print $retries2 "$times\n";
	close $retries2 or die "tcp_retries2: $!";
	return;
}

my $events = KeepaliveGuard::ExpectedEvents->new($node);
my @later; # what to do once all sessions are connected

# Opens a session that is expected to end with this cause.  Options: those of Session's
# new(); sql: what it runs first; columns of the event, as a hash.
sub session
{
	my ($transport, $name, $cause, %options) = @_;
	my ($sql, $columns) = delete @options{qw(sql columns)};
	my $class = $transport eq 'tls' ? 'KeepaliveGuard::TlsSession' : 'KeepaliveGuard::Session';
	my @where = $transport eq 'unix' ? (socket => $node->host) : (host => $living);
	my $session = $class->new(port => $node->port, application_name => $name, @where, %options);
	$session->query($sql) if $sql;
	$events->expect($session, "$transport: $name", $cause,
		application_name => $name, backend_type => 'client backend', %{ $columns // {} });
	return $session;
}

my $endless = q{SELECT repeat('x', 1000) FROM generate_series(1, 100000)};

# Opens a session whose client does not read what the server sends.
sub reader
{
	my ($transport, $name, $cause, %options) = @_;
	my $session = session($transport, $name, $cause, receive_buffer => 4096, %options);
	$session->send($endless);
	return $session;
}

sub wait_for_zero_window
{
	my (@sessions) = @_;
	foreach my $session (@sessions)
	{
		my $until = time + 20;
		while ((socket_line($session->port)->{timer}{name} // '') ne 'persist')
		{
			die "the window does not close: ", $session->parameter("application_name"), " ", socket_line($session->port)->{text} // "gone", "\n" if time > $until;
			sleep 0.05;
		}
	}
	return;
}

# This is first because DROP DATABASE waits for backends that wait for a client to read.
$node->safe_psql('postgres', 'CREATE DATABASE doomed');
session('tcp', 'DROP DATABASE', 'terminated', dbname => 'doomed', columns => { datname => 'doomed' });
$node->safe_psql('postgres', 'DROP DATABASE doomed WITH (FORCE)');

# --- clients that close the connection ------------------------------------------------

foreach my $transport (qw(tcp tls unix))
{
	my $is_tcp = $transport ne 'unix';
	my $state = $is_tcp ? 'CLOSE_WAIT' : 'no error';
	my %fin = (detail => qr/$state/, state => 'idle');
	# Newer OpenSSL answers the missing close_notify with an alert, which the closed client
	# socket resets: EPIPE, because the FIN came first (tcp_reset).
	my %closed = $transport eq 'tls' ? (%fin, detail => qr/CLOSE_WAIT|^EPIPE in state CLOSE,/) : %fin;
	my %rst = (detail => $is_tcp ? qr/ECONNRESET (?:found while busy )?in state CLOSE/ : qr/ECONNRESET/);

	session($transport, 'Terminate', 'client_closed', columns => { detail => undef })->terminate;
	session($transport, 'FIN', 'client_vanished', columns => \%closed)->vanish;
	session($transport, 'half-closed by FIN', 'client_vanished', columns => \%fin)->half_close
	  if $is_tcp;
	session(
		$transport, 'FIN in a transaction', 'client_vanished',
		sql => 'BEGIN; SELECT pg_sleep(0.2)',
		columns => { %closed, state => 'idle in transaction', transaction_age => qr/^(?:0\.[2-9]|[1-9])/ })->vanish;
	session($transport, 'FIN in COPY', 'client_vanished', sql => 'COPY t FROM STDIN',
		columns => { detail => qr/(?:CLOSE_WAIT|(?:EPIPE|FIN) in state CLOSE|^(?:no error|EPIPE)$)/, state => 'active' })
	  ->vanish;
	session($transport, 'RST', 'reset', columns => \%rst)->reset if $is_tcp;
	session($transport, 'RST in COPY', 'reset', sql => 'COPY t FROM STDIN', columns => \%rst)->reset
	  if $is_tcp;

	# The server notices when it writes: the first write is answered with a reset.
	my $busy = session($transport, 'FIN while busy', 'client_vanished', columns => { state => qr/active|idle/ });
	$busy->send("SELECT pg_sleep(0.5), repeat('x', 300000)");
	$busy->vanish;
	if ($is_tcp)
	{
		$busy = session($transport, 'RST while busy', 'reset', columns => \%rst);
		$busy->send("SELECT pg_sleep(0.5), repeat('x', 300000)");
		$busy->reset;
		my $reader = reader($transport, 'RST while data is in flight', 'reset', columns => \%rst);
		push @later, sub { wait_for_zero_window($reader); $reader->reset };
	}

	foreach my $how ('vanish', $is_tcp ? 'reset' : ())
	{
		my $checked = session(
			$transport, "client check, $how", $how eq 'reset' ? 'reset' : 'client_vanished',
			sql => 'BEGIN; SET client_connection_check_interval = 100',
			columns => {
				detail => $is_tcp ? qr/found while busy/ : qr/no error/,
				state => 'active',
				transaction_age => qr/^[0-9]+\./ });
		$checked->send('SELECT pg_sleep(60)');
		push @later, sub { $checked->$how };
	}
}

my $unread = session('unix', 'closed with answers unread', 'reset', columns => { detail => 'ECONNRESET' });
$unread->send('SELECT 1');
push @later, sub { $unread->vanish };

session('tls', 'close_notify', 'client_vanished')->close_notify;
session('tls', 'killed client', 'client_vanished',
	columns => { detail => qr/CLOSE_WAIT|^EPIPE in state CLOSE,/ })->kill_client;

sub killed_psql
{
	my ($transport, $connection, @host) = @_;
	my @psql = ('psql', '-X', '-d',
		"$connection port=@{[$node->port]} dbname=postgres user=postgres application_name=psql_$transport");
	my ($in, $out) = ("SELECT pg_backend_pid() || '!';\n", '');
	my $psql = IPC::Run::start([ @host ? $host[0]->command(@psql) : @psql ],
		'<', \$in, '>', \$out, IPC::Run::timeout(20));
	$psql->pump until $out =~ /(\d+)!/;
	$events->expect($1, "$transport: psql with kill -9", 'client_vanished',
		application_name => "psql_$transport");
	$psql->kill_kill(grace => 0);
	# the harness kills psql itself: setpriv has replaced itself with psql
	return;
}
killed_psql('tcp', "host=@{[$living->server]} sslmode=disable", $living);
killed_psql('tls', "host=@{[$living->server]} sslmode=require", $living);
killed_psql('unix', 'host=' . $node->host);

# --- connections that the server ends -------------------------------------------------

$node->safe_psql('postgres', <<'END');
CREATE ROLE admin LOGIN;
CREATE ROLE victim LOGIN;
CREATE ROLE excluded NOLOGIN;
CREATE ROLE full_house LOGIN CONNECTION LIMIT 0;
GRANT pg_signal_backend TO admin;
END
my $admin = $node->unix_session(user => 'admin');
foreach my $transport (qw(tcp tls unix))
{
	my @by = (columns => { usename => 'victim', detail => 'SIGTERM from process ' . $admin->pid });
	my $victim = session($transport, 'terminated, idle', 'terminated', user => 'victim', @by);
	my $busy = session($transport, 'terminated, busy', 'terminated', user => 'victim', @by);
	$busy->send('SELECT pg_sleep(60)');
	push @later, sub { $admin->query('SELECT pg_terminate_backend(' . $_->pid . ')') foreach $victim, $busy };

	my $own = session($transport, 'terminated by itself', 'terminated');
	$own->try('SELECT pg_terminate_backend(pg_backend_pid())');
	session(
		$transport, 'idle_session_timeout', 'terminated',
		sql => 'SET idle_session_timeout = 300',
		columns => { detail => qr/idle-session timeout/, state => 'idle' });
	session(
		$transport, 'idle_in_transaction_session_timeout', 'terminated',
		sql => 'SET idle_in_transaction_session_timeout = 300; BEGIN',
		columns => {
			detail => qr/idle-in-transaction timeout/,
			state => 'idle in transaction',
			transaction_age => qr/^(?:0\.[3-9]|[1-9])/ });
	my $invalid = session($transport, 'an unknown message', 'terminated',
		columns => { detail => qr/^invalid frontend message type/ });
	$invalid->_write("\1\0\0\0\4");
	$invalid = session($transport, 'a message of invalid length', 'terminated',
		columns => { detail => 'invalid message length' });
	$invalid->_write("Q\0\0\0\1");
}
session('tls', 'no TLS record', 'terminated', columns => { detail => qr/^SSL error: / })->garble;

# ss destroys the socket on the server's host.
my $cut = session('tcp', 'ss --kill', 'terminated', columns => { detail => qr/ECONNABORTED in state CLOSE/ });
push @later, sub { system 'ss', '-K', 'dport', '=', $cut->port };

# --- the network ----------------------------------------------------------------------

my $keepalive = 'SET tcp_keepalives_idle = 1; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 2';
my $slow = 'SET tcp_keepalives_idle = 100';
my (@in_flight, @idle, @readers);

# Opens a session to which the server sends an answer after the path has failed.
sub in_flight
{
	my ($transport, $host, $name, $cause, $timeout, %options) = @_;
	my $session = session(
		$transport, $name, $cause,
		host => $host,
		sql => "$slow; SET tcp_user_timeout = $timeout",
		%options);
	push @in_flight, $session;
	return;
}

foreach my $transport (qw(tcp tls))
{
	push @idle, session(
		$transport, 'silent, idle', 'keepalive_timeout',
		host => $silent, sql => $keepalive,
		columns => {
			detail => qr/^ETIMEDOUT in state CLOSE, 2 unanswered probes, 0 retransmissions, data not in flight$/,
			unanswered_probes => 2,
			silent_for => qr/^[3-9]\./,
			state => 'idle' });
	push @idle, session(
		$transport, 'silent, idle, with a user timeout', 'keepalive_timeout',
		host => $silent, sql => "$keepalive; SET tcp_user_timeout = 2500",
		columns => { unanswered_probes => qr/^[12]$/, retransmits => 0 });
	push @idle, session(
		$transport, 'silent, client check', 'keepalive_timeout',
		host => $silent, sql => "$keepalive; SET client_connection_check_interval = 100",
		columns => { detail => qr/^ETIMEDOUT found while busy in state CLOSE, 2 unanswered/, state => 'active' });
	in_flight($transport, $silent, 'silent, in flight, user timeout', 'user_timeout', 1500,
		columns => { detail => qr/^ETIMEDOUT in state CLOSE, .* data in flight$/, retransmits => qr/^[2-9]/ });
	in_flight($transport, $silent, 'silent, in flight', 'retransmit_timeout', 0,
		columns => { detail => qr/^ETIMEDOUT in state CLOSE, .* data in flight$/, retransmits => qr/^[3-9]$/ });

	push @readers, reader($transport, 'silent, zero window', 'retransmit_timeout',
		host => $silent, sql => $slow,
		columns => { detail => qr/^ETIMEDOUT .* data in flight$/, state => 'active' });
	push @readers, reader($transport, 'silent, zero window, long user timeout', 'retransmit_timeout',
		host => $silent, sql => "$slow; SET tcp_user_timeout = '1min'",
		columns => { detail => qr/^ETIMEDOUT .* data in flight$/, unanswered_probes => qr/^[3-9]$/ });
	in_flight($transport, $unreachable, 'unreachable', 'unreachable', 1500,
		columns => { detail => qr/^EHOSTUNREACH in state CLOSE/ });
	in_flight($transport, $unreachable, 'unreachable, without user timeout', 'unreachable', 0,
		columns => { detail => qr/^EHOSTUNREACH in state CLOSE/ });
	in_flight($transport, $unreachable, 'unreachable, IPv6', 'unreachable', 1500,
		ipv6 => 1, columns => { detail => qr/^EHOSTUNREACH in state CLOSE/ });
	in_flight($transport, $prohibited, 'prohibited', 'unreachable', 1500,
		columns => { detail => qr/^EHOSTUNREACH in state CLOSE/ });
	in_flight($transport, $prohibited, 'prohibited, IPv6', 'unreachable', 1500,
		ipv6 => 1, columns => { detail => qr/^EACCES in state CLOSE/ });
	# The kernel ignores ICMP's answers to keepalive probes.
	push @idle, session(
		$transport, 'unreachable, idle', 'keepalive_timeout',
		host => $unreachable, sql => $keepalive);
}

# These end although the client may be alive.
my @user_timeout_readers;
foreach my $transport (qw(tcp tls))
{
	push @user_timeout_readers, reader(
		$transport, "$_->[0], zero window, user timeout", 'user_timeout',
		host => $_->[1], sql => "$slow; SET tcp_user_timeout = 4000",
		columns => { detail => qr/^ETIMEDOUT .* data in flight$/, state => 'active' })
	  foreach [ alive => $living ], [ silent => $silent ];
}
wait_for_zero_window(@readers, @user_timeout_readers);
foreach my $session (@idle)
{
	$session->send('SELECT pg_sleep(60)') if $session->parameter('application_name') =~ /client check/;
}
# They answer once the path has failed.
my $locker = $node->unix_session;
$locker->query('SELECT pg_advisory_lock(1)');
$_->send("SELECT pg_advisory_lock_shared(1), 'answer'") foreach @in_flight;
$node->wait_for_wait_event($_->pid, 'advisory') foreach @in_flight;
wait_until_acknowledged($_->port) foreach @idle, @in_flight;
$silent->drop;
$unreachable->unreachable;
$prohibited->unreachable('admin-prohibited');
$locker->query('SELECT pg_advisory_unlock(1)');
$_->() foreach @later;

# tcp_retries2 also ends window probes if it is reached before the user timeout.
$node->wait_for_exit($_->pid, 20) foreach @user_timeout_readers;
set_retries(3);

$events->check(40);

done_testing();
