# The five settings of a session: as the kernel has them (KeepaliveGuard::KernelSockets),
# as SHOW and pg_settings show them, and as keepalive_status() shows them.
#
# A set of values is either a hash { idle => s, interval => s, count => n,
# user_timeout => ms, client_check => ms }, or a string
# "idle/interval/count/user_timeout/client_check" in the same units.
package KeepaliveGuard::Settings;

use strict;
use warnings;

use Exporter 'import';
use KeepaliveGuard::KernelSockets qw(client_socket socket_options);
use Socket qw(IPPROTO_TCP TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT TCP_USER_TIMEOUT);
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT_OK = qw(@SETTINGS kernel_has kernel_values kernel_values_of numbered_settings
  policy_of seconds_until settings_agree shown_values wait_for_kernel);

our @SETTINGS = qw(tcp_keepalives_idle tcp_keepalives_interval tcp_keepalives_count
  tcp_user_timeout client_connection_check_interval);

my @keys = qw(idle interval count user_timeout client_check);
my %setting;
@setting{@keys} = @SETTINGS;

# --- strings of values ------------------------------------------------------------

# The values of the four socket options, from a duplicated descriptor.
sub kernel_values_of
{
	my ($socket) = @_;
	return join '/', map { unpack 'i', getsockopt $socket, IPPROTO_TCP, $_ }
	  TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT;
}

# The same of a KeepaliveGuard::Session over TCP.
sub kernel_values
{
	my ($session) = @_;
	return kernel_values_of(client_socket($session->pid, $session->port));
}

# All five values as the session's pg_settings shows them.
sub shown_values
{
	my ($session) = @_;
	return join '/', map { $_->[0] } @{ $session->query(join ';',
		map { "SELECT setting FROM pg_settings WHERE name = '$_'" } @SETTINGS) };
}

# Waits until the code returns true.  Returns undef if it still returns false when it is
# called after the timeout, else the seconds after which it was last false.  Both count from
# when the code was called, so that a test that has to wait for a CPU does not take its own
# delay for the server's.
sub seconds_until
{
	my ($timeout, $code) = @_;
	my $start = time;
	my $seconds = 0;
	while (1)
	{
		my $called = time;
		return $seconds if $code->();
		$seconds = $called - $start;
		return undef if $seconds > $timeout; # in list context too
		usleep(2000);
	}
}

# --- hashes of values -------------------------------------------------------------

# A hash of values that differs for each number below 1000, and the same values as
# columns of a policy.
sub numbered_settings
{
	my ($n) = @_;
	my %value = (
		idle => 1000 + $n,
		interval => 2000 + $n,
		count => 1 + $n % 127,
		user_timeout => 3_000_000 + $n,
		client_check => 4_000_000 + $n);
	my %columns = map { ($setting{$_} => $value{$_}) } @keys;
	$columns{$_} .= 's' foreach @setting{qw(idle interval)};
	$columns{$_} .= 'ms' foreach @setting{qw(user_timeout client_check)};
	return (\%value, %columns);
}

# The kernel's values for a session, or for a backend's pid: only the expected keys of
# socket_options().
sub _in_kernel
{
	my ($session, $expected) = @_;
	my $options = socket_options(ref $session ? $session->pid : $session + 0) // {};
	return { map { ($_ => $options->{$_}) } keys %$expected };
}

# Tests that the kernel has these values (keys of socket_options()) for a session, or
# for a backend's pid.  Sends nothing to the session.
sub kernel_has
{
	my ($session, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply(_in_kernel($session, $expected), $expected, $name);
}

# Waits until the kernel has these values.  Returns what seconds_until() returns.
sub wait_for_kernel
{
	my ($session, $expected, $timeout) = @_;
	return seconds_until(
		$timeout,
		sub {
			my $now = _in_kernel($session, $expected);
			return !grep { ($now->{$_} // '') ne $expected->{$_} } keys %$expected;
		});
}

# Tests that a session over TCP has exactly these five values in the kernel, in SHOW, in
# pg_settings and in keepalive_status(), that SO_KEEPALIVE is on, and that its policy is
# the given one (undef: none).  The kernel is read first: a new session has not run a
# query by then.  Options: keepalive => 0: SO_KEEPALIVE is off; policy_state => another
# than "applied".
sub settings_agree
{
	my ($node, $session, $policy, $expected, $name, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %values = %$expected{@keys};

	my ($kernel_expected) = { %values, keepalive => $options{keepalive} // 1 };
	delete $kernel_expected->{client_check}; # not a socket option
	my $kernel = _in_kernel($session, $kernel_expected);

	my (%shown, %listed, %status);
	@shown{@keys} = map { _milliseconds($session->value("SHOW $setting{$_}")) } @keys;
	my $pg_settings = $session->query('SELECT name, setting FROM pg_settings');
	my %setting_of = map { @$_ } @$pg_settings;
	@listed{@keys} = @setting_of{ @setting{@keys} };

	my $observer = $node->unix_session;
	my ($row) = @{ $observer->query(<<"END") };
SELECT array_to_string(policies, ','), policy_state, keepalive::integer, extract(epoch FROM tcp_keepalives_idle)::integer,
	extract(epoch FROM tcp_keepalives_interval)::integer, tcp_keepalives_count,
	(extract(epoch FROM tcp_user_timeout) * 1000)::integer,
	(extract(epoch FROM client_connection_check_interval) * 1000)::integer
FROM keepalive_status() WHERE pid = @{[$session->pid]}
END
	$observer->terminate;
	@status{ qw(policy policy_state keepalive), @keys } = @$row if $row;

	return is_deeply(
		{ kernel => $kernel, SHOW => \%shown, pg_settings => \%listed, status => \%status },
		{
			kernel => $kernel_expected,
			SHOW => \%values,
			pg_settings => \%values,
			status => {
				%values,
				keepalive => $kernel_expected->{keepalive},
				policy => $policy,
				policy_state => $options{policy_state} // (defined $policy ? 'applied' : undef),
			},
		},
		$name);
}

# The name of the policy that keepalive_status() shows for a session, or undef.
sub policy_of
{
	my ($node, $session) = @_;
	return $node->status($session->pid)->{policy};
}

# SHOW's "4000ms", "4s" or "1min" in milliseconds, a plain number unchanged.
sub _milliseconds
{
	my ($text) = @_;
	my ($number, $unit) = $text =~ /^(\d+)(\D*)$/ or return $text;
	return $number * { '' => 1, ms => 1, s => 1000, min => 60_000, h => 3_600_000, d => 86_400_000 }->{$unit};
}

1;
