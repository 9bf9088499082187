# Which values a session can set under default, ceiling and locked policies, in every way
# that PostgreSQL offers.  The first four settings are read from the kernel, the client
# check from pg_settings.
use strict;
use warnings;

use IO::Select ();
use IPC::Run ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(@SETTINGS kernel_values shown_values);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 'logical', conf => "max_worker_processes = 16\n");
my @roles = qw(app_default app_ceiling app_locked);

my %policy = map { $SETTINGS[$_] => (60, 10, 4, 30000, 5000)[$_] } 0 .. 4;
my %stricter = map { $SETTINGS[$_] => (30, 5, 2, 20000, 1000)[$_] } 0 .. 4;
my %looser = map { $SETTINGS[$_] => (90, 20, 8, 60000, 10000)[$_] } 0 .. 4;
my $policy_values = join '/', @policy{@SETTINGS};
my $looser_values = join '/', @looser{@SETTINGS};
my $stricter_values = join '/', @stricter{@SETTINGS};

my @columns = (
	tcp_keepalives_idle => '60s', tcp_keepalives_interval => '10s', tcp_keepalives_count => 4,
	tcp_user_timeout => '30s', client_connection_check_interval => '5s');

my $admin = $node->session;
foreach my $role (@roles)
{
	$admin->query("CREATE ROLE $role LOGIN");
	$node->policy(name => "for_$role", role => $role, enforcement => $role =~ s/app_//r, @columns);
}
$admin->query('CREATE ROLE boss SUPERUSER LOGIN; CREATE ROLE plain LOGIN');
$node->policy(name => 'for_boss', role => 'boss', enforcement => 'locked', @columns);
$node->wait_for_policies;

# The values in force in a session: four from the kernel, the client check from pg_settings.
sub in_force
{
	my ($session) = @_;
	my ($check) = shown_values($session) =~ m{/(\d+)$};
	return kernel_values($session) . "/$check";
}

# One of these values, by the setting's name.
sub value_of
{
	my ($session, $name) = @_;
	my %value;
	@value{@SETTINGS} = split m{/}, in_force($session);
	return $value{$name};
}

# The server's answer to an attempt: "accepted", or the SQLSTATE and the policy named.
sub answer
{
	my ($result) = @_;
	my $refusal = $result->{error}
	  // (grep { $_->{message} =~ /keepalive policy/ } @{ $result->{notices} })[0];
	return 'accepted' unless $refusal;
	my ($name) = $refusal->{message} =~ /keepalive policy "(\w+)"/;
	return join ' ', 'refused', $refusal->{sqlstate}, $name // $refusal->{message};
}

# --- before the session's first query -----------------------------------------------

my %session;
foreach my $role (@roles)
{
	$session{$role} = $node->session(user => $role);
	is(kernel_values($session{$role}), '60/10/4/30000', "$role: the policy's values are in the kernel before any query");
	is(shown_values($session{$role}), $policy_values, "$role: pg_settings shows the policy's values");
	is( $session{$role}->value(
			"SELECT string_agg(DISTINCT source, ' ') FROM pg_settings"
			  . " WHERE name ~ '^tcp_[ku]' OR name = 'client_connection_check_interval'"),
		'global', "$role: pg_settings.source is global");
}
is(kernel_values($admin), '7200/75/9/0', 'a session without a policy has the system\'s defaults');

# --- every way to set a parameter ---------------------------------------------------

$admin->query(<<'END');
CREATE FUNCTION by_function(name text, value text) RETURNS void LANGUAGE plpgsql
	AS 'BEGIN PERFORM set_config(name, value, false); END';
CREATE FUNCTION by_handler(name text, value text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	problem text;
BEGIN
	PERFORM set_config(name, value, false);
EXCEPTION WHEN insufficient_privilege THEN
	GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
	RAISE WARNING USING ERRCODE = SQLSTATE, MESSAGE = problem;
END $$;
END

# Name, SQL that sets, and SQL to be run after the values in force were read.
my @ways = (
	[ 'SET', 'SET %1$s = %2$s', 'RESET %1$s' ],
	[ 'SET LOCAL', 'BEGIN; SET LOCAL %1$s = %2$s', 'COMMIT' ],
	[ 'set_config', q{SELECT set_config('%1$s', '%2$s', false)}, 'RESET ALL' ],
	[ 'local set_config', q{BEGIN; SELECT set_config('%1$s', '%2$s', true)}, 'ROLLBACK' ],
	[ 'set_config in a function', q{SELECT by_function('%1$s', '%2$s')}, 'DISCARD ALL' ],
	[ 'UPDATE pg_settings', q{UPDATE pg_settings SET setting = '%2$s' WHERE name = '%1$s'},
		'SET %1$s TO DEFAULT' ],
	[ 'a DO block', 'DO $$BEGIN SET %1$s = %2$s; END$$', 'RESET %1$s' ],
	[ 'an exception handler', q{SELECT by_handler('%1$s', '%2$s')}, 'RESET %1$s' ],
	[ 'SET in a transaction', 'BEGIN; SET %1$s = %2$s', 'ROLLBACK' ],
	[ 'SET in a subtransaction', 'BEGIN; SAVEPOINT s; SET %1$s = %2$s', 'ROLLBACK TO s; COMMIT' ],
);

foreach my $role (@roles)
{
	my $s = $session{$role};
	foreach my $way (@ways)
	{
		my ($how, $set, $undo) = @$way;
		foreach my $name (@SETTINGS)
		{
			my @seen;
			foreach my $value ($stricter{$name}, $looser{$name})
			{
				my $result = $s->try(sprintf $set, $name, $value);
				$s->query('ROLLBACK') if $result->{error} && $set =~ /^BEGIN/;
				push @seen, answer($result) . ' ' . value_of($s, $name);
				$s->query(sprintf $undo, $name) unless $result->{error} && $set =~ /^BEGIN/;
			}
			my $refused = "refused 42501 for_$role $policy{$name}";
			is_deeply(
				\@seen,
				[
					$role eq 'app_locked' ? $refused : "accepted $stricter{$name}",
					$role eq 'app_default' ? "accepted $looser{$name}" : $refused ],
				"$role: stricter and looser $name by $how");
		}
		is(in_force($s), $policy_values, "$role: the policy's values are in force after " . sprintf $undo, 'name');
	}
	$s->query("SET $_ = $policy{$_}") foreach @SETTINGS;
	is(in_force($s), $policy_values, "$role: SET to the policy's own values is accepted");
	$s->query('RESET ALL');
}

my $refusal = $session{app_locked}->try('SET tcp_user_timeout = 0')->{error};
is($refusal->{message},
	'permission denied to set parameter "tcp_user_timeout" to 0: '
	  . 'keepalive policy "for_app_locked" does not allow it',
	'the error names the policy');
is($refusal->{detail}, 'Policy value is 30000; enforcement is "locked".', 'the error\'s detail has the policy\'s value');
like($refusal->{hint}, qr/superusers.*keepalive_policy/, 'the error\'s hint says who may change it');

# --- a function's SET clause ----------------------------------------------------------

# The functions wait for this lock, so that the kernel's values can be read during the call.
$admin->query('SELECT pg_advisory_lock(1)');
foreach my $name (@SETTINGS)
{
	$admin->query("CREATE FUNCTION clause_${name}_$_() RETURNS text LANGUAGE plpgsql"
		  . " SET $name = $_ AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(1);"
		  . " RETURN current_setting(''$name''); END'")
	  foreach $stricter{$name}, $looser{$name};
}
my $watcher = $node->session;
foreach my $role (@roles)
{
	my $s = $session{$role};
	foreach my $name (@SETTINGS)
	{
		my @seen;
		foreach my $value ($stricter{$name}, $looser{$name})
		{
			$s->send("SELECT clause_${name}_$value()");
			1 until IO::Select->new($s->socket)->can_read(0)
			  || $watcher->value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
				  . " AND NOT granted AND pid = @{[$s->pid]}");
			my %inside;
			@inside{@SETTINGS} = split m{/}, kernel_values($s) . '/';
			$admin->query('SELECT pg_advisory_unlock(1)');
			my $result = $s->result;
			$inside{client_connection_check_interval} =
			  $result->{error} ? 5000 : $result->{rows}[0][0] =~ s/s$/000/r;
			push @seen, answer($result) . " $inside{$name}";
			$admin->query('SELECT pg_advisory_lock(1)');
		}
		my $refused = "refused 42501 for_$role $policy{$name}";
		is_deeply(
			\@seen,
			[
				$role eq 'app_locked' ? $refused : "accepted $stricter{$name}",
				$role eq 'app_default' ? "accepted $looser{$name}" : $refused ],
			"$role: stricter and looser $name by a SET clause");
	}
	is(in_force($s), $policy_values, "$role: the policy's values are in force after the calls");
}
$admin->query('SELECT pg_advisory_unlock_all()');
# With check_function_bodies = on, CREATE FUNCTION itself applies the SET clause.
is( $session{app_locked}->try(
		'SET check_function_bodies = off;'
		  . q{ CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET tcp_user_timeout = 1 AS 'SELECT 1'}
	)->{error},
	undef,
	'CREATE FUNCTION with a SET clause is accepted with check_function_bodies = off');

# --- 0: the system's default, or off ------------------------------------------------

sub tries
{
	my ($s, $name, @values) = @_;
	return join ', ', map {
		my $answer = answer($s->try("SET $name = $_"));
		$s->query("RESET $name");
		"$_ " . ($answer eq 'accepted' ? 'yes' : 'no');
	} @values;
}

my $s = $session{app_ceiling};
is(tries($s, $_, 0), '0 no', "app_ceiling: $_ = 0 is looser than $policy{$_}") foreach @SETTINGS;
$admin->query('CREATE ROLE app_zero LOGIN');
$node->policy(
	name => 'zero', role => 'app_zero', enforcement => 'ceiling', tcp_keepalives_idle => '0s',
	tcp_keepalives_interval => '0s', tcp_keepalives_count => 0, tcp_user_timeout => '0s',
	client_connection_check_interval => '0s');
$node->wait_for_policies;
$s = $node->session(user => 'app_zero');
is(kernel_values($s), '7200/75/9/0', 'a policy with all settings 0 gives the system\'s defaults');
is( tries($s, 'tcp_keepalives_idle', 0, 7199, 7200, 7201), '0 yes, 7199 yes, 7200 yes, 7201 no',
	'a ceiling of 0 is the system\'s default: tcp_keepalives_idle');
is(tries($s, 'tcp_keepalives_interval', 75, 76), '75 yes, 76 no', 'a ceiling of 0 is the system\'s default: tcp_keepalives_interval');
is(tries($s, 'tcp_keepalives_count', 9, 10), '9 yes, 10 no', 'a ceiling of 0 is the system\'s default: tcp_keepalives_count');
is(tries($s, $_, 0, 1, 1000000), '0 yes, 1 yes, 1000000 yes', "a ceiling of 0 allows every value: $_")
  foreach @SETTINGS[ 3, 4 ];

# Sets a sysctl of this network namespace.
sub sysctl
{
	my ($name, $value) = @_;
	open my $file, '>', "/proc/sys/net/ipv4/$name" or die "$name: $!";
	print $file $value;
	close $file or die "$name: $!";
	return;
}
sysctl(tcp_keepalive_time => 50);
$s = $node->session(user => 'app_ceiling');
is(tries($s, 'tcp_keepalives_idle', 0), '0 yes',
	'0 is accepted when the system\'s default is stricter than the ceiling');
$s->query('SET tcp_keepalives_idle = 0');
is(kernel_values($s), '50/10/4/30000', '0 gives the system\'s default');
sysctl(tcp_keepalive_time => 7200);

# --- defaults from elsewhere, and connection options -----------------------------------

# Connects, and returns the session's values and the number of its warnings.
sub connected
{
	my ($role, %options) = @_;
	my $s = $node->session(user => $role, %options);
	my @warnings = grep {
		     $_->{severity} eq 'WARNING'
		  && $_->{sqlstate} eq '42501'
		  && $_->{message} =~ /keepalive policy "for_$role"/
	} @{ $s->notices };
	return in_force($s) . ', ' . @warnings . ' warnings';
}

# The same with defaults that a role sets by an ALTER command.
sub with_defaults
{
	my ($by, $alter, $role, $values) = @_;
	$by->query("$alter SET $_ = $values->{$_}") foreach @SETTINGS;
	my $seen = connected($role);
	$by->query("$alter RESET $_") foreach @SETTINGS;
	return $seen;
}

foreach my $role (@roles)
{
	my @attempts = (
		[ 'ALTER ROLE', sub { with_defaults($session{$role}, "ALTER ROLE $role", $role, @_) } ],
		[ 'ALTER DATABASE', sub { with_defaults($admin, 'ALTER DATABASE postgres', $role, @_) } ],
		[ 'ALTER ROLE IN DATABASE',
			sub { with_defaults($admin, "ALTER ROLE $role IN DATABASE postgres", $role, @_) } ],
		[ 'ALTER ROLE ALL', sub { with_defaults($admin, 'ALTER ROLE ALL', $role, @_) } ],
		[ 'connection options',
			sub {
				my ($values) = @_;
				connected($role, options => join ' ', map { "-c $_=$values->{$_}" } @SETTINGS);
			} ],
		[ 'startup parameters', sub { connected($role, %{ $_[0] }) } ]);

	foreach my $attempt (@attempts)
	{
		my ($how, $try) = @$attempt;
		is($try->(\%stricter),
			$role eq 'app_locked' ? "$policy_values, 5 warnings" : "$stricter_values, 0 warnings",
			"$role: stricter values by $how");
		is($try->(\%looser),
			$role eq 'app_default' ? "$looser_values, 0 warnings" : "$policy_values, 5 warnings",
			"$role: looser values by $how");
	}
	is(connected($role), "$policy_values, 0 warnings", "$role: a connection without any of these has the policy's values");
}

{
	local $ENV{PGOPTIONS} = '-c tcp_keepalives_idle=90';
	my ($stdout, $stderr) = ('', '');
	my $ok = IPC::Run::run(
		[
			'psql', '-XAtc', 'SHOW tcp_keepalives_idle',
			"host=127.0.0.1 port=@{[$node->port]} dbname=postgres user=app_locked" ],
		'>', \$stdout, '2>', \$stderr);
	ok($ok, 'psql with PGOPTIONS connects under a locked policy');
	is($stdout, "60\n", 'psql with PGOPTIONS gets the policy\'s value');
	like($stderr,
		qr/WARNING:  value of parameter "tcp_keepalives_idle" is overridden by keepalive policy "for_app_locked"\n/,
		'psql with PGOPTIONS gets a warning');
}

# RESET does not bring back a value that the policy replaced at startup.
$admin->query('ALTER ROLE app_locked SET tcp_keepalives_idle = 90');
$s = $node->session(user => 'app_locked', options => '-c tcp_user_timeout=60000');
$s->query($_) foreach 'RESET ALL', 'DISCARD ALL', 'RESET tcp_keepalives_idle';
is(in_force($s), $policy_values, 'RESET restores the policy\'s values, not those of ALTER ROLE and connection options');
$admin->query('ALTER ROLE app_locked RESET ALL');

# --- postgresql.conf ------------------------------------------------------------------

$admin->query("ALTER SYSTEM SET $_ = $looser{$_}") foreach @SETTINGS;
$node->reload;
ok($node->poll_query_until('postgres', 'SHOW client_connection_check_interval', '10s'),
	'postgresql.conf is reloaded');
is($admin->value('SHOW tcp_keepalives_idle'), 90, 'a session without a policy has the reloaded value');
foreach my $role (@roles)
{
	is(in_force($session{$role}), $policy_values, "$role: a reload does not change a session");
	is(connected($role), "$policy_values, 0 warnings", "$role: a new session after the reload has the policy's values");
}
$admin->query('ALTER SYSTEM RESET ALL');
$node->reload;

# --- other users' rights ----------------------------------------------------------------

# The policy of a session is that of the role that connected.
$admin->query('GRANT plain, boss TO app_locked');
$s = $node->session(user => 'app_locked');
$s->query('SET ROLE plain');
is(answer($s->try('SET tcp_keepalives_idle = 30')),
	'refused 42501 for_app_locked', 'SET is refused after SET ROLE to a role without a policy');
is(in_force($s), $policy_values, 'SET ROLE does not change the values in force');
$s->query('SET ROLE boss');
is(answer($s->try('SET tcp_keepalives_idle = 30')), 'accepted', 'SET is accepted after SET ROLE to a superuser');
is(kernel_values($s), '30/10/4/30000', 'the value set as superuser is in the kernel');
$s->query('RESET ROLE');
is(answer($s->try('SET tcp_keepalives_idle = 40')),
	'refused 42501 for_app_locked', 'SET is refused after RESET ROLE');
$admin->query('REVOKE plain, boss FROM app_locked');

$s = $node->session(user => 'boss');
is(in_force($s), $policy_values, 'a policy applies to a superuser');
is($node->status($s->pid)->{policy_state}, 'applied', 'policy_state of a superuser\'s session is applied');
foreach my $name (@SETTINGS)
{
	$s->query("SET $name = $looser{$name}");
	is($node->status($s->pid)->{policy_state}, 'overridden', "policy_state is overridden after a superuser sets $name");
	is(value_of($s, $name), $looser{$name}, "the superuser's value of $name is in force");
	$s->query("RESET $name");
	is(value_of($s, $name), $policy{$name}, "RESET restores the policy's value of $name");
	is($node->status($s->pid)->{policy_state}, 'applied', "policy_state is applied after RESET of $name");
}
$s->query('SET tcp_user_timeout = 1234');
$node->policy(name => 'other', role => 'nobody_at_all', tcp_keepalives_idle => '1s');
$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_count = 5 WHERE name = 'for_boss'});
$node->wait_for_policies;
is(kernel_values($s), '60/10/5/1234', 'a policy change does not undo a superuser\'s override');
$s->query('SELECT 1');
is(kernel_values($s), '60/10/5/1234', 'the next command does not undo a superuser\'s override');
$s->query('SET SESSION AUTHORIZATION plain');
is(kernel_values($s), '60/10/5/1234', 'SET SESSION AUTHORIZATION does not undo a superuser\'s override');
is(answer($s->try('SET tcp_user_timeout = 4321')),
	'refused 42501 for_boss', 'SET is refused after SET SESSION AUTHORIZATION');
