# policy_state and the values in force, as keepalive_status() shows them, always agree with
# the kernel.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(kernel_values seconds_until);
use KeepaliveGuard::Seccomp 'refuse_socket_option';
use Socket qw(IPPROTO_TCP TCP_USER_TIMEOUT);
use Test::More;
use Time::HiRes 'time';

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->session;
my $watcher = $node->session;
$admin->query('CREATE ROLE app LOGIN; CREATE ROLE locked LOGIN; CREATE ROLE plain LOGIN');
$node->policy(
	name => 'app', role => 'app', tcp_keepalives_idle => '60s', tcp_keepalives_interval => '10s',
	tcp_user_timeout => '30s');
$node->policy(
	name => 'locked', role => 'locked', enforcement => 'locked', tcp_keepalives_idle => '61s');
$node->wait_for_policies;

# policy_state and the values that keepalive_status() shows for a session, if the values
# are the kernel's.  They must not change during the call.
sub state_of
{
	my ($session) = @_;
	my $kernel = kernel_values($session);
	my ($state, $values) = @{ $watcher->query(<<"END")->[0] };
SELECT policy_state, concat_ws('/', extract(epoch FROM tcp_keepalives_idle)::int,
	extract(epoch FROM tcp_keepalives_interval)::int, tcp_keepalives_count,
	(extract(epoch FROM tcp_user_timeout) * 1000)::int)
	FROM keepalive_status() WHERE pid = @{[$session->pid]}
END
	return "says $values, the kernel has $kernel" if $values ne $kernel;
	return ($state // 'none') . " $values";
}

# Waits until the sessions that ended are not counted any more.
sub wait_for_sessions
{
	my ($count) = @_;
	seconds_until(20, sub { $watcher->value('SELECT count(*) FROM keepalive_status()') == $count }) // die "not $count sessions\n";
	return;
}

# --- changes by the session itself ----------------------------------------------------

my $app = $node->session(user => 'app');
is(state_of($app), 'applied 60/10/9/30000', 'policy_state is applied from the start');
is(state_of($admin), 'none 7200/75/9/0', 'policy_state is NULL without a policy');

# SQL, and the expected state after it.
my @steps = (
	[ 'SET tcp_keepalives_idle = 90', 'overridden 90/10/9/30000' ],
	[ 'SET tcp_keepalives_idle = 60', 'applied 60/10/9/30000' ],
	[ 'SET tcp_keepalives_count = 3', 'applied 60/10/3/30000' ], # the policy does not set it
	[ 'RESET tcp_keepalives_count', 'applied 60/10/9/30000' ],
	[ 'SET tcp_user_timeout = 1', 'overridden 60/10/9/1' ],
	[ 'RESET ALL', 'applied 60/10/9/30000' ],
	[ 'SET tcp_keepalives_interval = 11', 'overridden 60/11/9/30000' ],
	[ 'DISCARD ALL', 'applied 60/10/9/30000' ],
	[ 'BEGIN', 'applied 60/10/9/30000' ],
	[ 'SET LOCAL tcp_keepalives_idle = 90', 'overridden 90/10/9/30000' ],
	[ 'COMMIT', 'applied 60/10/9/30000' ],
	[ 'BEGIN; SET LOCAL tcp_keepalives_idle = 90', 'overridden 90/10/9/30000' ],
	[ 'SELECT 1/0', 'applied 60/10/9/30000' ], # the transaction is aborted
	[ 'ROLLBACK', 'applied 60/10/9/30000' ],
	[ 'BEGIN; SET tcp_keepalives_idle = 90', 'overridden 90/10/9/30000' ],
	[ 'ROLLBACK', 'applied 60/10/9/30000' ],
	[ 'BEGIN; SET tcp_keepalives_idle = 90', 'overridden 90/10/9/30000' ],
	[ 'SET LOCAL tcp_keepalives_idle = 60', 'applied 60/10/9/30000' ],
	[ 'COMMIT', 'overridden 90/10/9/30000' ],
	[ 'BEGIN; SAVEPOINT s; RESET tcp_keepalives_idle', 'applied 60/10/9/30000' ],
	[ 'ROLLBACK TO s', 'overridden 90/10/9/30000' ],
	[ 'SET LOCAL tcp_keepalives_idle = 91', 'overridden 91/10/9/30000' ],
	[ 'RELEASE s', 'overridden 91/10/9/30000' ],
	[ 'COMMIT', 'overridden 90/10/9/30000' ],
	[ 'RESET tcp_keepalives_idle', 'applied 60/10/9/30000' ],
	[ q{DO $$BEGIN SET tcp_keepalives_idle = 90; RAISE 'no'; EXCEPTION WHEN others THEN END$$},
		'applied 60/10/9/30000' ],
	[ 'SET tcp_keepalives_idle = 32768', 'applied 60/10/9/30000' ], # the kernel refuses it
	[ 'RESET tcp_keepalives_idle', 'applied 60/10/9/30000' ],
);
foreach my $step (@steps)
{
	my ($sql, $state) = @$step;
	$app->try($sql);
	is(state_of($app), $state, "policy_state and values after $sql");
}

# Functions with a SET clause that wait for a lock.
$admin->query(<<'END');
CREATE FUNCTION inner_call() RETURNS void LANGUAGE plpgsql SET tcp_user_timeout = 222
	AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); END';
