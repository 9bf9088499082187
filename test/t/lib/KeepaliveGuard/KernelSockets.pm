# The kernel's values for a backend's socket, read without any code of the extension or
# of PostgreSQL: through a duplicate of the backend's descriptor (pidfd_getfd, which
# needs the capabilities of the lab), and through ss.
package KeepaliveGuard::KernelSockets;

use strict;
use warnings;

use Exporter 'import';
use Socket qw(:DEFAULT IPPROTO_TCP TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_USER_TIMEOUT);
use Time::HiRes qw(time usleep);

our @EXPORT_OK = qw(client_socket socket_options socket_line socket_lines ss_milliseconds
  wait_until_acknowledged);

# Perl's syscall.ph may be too old to have these; they are the same on every architecture.
use constant { SYS_pidfd_open => 434, SYS_pidfd_getfd => 438 };

# A duplicate of a backend's socket to its client: the connected TCP socket of the
# process whose peer has the given port, or any if no port is given.  undef if there
# is none.  While the caller holds it, the backend cannot close its connection.
sub client_socket
{
	my ($pid, $port) = @_;
	my $pidfd = syscall(SYS_pidfd_open, $pid + 0, 0); # + 0: syscall() passes the address of a string
	return if $pidfd < 0;
	open my $process, '<&=', $pidfd or die "fdopen: $!";

	foreach my $link (glob "/proc/$pid/fd/*")
	{
		next unless (readlink($link) // '') =~ /^socket:/;
		my ($number) = $link =~ /(\d+)$/;
		my $fd = syscall(SYS_pidfd_getfd, $pidfd, $number + 0, 0);
		next if $fd < 0;
		open my $socket, '+<&=', $fd or die "fdopen: $!";
		my $peer = getpeername $socket or next;
		my $family = sockaddr_family($peer);
		next unless $family == AF_INET || $family == AF_INET6;
		return $socket if !defined $port || $port == _port($peer);
	}
	return;
}

# The options of a backend's connection in the kernel:
# { keepalive => 0|1, idle => s, interval => s, count => n, user_timeout => ms,
#   port => the client's port }.  undef if there is no such connection.
sub socket_options
{
	my ($pid, $port) = @_;
	my $socket = client_socket($pid, $port) or return;
	my $get = sub { unpack 'i', getsockopt($socket, $_[0], $_[1]) // die "getsockopt: $!" };
	return {
		keepalive => $get->(SOL_SOCKET, SO_KEEPALIVE) ? 1 : 0,
		idle => $get->(IPPROTO_TCP, TCP_KEEPIDLE),
		interval => $get->(IPPROTO_TCP, TCP_KEEPINTVL),
		count => $get->(IPPROTO_TCP, TCP_KEEPCNT),
		user_timeout => $get->(IPPROTO_TCP, TCP_USER_TIMEOUT),
		port => _port(getpeername $socket),
	};
}

sub _port
{
	my ($address) = @_;
	return (sockaddr_family($address) == AF_INET
		? sockaddr_in($address)
		: Socket::sockaddr_in6($address))[0];
}

# What `ss -tnoie` shows of all TCP sockets of the server's namespace except
# listeners: for each socket, { state, recv_queue, send_queue, local, local_port, peer,
# peer_port, timer => { name, expires => ms, count }, cookie, text => the line }.
# A socket without a running timer has no timer.
sub socket_lines
{
	my @lines;
	# With -e, ss complains where no cgroup2 is mounted.
	my $shown = `{ ss -tnoieOH 2>&1 >&3 | grep -v '^Failed to find cgroup2 mount' >&2; } 3>&1`;
	foreach my $line (split /\n/, $shown)
	{
		my ($state, $recv, $send, $local, $peer, $rest) = split ' ', $line, 6;
		my %socket = (state => $state, recv_queue => $recv, send_queue => $send, text => $line);
		@socket{qw(local local_port)} = _address($local);
		@socket{qw(peer peer_port)} = _address($peer);
		$socket{cookie} = hex $1 if $rest =~ /\bsk:([0-9a-f]+)/;
		if ($rest =~ /\btimer:\(([^,]+),([^,]*),(\d+)\)/)
		{
			$socket{timer} = { name => $1, expires => ss_milliseconds($2), count => $3 };
		}
		push @lines, \%socket;
	}
	return @lines;
}

# The line of the socket with this client port (KeepaliveGuard::Host::_own_ports).
sub socket_line
{
	my ($port) = @_;
	my ($line) = grep { $_->{peer_port} == $port } socket_lines();
	return $line;
}

# Waits until the client with this port has acknowledged all that the server sent.  If a
# client disappears before that, retransmission finds it, not keepalive.
sub wait_until_acknowledged
{
	my ($port) = @_;
	my $until = time + 20;
	while (my $socket = socket_line($port))
	{
		return if $socket->{send_queue} == 0;
		die "the client does not acknowledge\n" if time > $until;
		usleep(10_000);
	}
	return;
}

sub _address
{
	my ($text) = @_;
	my ($address, $port) = $text =~ /^\[?(.*?)\]?:(\d+)$/ or die "ss says \"$text\"";
	$address =~ s/%.*//;
	return ($address, $port);
}

# Converts ss's "119min", "12sec" or "450ms" to milliseconds.  With a fraction, older
# versions write "1min9.120ms" and newer ones "1min9.120sec": both are 69120.
sub ss_milliseconds
{
	my ($text) = @_;
	$text =~ /^(?:(\d+)min)?(?:(\d+\.\d+)(?:ms|sec)|(\d+)sec|(\d+)ms)?$/
	  or die "ss says \"$text\" for a time";
	return sprintf '%.0f', 60_000 * ($1 // 0) + 1000 * ($2 // $3 // 0) + ($4 // 0);
}

1;