$s->query('RESET SESSION AUTHORIZATION');
is(answer($s->try('SET tcp_user_timeout = 4321')), 'accepted', 'SET is accepted after RESET SESSION AUTHORIZATION');
$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_count = 4 WHERE name = 'for_boss'});
$node->wait_for_policies;
is(connected('boss', options => '-c tcp_keepalives_idle=30'),
	"$policy_values, 1 warnings", 'connection options of a superuser do not override a locked policy');

# --- parallel workers, pg_dump, subscriptions ---------------------------------------------

$admin->query(<<'END');
CREATE TABLE big AS SELECT i FROM generate_series(1, 100000) i;
ALTER TABLE big ADD PRIMARY KEY (i);
END
my $parallel = <<'END';
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT count(*) FROM big;
SELECT count(*) FROM big
END
$admin->query('GRANT pg_read_all_data TO app_locked');
foreach my $role ('app_locked', 'boss')
{
	my $s = $node->session(user => $role);
	$s->query('SET tcp_keepalives_idle = 90; SET client_connection_check_interval = 99')
	  if $role eq 'boss';
	my $before = in_force($s);
	my @lines = map { $_->[0] } @{ $s->query($parallel) };
	ok(scalar(grep { /Workers Launched: [12]/ } @lines), "$role: parallel workers start");
	is($lines[-1], 100000, "$role: a parallel query gives its result");
	is(in_force($s), $before, "$role: parallel workers do not change the values in force");
}

