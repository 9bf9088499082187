# A minute of concurrent policy edits, connections and disconnections, more on a slow server.
# In the end every session has the last policy, no session has seen a mix of two, and no slot
# is leaked.
use strict;
use warnings;

use IPC::Run ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(kernel_values seconds_until);
use List::Util 'sum0';
use PostgreSQL::Test::Utils qw(append_to_file slurp_file);
use Test::More;
use Time::HiRes qw(sleep time);

# Rounds of 20 s follow each other until all of this is done.
use constant { SECONDS => 60, EDITS => 600, CONNECTIONS => 3000 };
use constant { ROUND => 20, EDIT_EVERY => 0.05, MAX_CONNECTIONS => 80 };

my $node = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 1,
	conf => "max_connections = @{[MAX_CONNECTIONS]}\nlog_statement = none\nlog_connections = off\n"
	  . "log_disconnections = off\nlog_min_messages = warning\nkeepalive_guard.log_lost_connections = off\n");
my $admin = $node->session;
my $watcher = $node->session;
$admin->query('CREATE ROLE app LOGIN; CREATE ROLE strict LOGIN');

# All values of a policy derive from one number, so that a mix of two policies shows.
my $edits = 0;

# From 10 on: shorter times give a warning.
sub number { return $edits % 30000 + 10 }

sub values_of
{
	my ($n) = @_;
	return "$n/$n/" . ($n % 100 + 1) . '/' . $n * 1000;
}

sub edit
{
	$edits++;
	my $n = number();
	my $set = "tcp_keepalives_idle = '$n s', tcp_keepalives_interval = '$n s',"
	  . ' tcp_keepalives_count = ' . ($n % 100 + 1) . ", tcp_user_timeout = '$n s'";
	# In turn: UPDATE, a policy that is first in match order and then deleted, and TRUNCATE.
	if ($edits % 10 == 1)
	{
		$admin->query("BEGIN; TRUNCATE keepalive_policy;"
			  . " INSERT INTO keepalive_policy (name, role, keepalive) VALUES ('app', 'app', true), ('strict', 'strict', true);"
			  . " UPDATE keepalive_policy SET $set, enforcement = CASE name WHEN 'app' THEN 'default' ELSE 'locked' END;"
			  . ' COMMIT');
	}
	elsif ($edits % 10 == 5)
	{
		$admin->query(q{INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle) VALUES ('first', 1, '1s')});
		$admin->query("BEGIN; DELETE FROM keepalive_policy WHERE name = 'first';"
			  . " UPDATE keepalive_policy SET $set; COMMIT");
	}
	else { $admin->query("UPDATE keepalive_policy SET $set") }
	return;
}
edit();
$node->wait_for_policies;

# --- sessions that stay ---------------------------------------------------------------

my @steady;
foreach my $role ('app', 'strict')
{
	push @steady, map { $node->session(user => $role) } 1 .. 5;
	$steady[-1]->send('SELECT pg_sleep(600)');
	$steady[-2]->query('BEGIN');
	$steady[-3]->send(q{DO $$BEGIN LOOP PERFORM pg_sleep(0.001); END LOOP; END$$});
}
my $worker = $node->worker_pid;

# --- short sessions ----------------------------------------------------------------------

# A row of keepalive_status() is from one moment, and of this session, not of the one that
# had its slot before.  The query divides by zero if the row is a mix.  The policy "first"
# sets one value only.
my $directory = $node->basedir;
append_to_file("$directory/nothing.sql", "SELECT 1;\n");
append_to_file("$directory/sets.sql",
	"BEGIN; SET LOCAL application_name = 'x'; SET LOCAL client_connection_check_interval = 60000; COMMIT;\n");
append_to_file("$directory/checks.sql", <<'END');
SELECT 1 / count(*) FROM keepalive_status()
WHERE pid = pg_backend_pid()
AND (policies[1] = 'first' OR policies[1] = session_user AND (policy_state = 'pending' OR policy_state = 'applied'
	AND tcp_keepalives_idle = tcp_keepalives_interval AND tcp_keepalives_idle = tcp_user_timeout
	AND tcp_keepalives_count = extract(epoch FROM tcp_keepalives_idle)::int % 100 + 1));
END

my @outputs;

