# After its policy is deleted, a session has exactly the settings that PostgreSQL would
# have given it.  Each session under test is compared with a twin: a session of a role
# without a policy that runs the same commands.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(@SETTINGS kernel_values seconds_until);
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1, conf => <<'END');
max_connections = 200
tcp_keepalives_idle = 1000
tcp_keepalives_count = 7
tcp_user_timeout = 77777
END
my $admin = $node->session;

sub apply
{
	die "policies are pending\n" if $admin->value('SELECT pending FROM keepalive_apply()');
	return;
}


# --- sources of values --------------------------------------------------------------------

my @own = (41, 21, 3, 45000, 8000); # some are stricter than the policy, some looser
my $set = join '; ', map { "SET $SETTINGS[$_] = $own[$_]" } 0 .. 4;
my @roles = map { ("app_$_", "free_$_") } qw(plain role both);
$admin->query("CREATE ROLE $_ LOGIN") foreach @roles;
$admin->query("CREATE ROLE $_ LOGIN SUPERUSER") foreach 'app_boss', 'free_boss';
$admin->query('CREATE DATABASE special');
$admin->query('ALTER ROLE ALL SET tcp_keepalives_count = 6');
foreach my $i (0 .. 4)
{
	$admin->query("ALTER DATABASE special SET $SETTINGS[$i] = " . ($own[$i] + 1)) if $i != 1;
	foreach my $twin ('app', 'free')
	{
		$admin->query("ALTER ROLE ${twin}_$_ SET $SETTINGS[$i] = " . ($own[$i] - 1)) foreach 'role', 'both';
		$admin->query("ALTER ROLE ${twin}_both IN DATABASE special SET $SETTINGS[$i] = $own[$i]") if $i != 2;
	}
}

# Kind of session => [ role, connection options, SQL to run before the policy exists ].
my %kinds = (
	'postgresql.conf' => [ 'plain', {}, [] ],
	'ALTER DATABASE' => [ 'plain', { dbname => 'special' }, [] ],
	'ALTER ROLE' => [ 'role', {}, [] ],
	'ALTER ROLE and DATABASE' => [ 'role', { dbname => 'special' }, [] ],
	'ALTER ROLE IN DATABASE' => [ 'both', { dbname => 'special' }, [] ],
	'connection options' => [
		'plain', { options => join ' ', map { "-c $SETTINGS[$_]=$own[$_]" } 0 .. 4 }, [] ],
	'some options' => [ 'role', { options => '-c tcp_keepalives_idle=51 -c tcp_user_timeout=0' }, [] ],
	'startup parameters' => [ 'plain', { tcp_keepalives_count => 5 }, [] ],
	'SET' => [ 'plain', {}, [$set] ],
	'SET over ALTER ROLE' => [ 'role', {}, [$set] ],
	'SET by a superuser' => [ 'boss', {}, [$set] ],
	'SET to 0' => [ 'plain', {}, [ map { "SET $_ = 0" } @SETTINGS ] ],
	'SET and RESET' => [ 'role', {}, [ $set, 'RESET ALL' ] ],
	'SET in a transaction' => [ 'plain', {}, [ 'BEGIN', $set ] ],
	'SET LOCAL' => [ 'plain', {}, [ 'BEGIN', $set =~ s/SET/SET LOCAL/gr ] ],
	'SET LOCAL over SET' => [
		'plain', {}, [ $set, 'BEGIN', 'SET LOCAL tcp_keepalives_idle = 55; SET LOCAL tcp_user_timeout = 0' ] ],
	'SET in a subtransaction' => [ 'plain', {}, [ 'BEGIN', 'SAVEPOINT s', $set ] ],
	'a failed transaction' => [ 'plain', {}, [ 'BEGIN', $set, 'SELECT 1/0' ] ],
	'a Unix socket' => [ 'plain', { socket => $node->host }, [] ],
	'SET on a Unix socket' => [ 'plain', { socket => $node->host }, [$set] ],
	'a walsender' => [ 'boss', { replication => 'true', tcp_keepalives_idle => 51 }, [] ],
);

sub connect_as
{
	my ($twin, $kind, $sql) = @_;
	my ($role, $options, $own) = @{ $kinds{$kind} };
	my $s = $node->session(user => "${twin}_$role", %$options);
	$s->try($_) foreach $sql ? @$own : ();
	return $s;
}