my $dump = $node->basedir . '/dump';
$node->command_ok(
	[
		'pg_dump', '-f', $dump, '-t', 'big',
		"host=127.0.0.1 port=@{[$node->port]} dbname=postgres user=app_locked" ],
	'pg_dump works under a locked policy');
like(slurp_file($dump), qr/^COPY public\.big /m, 'pg_dump under a locked policy dumps the table');

# A subscription has background workers on its own side and walsenders on the publisher's.
$admin->query('ALTER ROLE app_locked REPLICATION');
$admin->query('CREATE DATABASE subscriber');
$admin->query('CREATE PUBLICATION everything FOR TABLE big');
$admin->query(q{SELECT pg_create_logical_replication_slot('big', 'pgoutput')});
my $subscriber = $node->session(dbname => 'subscriber');
$subscriber->query('CREATE TABLE big (i int PRIMARY KEY)');
$subscriber->query("CREATE SUBSCRIPTION big CONNECTION 'host=127.0.0.1 port=@{[$node->port]}"
	  . " dbname=postgres user=app_locked' PUBLICATION everything WITH (create_slot = false)");
ok($node->poll_query_until('subscriber', 'SELECT count(*) = 100000 FROM big'),
	'a subscription copies its table through a walsender with a locked policy');
my ($walsender) = map { $_->[0] } @{ $admin->query(
		q{SELECT pid FROM pg_stat_replication WHERE usename = 'app_locked' AND application_name = 'big'}) }; # not that which copies
is($node->status($walsender)->{policy_state}, 'applied', 'policy_state of the subscription\'s walsender is applied');
$subscriber->query('DROP SUBSCRIPTION big');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
