# policy_state, and the values in force, as keepalive_status() tells them: at every
# moment those of the kernel.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(kernel_values seconds_until);
use KeepaliveGuard::Seccomp 'refuse_socket_option';
use Socket qw(IPPROTO_TCP TCP_USER_TIMEOUT);
use Test::More;
use Time::HiRes qw(sleep time);

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

# What keepalive_status() says of a session, state and values, if these are the
# kernel's, which must not change meanwhile.
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

# --- a session's own doing ------------------------------------------------------------

my $app = $node->session(user => 'app');
is(state_of($app), 'applied 60/10/9/30000', 'from the start');
is(state_of($admin), 'none 7200/75/9/0', 'without a policy');

# SQL, and what is true after it.
my @steps = (
	[ 'SET tcp_keepalives_idle = 90', 'overridden 90/10/9/30000' ],
	[ 'SET tcp_keepalives_idle = 60', 'applied 60/10/9/30000' ],
	[ 'SET tcp_keepalives_count = 3', 'applied 60/10/3/30000' ], # not the policy's business
	[ 'RESET tcp_keepalives_count', 'applied 60/10/9/30000' ],
	[ 'SET tcp_user_timeout = 1', 'overridden 60/10/9/1' ],
	[ 'RESET ALL', 'applied 60/10/9/30000' ],
	[ 'SET tcp_keepalives_interval = 11', 'overridden 60/11/9/30000' ],
	[ 'DISCARD ALL', 'applied 60/10/9/30000' ],
	[ 'BEGIN', 'applied 60/10/9/30000' ],
	[ 'SET LOCAL tcp_keepalives_idle = 90', 'overridden 90/10/9/30000' ],
	[ 'COMMIT', 'applied 60/10/9/30000' ],
	[ 'BEGIN; SET LOCAL tcp_keepalives_idle = 90', 'overridden 90/10/9/30000' ],
	[ 'SELECT 1/0', 'applied 60/10/9/30000' ], # as the abort has come
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
	is(state_of($app), $state, "after $sql");
}

# Functions with a SET clause, which wait inside.
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
	is(state_of($app), 'overridden 111/10/9/222', 'in a function with a SET clause, in another');
	$admin->query('SELECT pg_advisory_unlock(1)');
	wait_for_lock($app, 2);
	is(state_of($app), 'overridden 111/10/9/30000', 'back in the outer one');
	$admin->query('SELECT pg_advisory_unlock(2)');
	is(defined $app->result->{error}, !$divisor, 'which ends ' . ($divisor ? 'well' : 'in an error'));
	is(state_of($app), 'applied 60/10/9/30000', 'and after it');
}

my $locked = $node->session(user => 'locked');
is(state_of($locked), 'applied 61/75/9/0', 'a locked policy');
$locked->try('SET tcp_keepalives_idle = 5');
is(state_of($locked), 'applied 61/75/9/0', 'after an attempt to change it');
$locked->query('SET tcp_user_timeout = 5');
is(state_of($locked), 'applied 61/75/9/5', 'what it does not set is free');

my $options = $node->session(user => 'app', options => '-c tcp_keepalives_idle=5');
is(state_of($options), 'overridden 5/10/9/30000', 'connection options override a default');
$admin->query('ALTER ROLE app SET tcp_user_timeout = 7');
my $role = $node->session(user => 'app');
is(state_of($role), 'overridden 60/10/9/7', 'so does ALTER ROLE');
$admin->query('ALTER ROLE app RESET ALL');

my $plain = $node->session(user => 'plain');
$plain->query('SET tcp_keepalives_idle = 5');
is(state_of($plain), 'none 5/75/9/0', 'the values of a session without a policy');

my $unix = $node->unix_session(user => 'locked');
is($node->status($unix->pid)->{policy_state}, 'applied', 'a Unix socket has nothing to be overridden');
is($node->status($unix->pid)->{tcp_keepalives_idle}, undef, 'as it has no such option');

# --- while a change is on its way --------------------------------------------------------

# Each of these commits is followed at once by a look: what is called applied is so.
my %said = (pending => 0, applied => 0, lie => 0);
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
		$said{ $state eq 'pending' || $true ? $state : 'lie' }++;
	}
}
is($said{lie}, 0,
	"nothing is called applied that is not ($said{pending} pending, $said{applied} applied)");
ok(defined seconds_until(1, sub { state_of($sleeper) eq 'applied 499/10/9/30000' }), 'the last change arrives');

# A backend that does not run does not confirm.
kill 'STOP', $app->pid;
$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '70 s' WHERE name = 'app'");
sleep 0.3;
is(state_of($app), 'pending 499/10/9/30000', 'a stopped backend is pending');
is(state_of($sleeper), 'applied 70/10/9/30000', 'others are not');
my $start = time;
my $counts = $watcher->query(q{SELECT * FROM keepalive_apply('400ms')})->[0];
my $took = time - $start;
cmp_ok($took, '>=', 0.4, 'keepalive_apply() waits for it as long as it may');
cmp_ok($took, '<', 1.5, 'and no longer');
is(join(' ', @$counts), '9 3 2 0 1', 'and counts it');
kill 'CONT', $app->pid;
ok(defined seconds_until(1, sub { state_of($app) eq 'applied 70/10/9/30000' }), 'it confirms when it runs again');
is(join(' ', @{ $watcher->query('SELECT * FROM keepalive_apply()')->[0] }), '9 4 2 0 0', 'as counted');

$admin->query("UPDATE keepalive_policy SET enabled = false WHERE name = 'app'");
$node->wait_for_policies;
is(state_of($app), 'none 7200/75/9/0', 'without the policy there is no state');
$admin->query("UPDATE keepalive_policy SET enabled = true WHERE name = 'app'");
$node->wait_for_policies;
is(state_of($app), 'applied 70/10/9/30000', 'with it there is');

# --- a kernel that refuses -------------------------------------------------------------------

refuse_socket_option(IPPROTO_TCP, TCP_USER_TIMEOUT);
$node->restart;
$_ = $node->session foreach $admin, $watcher;
$node->wait_for_policies;
$app = $node->session(user => 'app');
is(state_of($app), 'failed 70/10/9/0', 'a refused value at startup');
$locked = $node->session(user => 'locked');
is(state_of($locked), 'applied 61/75/9/0', 'another policy is not concerned');
$app->query('SET tcp_keepalives_idle = 5');
is(state_of($app), 'failed 5/10/9/0', 'refused and overridden is called refused');
$app->query('RESET tcp_keepalives_idle');
is(join(' ', @{ $watcher->query('SELECT * FROM keepalive_apply()')->[0] }), '4 1 0 1 0',
	'keepalive_apply() counts it');

$locked->send('SELECT pg_sleep(60)');
$admin->query("UPDATE keepalive_policy SET tcp_user_timeout = '5s' WHERE name = 'locked'");
$node->wait_for_policies;
is(state_of($locked), 'failed 61/75/9/0', 'a refused value in a running session');
$admin->query('UPDATE keepalive_policy SET tcp_user_timeout = NULL');
$node->wait_for_policies;
is(state_of($locked), 'applied 61/75/9/0', 'and when it is no longer wanted');
is(state_of($app), 'applied 70/10/9/0', 'in an idle session too');
is($app->value('SELECT 1'), 1, 'which lives');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
