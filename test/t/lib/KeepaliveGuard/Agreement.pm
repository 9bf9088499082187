# Whether all who tell of a session's settings say the same: the kernel (by
# KeepaliveGuard::Oracle), SHOW, pg_settings and keepalive_status().
package KeepaliveGuard::Agreement;

use strict;
use warnings;

use Exporter 'import';
use KeepaliveGuard::Oracle 'socket_options';
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT_OK = qw(all_agree governed_by kernel_has settings_of wait_for_kernel);

my @names = qw(idle interval count user_timeout client_check);
my %setting = (
	idle => 'tcp_keepalives_idle',
	interval => 'tcp_keepalives_interval',
	count => 'tcp_keepalives_count',
	user_timeout => 'tcp_user_timeout',
	client_check => 'client_connection_check_interval');

# Five values, { idle => s, interval => s, count => n, user_timeout => ms,
# client_check => ms }, of its own for each number below 1000; and the same as the
# columns of a policy.
sub settings_of
{
	my ($n) = @_;
	my %value = (
		idle => 1000 + $n,
		interval => 2000 + $n,
		count => 1 + $n % 127,
		user_timeout => 3_000_000 + $n,
		client_check => 4_000_000 + $n);
	my %columns = map { ($setting{$_} => $value{$_}) } @names;
	$columns{$_} .= 's' foreach @setting{qw(idle interval)};
	$columns{$_} .= 'ms' foreach @setting{qw(user_timeout client_check)};
	return (\%value, %columns);
}

# What the kernel has for a session, or for a backend's pid, only the expected keys of socket_options().
sub _in_kernel
{
	my ($session, $expected) = @_;
	my $options = socket_options(ref $session ? $session->pid : $session + 0) // {};
	return { map { ($_ => $options->{$_}) } keys %$expected };
}

# Tests that the kernel has these values (keys of socket_options()) for a session, or
# for a backend's pid.  Asks the session nothing.
sub kernel_has
{
	my ($session, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply(_in_kernel($session, $expected), $expected, $name);
}

# Waits until the kernel has them: the seconds that took, undef after the timeout.
sub wait_for_kernel
{
	my ($session, $expected, $timeout) = @_;
	my $start = time;
	while (1)
	{
		my $now = _in_kernel($session, $expected);
		my $waited = time - $start;
		return $waited unless grep { ($now->{$_} // '') ne $expected->{$_} } keys %$expected;
		return if $waited > $timeout;
		usleep(10_000);
	}
	return;
}

# Tests that a session over TCP has exactly these values, all five, by the kernel,
# SHOW, pg_settings and keepalive_status(), that SO_KEEPALIVE is on, and that its
# policy is the one given (undef: none).  The kernel is asked first, when a session
# that has just been made has not run a query yet.  Options: keepalive => 0: off;
# policy_state => another than "applied".
sub all_agree
{
	my ($node, $session, $policy, $expected, $name, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %values = %$expected{@names};

	my ($kernel_expected) = { %values, keepalive => $options{keepalive} // 1 };
	delete $kernel_expected->{client_check}; # the kernel has no such thing
	my $kernel = _in_kernel($session, $kernel_expected);

	my (%shown, %listed, %status);
	@shown{@names} = map { _milliseconds($session->value("SHOW $setting{$_}")) } @names;
	my $pg_settings = $session->query('SELECT name, setting FROM pg_settings');
	my %setting_of = map { @$_ } @$pg_settings;
	@listed{@names} = @setting_of{ @setting{@names} };

	my $observer = $node->unix_session;
	my ($row) = @{ $observer->query(<<"END") };
SELECT policy, policy_state, keepalive::integer, extract(epoch FROM tcp_keepalives_idle)::integer,
	extract(epoch FROM tcp_keepalives_interval)::integer, tcp_keepalives_count,
	(extract(epoch FROM tcp_user_timeout) * 1000)::integer,
	(extract(epoch FROM client_connection_check_interval) * 1000)::integer
FROM keepalive_status() WHERE pid = @{[$session->pid]}
END
	$observer->terminate;
	@status{ qw(policy policy_state keepalive), @names } = @$row if $row;

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

# The name of the policy that keepalive_status() gives for a session, or undef.
sub governed_by
{
	my ($node, $session) = @_;
	return $node->status($session->pid)->{policy};
}

# SHOW's "4000ms", "4s" or "1min" in milliseconds, a plain number as it is.
sub _milliseconds
{
	my ($text) = @_;
	my ($number, $unit) = $text =~ /^(\d+)(\D*)$/ or return $text;
	return $number * { '' => 1, ms => 1, s => 1000, min => 60_000, h => 3_600_000, d => 86_400_000 }->{$unit};
}

1;
