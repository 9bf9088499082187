# The five settings of a session as the kernel has them (KeepaliveGuard::Oracle) and
# as PostgreSQL tells them, written "idle/interval/count/user timeout/client check"
# in seconds, seconds, number, milliseconds and milliseconds.
package KeepaliveGuard::Live;

use strict;
use warnings;

use Exporter 'import';
use KeepaliveGuard::Oracle 'client_socket';
use Socket qw(IPPROTO_TCP TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_USER_TIMEOUT);
use Time::HiRes qw(time usleep);

our @EXPORT_OK = qw(@SETTINGS kernel shown seconds_until options_of);

our @SETTINGS = qw(tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count
  tcp_user_timeout client_connection_check_interval);

# The first four, of a duplicated descriptor.
sub options_of
{
	my ($socket) = @_;
	return join '/', map { unpack 'i', getsockopt $socket, IPPROTO_TCP, $_ }
	  TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT;
}

# The first four, of a KeepaliveGuard::Session over TCP.
sub kernel
{
	my ($session) = @_;
	return options_of(client_socket($session->pid, $session->port));
}

# All five as the session itself shows them.
sub shown
{
	my ($session) = @_;
	return join '/', map { $_->[0] } @{ $session->query(join ';',
		map { "SELECT setting FROM pg_settings WHERE name = '$_'" } @SETTINGS) };
}

# Waits until code returns true: the seconds that took, undef after the timeout.
sub seconds_until
{
	my ($timeout, $code) = @_;
	my $start = time;
	my $seconds;
	until ($code->())
	{
		return $seconds if time - $start > $timeout; # undef in a list too
		usleep(2000);
	}
	$seconds = time - $start;
	return $seconds;
}

1;