CREATE FUNCTION outer_call(divisor int) RETURNS int LANGUAGE plpgsql SET tcp_keepalives_idle = 111
	AS 'BEGIN
		PERFORM inner_call();
		PERFORM pg_advisory_xact_lock_shared(2);
		RETURN 1 / divisor;
	END';
END
sub wait_for_lock
{
	my ($session, $lock) = @_;
	1 until $watcher->value("SELECT count(*) FROM pg_locks WHERE NOT granted"
		  . " AND locktype = 'advisory' AND objid = $lock AND pid = @{[$session->pid]}");
	return;
}
foreach my $divisor (1, 0)
{
	$admin->query('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
	$app->send("SELECT outer_call($divisor)");
	wait_for_lock($app, 1);
	is(state_of($app), 'overridden 111/10/9/222', "policy_state and values inside nested functions with SET clauses (divisor $divisor)");
	$admin->query('SELECT pg_advisory_unlock(1)');
	wait_for_lock($app, 2);
	is(state_of($app), 'overridden 111/10/9/30000', "policy_state and values after the inner function (divisor $divisor)");
	$admin->query('SELECT pg_advisory_unlock(2)');
	is(defined $app->result->{error}, !$divisor, 'the outer function ' . ($divisor ? 'succeeds' : 'fails'));
	is(state_of($app), 'applied 60/10/9/30000', "policy_state and values after the outer function (divisor $divisor)");
}

my $locked = $node->session(user => 'locked');
is(state_of($locked), 'applied 61/75/9/0', 'policy_state of a locked policy is applied');
$locked->try('SET tcp_keepalives_idle = 5');
is(state_of($locked), 'applied 61/75/9/0', 'policy_state is applied after a refused SET');
$locked->query('SET tcp_user_timeout = 5');
is(state_of($locked), 'applied 61/75/9/5', 'SET of a setting that a locked policy leaves NULL is accepted');

my $options = $node->session(user => 'app', options => '-c tcp_keepalives_idle=5');
is(state_of($options), 'overridden 5/10/9/30000', 'connection options make policy_state overridden');
$admin->query('ALTER ROLE app SET tcp_user_timeout = 7');
my $role = $node->session(user => 'app');
is(state_of($role), 'overridden 60/10/9/7', 'ALTER ROLE makes policy_state overridden');
$admin->query('ALTER ROLE app RESET ALL');

my $plain = $node->session(user => 'plain');
$plain->query('SET tcp_keepalives_idle = 5');
is(state_of($plain), 'none 5/75/9/0', 'SET in a session without a policy leaves policy_state NULL');

my $unix = $node->unix_session(user => 'locked');
is($node->status($unix->pid)->{policy_state}, 'applied', 'policy_state of a session over a Unix socket is applied');
is($node->status($unix->pid)->{tcp_keepalives_idle}, undef, 'keepalive_status() shows no socket option for a Unix socket');

# --- while a change is being applied -----------------------------------------------------

# keepalive_status() is read at once after each commit: "applied" must be true.
my %shown = (pending => 0, applied => 0, wrong => 0);
my $sleeper = $node->session(user => 'app');
$sleeper->send('SELECT pg_sleep(60)');
foreach my $idle (100 .. 499)
{
	$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s' WHERE name = 'app'");
	foreach my $session ($app, $sleeper)
	{
		my ($state, $value) = @{ $watcher->query(<<"END")->[0] };
SELECT policy_state, extract(epoch FROM tcp_keepalives_idle)::int
	FROM keepalive_status() WHERE pid = @{[$session->pid]}
END
		my $true = $value == $idle && kernel_values($session) eq "$idle/10/9/30000";
		$shown{ $state eq 'pending' || $true ? $state : 'wrong' }++;
	}
}
is($shown{wrong}, 0,
	"keepalive_status() never shows applied too early ($shown{pending} pending, $shown{applied} applied)");
ok(defined seconds_until(1, sub { state_of($sleeper) eq 'applied 499/10/9/30000' }), 'a sleeping session gets the last change');

# A stopped backend does not confirm a change.
kill 'STOP', $app->pid;
$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '70 s' WHERE name = 'app'");
ok(defined seconds_until(10, sub { state_of($sleeper) eq 'applied 70/10/9/30000' }), 'policy_state of another session is applied');
is(state_of($app), 'pending 499/10/9/30000', 'policy_state of a stopped backend is pending');
wait_for_sessions(9);
my $start = time;
my $counts = $watcher->query(q{SELECT * FROM keepalive_apply('400ms')})->[0];
my $took = time - $start;
cmp_ok($took, '>=', 0.4, 'keepalive_apply() waits for a stopped backend until its timeout');
cmp_ok($took, '<', 4, 'keepalive_apply() does not wait longer than its timeout'); # the default is 5 s
is(join(' ', @$counts), '9 3 2 0 1 3', 'keepalive_apply() counts the stopped backend as pending');
kill 'CONT', $app->pid;
ok(defined seconds_until(1, sub { state_of($app) eq 'applied 70/10/9/30000' }), 'the backend confirms the change once it runs again');
is(join(' ', @{ $watcher->query('SELECT * FROM keepalive_apply()')->[0] }), '9 4 2 0 0 3', 'keepalive_apply() counts no pending session');

$admin->query("UPDATE keepalive_policy SET enabled = false WHERE name = 'app'");
$node->wait_for_policies;
is(state_of($app), 'none 7200/75/9/0', 'policy_state is NULL once the policy is disabled');
$admin->query("UPDATE keepalive_policy SET enabled = true WHERE name = 'app'");
$node->wait_for_policies;
is(state_of($app), 'applied 70/10/9/30000', 'policy_state is applied once the policy is enabled again');

# --- a kernel that refuses -------------------------------------------------------------------

refuse_socket_option(IPPROTO_TCP, TCP_USER_TIMEOUT);
$node->restart;
$_ = $node->session foreach $admin, $watcher;
$node->wait_for_policies;
$app = $node->session(user => 'app');
is(state_of($app), 'failed 70/10/9/0', 'policy_state is failed when the kernel refuses a value at startup');
$locked = $node->session(user => 'locked');
is(state_of($locked), 'applied 61/75/9/0', 'policy_state of another policy is applied');
$app->query('SET tcp_keepalives_idle = 5');
is(state_of($app), 'failed 5/10/9/0', 'policy_state is failed when a value is refused and another overridden');
$app->query('RESET tcp_keepalives_idle');
wait_for_sessions(4);
is(join(' ', @{ $watcher->query('SELECT * FROM keepalive_apply()')->[0] }), '4 1 0 1 0 2',
	'keepalive_apply() counts the failed session');

$locked->send('SELECT pg_sleep(60)');
$admin->query("UPDATE keepalive_policy SET tcp_user_timeout = '5s' WHERE name = 'locked'");
$node->wait_for_policies;
is(state_of($locked), 'failed 61/75/9/0', 'policy_state is failed when the kernel refuses a value during a query');
$admin->query('UPDATE keepalive_policy SET tcp_user_timeout = NULL');
$node->wait_for_policies;
is(state_of($locked), 'applied 61/75/9/0', 'policy_state is applied once the policy leaves the refused value NULL, during a query');
is(state_of($app), 'applied 70/10/9/0', 'policy_state is applied once the policy leaves the refused value NULL, in an idle session');
is($app->value('SELECT 1'), 1, 'the session whose value was refused works');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