# All columns of pg_settings that matter.  A walsender and a failed transaction can only
# run SHOW.
sub setting_rows
{
	my ($s) = @_;
	my $columns = 'name, setting, source, boot_val, reset_val, sourcefile, sourceline, pending_restart';
	my $names = join ', ', map { "'$_'" } @SETTINGS;
	my $result = $s->try("SELECT $columns FROM pg_settings WHERE name IN ($names) ORDER BY name");
	return $result->{rows} unless $result->{error};
	return [ map { $s->try("SHOW $_")->{rows}[0] // [] } @SETTINGS ];
}

# --- a policy of each enforcement, and a reload ----------------------------------------------

my $reloads = 0;

sub reload
{
	$reloads++;
	$admin->query('ALTER SYSTEM SET tcp_keepalives_idle = ' . (2000 + $reloads));
	$admin->query('ALTER SYSTEM SET tcp_keepalives_interval = ' . (100 + $reloads)); # was not set before
	$admin->query("ALTER SYSTEM SET client_connection_check_interval = '${reloads}s'");
	$admin->query('ALTER SYSTEM SET tcp_user_timeout = 0') if $reloads % 2;
	$admin->query('ALTER SYSTEM RESET tcp_user_timeout') unless $reloads % 2;
	$node->reload;
	my $control = $node->session;
	die "no reload\n" unless defined seconds_until(5,
		sub { $control->value('SHOW client_connection_check_interval') eq "${reloads}s" });
	return;
}

sub back_to_postgresql_conf
{
	$admin->query('ALTER SYSTEM RESET ALL');
	$node->reload;
	my $control = $node->session;
	die "no reload\n" unless defined seconds_until(5,
		sub { $control->value('SHOW client_connection_check_interval') eq '0' });
	return;
}

# Compares pg_settings of each pair: a twin and a session that should be equal.
sub compare
{
	my ($when, %pairs) = @_;
	my @different;
	foreach my $kind (sort keys %pairs)
	{
		my ($expected, $seen) = map { setting_rows($_) } @{ $pairs{$kind} };
		foreach my $i (0 .. 4)
		{
			my ($is, $should) = map { join ' ', map { $_ // '-' } @{ $_->[$i] } } $seen, $expected;
			push @different, "$kind: \"$is\" should be \"$should\"" if $is ne $should;
		}
	}
	is(join("\n", @different), "", "$when: pg_settings as without a policy");
	return;
}

sub compare_in_kernel
{
	my ($when, %pairs) = @_;
	delete @pairs{ grep { /Unix/ } keys %pairs };
	my @different;
	seconds_until(
		1,
		sub {
			@different = ();
			foreach my $kind (sort keys %pairs)
			{
				my ($should, $is) = map { kernel_values($_) } @{ $pairs{$kind} };
				push @different, "$kind: $is should be $should" if $is ne $should;
			}
			return !@different;
		});
	is(join("\n", @different), "", "$when: values in the kernel as without a policy");
	return;
}

sub run_in_each
{
	my ($sql, @sessions) = @_;
	$_->try($sql) foreach @sessions;
	return;
}

# For each kind, two of its four sessions.
sub pairs
{
	my ($of, $twin, $session) = @_;
	return map { $_ => [ $of->{$_}{$twin}, $of->{$_}{$session} ] } keys %kinds;
}

foreach my $enforcement (qw(default ceiling locked))
{
	# Idle sessions get changes by signals only.  Active ones run a command after each
	# step, and take over PostgreSQL's own settings then.
	my @names = qw(idle_twin idle active_twin active);
	my (%before, %during);
	foreach my $kind (keys %kinds)
	{
		$before{$kind}{$_} = connect_as(/twin/ ? 'free' : 'app', $kind, 1) foreach @names;
	}

	$node->policy(
		name => 'p', role => '/^app_', enforcement => $enforcement, tcp_keepalives_idle => '50s',
		tcp_keepalives_interval => '20s', tcp_keepalives_count => 4, tcp_user_timeout => '40s',
		client_connection_check_interval => '9s');
	apply();
	my $expected = {
		default => '41/21/3/45000', ceiling => '41/20/3/40000', locked => '50/20/4/40000' }->{$enforcement};
	is(kernel_values($before{'SET'}{idle}), $expected, "$enforcement: the policy is in force");
	my $count = $enforcement eq 'default' ? 6 : 4; # ALTER ROLE ALL
	is(kernel_values($before{'postgresql.conf'}{idle}), "50/20/$count/40000", "$enforcement: the policy is in force in a session without own settings");

	# Sessions that start while the policy is in force cannot SET every value.
	foreach my $kind (keys %kinds)
	{
		$during{$kind}{$_} = connect_as(/twin/ ? 'free' : 'app', $kind, $enforcement eq 'default')
		  foreach @names;
	}
	my @active = map { @$_{qw(active_twin active)} } values %before, values %during;
	my @all = map { @$_{@names} } values %before, values %during;
	run_in_each('SELECT 1', @active);

	reload();
	run_in_each('SELECT 1', @active);

	$admin->query('DELETE FROM keepalive_policy');
	compare_in_kernel("$enforcement: active session from before the policy", pairs(\%before, qw(active_twin active)));
	compare_in_kernel("$enforcement: active session from during the policy", pairs(\%during, qw(active_twin active)));
	# An idle session has not processed the reload, unless it had the policy's values as
	# its defaults: it cannot go back to the values of a file that has changed.
	compare_in_kernel("$enforcement: idle session from before the policy", pairs(\%before, qw(idle_twin idle)));
	compare_in_kernel("$enforcement: idle session from during the policy", pairs(\%during, qw(active_twin idle)));

	my $check = sub {
		my ($when) = @_;
		compare_in_kernel("$enforcement: $when, session from before the policy", pairs(\%before, @$_))
		  foreach [qw(idle_twin idle)], [qw(active_twin active)];
		compare_in_kernel("$enforcement: $when, session from during the policy", pairs(\%during, @$_))
		  foreach [qw(idle_twin idle)], [qw(active_twin active)];
		compare("$enforcement: $when, session from before the policy", pairs(\%before, @$_))
		  foreach [qw(idle_twin idle)], [qw(active_twin active)];
		compare("$enforcement: $when, session from during the policy", pairs(\%during, @$_))
		  foreach [qw(idle_twin idle)], [qw(active_twin active)];
		return;
	};
	run_in_each('SELECT 1', @all);
	$check->('at the next command');
	run_in_each('ROLLBACK TO s', map { @{$_}{@names} } map { $_->{'SET in a subtransaction'} } \%before, \%during);
	run_in_each('COMMIT', @all);
	$check->('after COMMIT');
	run_in_each('RESET ALL', @all);
	$check->('after RESET ALL');
	back_to_postgresql_conf();
	run_in_each('SELECT 1', @all);
	$check->('after another reload');
	$_->terminate foreach @all;
	$node->wait_for_exit($_->pid, 20) foreach @all; # the next ones need their places
}

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