# Starts clients that end after a round.
sub start_clients
{
	my @clients;
	foreach my $client ([ 'app', 8 ], [ 'strict', 4 ])
	{
		my ($role, $count) = @$client;
		my $output = '';
		push @outputs, \$output;
		push @clients, IPC::Run::start(
			[
				'pgbench', '--connect', '--no-vacuum', '--client', $count, '--jobs', 1,
				'--time', ROUND, '--file', "$directory/nothing.sql\@16", '--file', "$directory/sets.sql\@3",
				'--file', "$directory/checks.sql\@1",
				"host=127.0.0.1 port=@{[$node->port]} dbname=postgres user=$role" ],
			'<', \undef, '>&', $outputs[-1]);
	}
	return @clients;
}

# The connections of all clients that have ended.
sub connections
{
	return sum0(map { $$_ =~ /number of transactions actually processed: (\d+)/ } @outputs);
}

# --- edits -----------------------------------------------------------------------------------

my $first = $edits;
my $late = 0;

sub edit_for
{
	my ($seconds) = @_;
	my $until = time + $seconds;
	while (time < $until)
	{
		my $next = time + EDIT_EVERY;
		edit();
		# Sometimes wait until the last edit is in force.
		if ($edits % 50 == 0)
		{
			my $expected = values_of(number());
			$late++ unless defined seconds_until(1, sub { !grep { kernel_values($_) ne $expected } @steady });
			$steady[0]->query('SELECT 1');
		}
		# Sessions that are terminated, and that close without a Terminate message.
		if ($edits % 20 == 0)
		{
			my @short = map { $node->session(user => 'app') } 1 .. 2;
			$watcher->query("SELECT pg_terminate_backend(@{[$short[0]->pid]})");
			$short[1]->vanish;
		}
		my $left = $next - time;
		sleep $left if $left > 0;
	}
	return;
}

my $start = time;
my $seconds = 0;
until ($seconds >= SECONDS && $edits - $first >= EDITS && connections() >= CONNECTIONS || $seconds > 5 * SECONDS)
{
	my @clients = start_clients();
	edit_for(ROUND - 1);
	$_->finish foreach @clients;
	$seconds = time - $start;
}

# --- the end ---------------------------------------------------------------------------------

my $expected = values_of(number());
seconds_until(1, sub { !grep { kernel_values($_) ne $expected } @steady });
is_deeply([ grep { $_ ne $expected } map { kernel_values($_) } @steady ], [], 'every session has the last policy in the end');
is($late, 0, 'sessions have each checked policy within a second');
cmp_ok($edits - $first, '>=', EDITS, sprintf 'the test makes enough edits (%.1f per second)', ($edits - $first) / $seconds);
is_deeply([ grep { !/number of failed transactions: 0 / } map { $$_ } @outputs ], [], 'pgbench: no connection failed, no row was a mix');
is_deeply([ grep { /error|FATAL|aborted/i } map { $$_ } @outputs ], [], 'pgbench: no error');
cmp_ok(connections(), '>=', CONNECTIONS, sprintf 'the test makes enough connections (%.0f per second)', connections() / $seconds);

# The last of pgbench's sessions are exiting.
my $counted;
seconds_until(30, sub { ($counted = join ' ', @{ $admin->query('SELECT * FROM keepalive_apply()')->[0] }) eq '12 10 0 0 0 2' });
is($counted, '12 10 0 0 0 2', 'keepalive_apply() counts only the sessions that are connected');
my @burst;
eval { push @burst, $node->session(user => 'strict') while @burst < 200 };
like($@, qr/^FATAL: 53300/, 'connections are refused only at max_connections');
cmp_ok(scalar @burst, '>=', MAX_CONNECTIONS - 12 - 10, 'sessions fill all free connections');
is_deeply([ grep { $_ ne $expected } map { kernel_values($_) } @burst ], [], 'every session has its policy with all connections in use');
edit();
$expected = values_of(number());
seconds_until(1, sub { !grep { kernel_values($_) ne $expected } @steady, @burst });
is_deeply([ grep { $_ ne $expected } map { kernel_values($_) } @steady, @burst ], [], 'every session gets a change with all connections in use');
$_->terminate foreach @burst;

is($node->worker_pid, $worker, 'the worker was not restarted');
my $expected_lines =
  qr/due to administrator command|too many clients|remaining connection slots|WARNING:  keepalive policy "\w+": tcp_user_timeout/;
my @log = grep { !/$expected_lines/ }
  grep { /WARNING|ERROR|FATAL|PANIC|failed|TRAP|was terminated/ } split /\n/, slurp_file($node->logfile);
is_deeply(\@log, [], 'the server log has no unexpected message');

done_testing();
