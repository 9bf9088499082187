# What locked and ceiling settings promise cannot be undone through settings that the
# policies leave NULL.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(@SETTINGS kernel_values);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->session;
$admin->query('CREATE ROLE app LOGIN; CREATE ROLE guarded LOGIN; CREATE ROLE checked LOGIN; CREATE ROLE boss LOGIN SUPERUSER');
$node->policy(name => 'keepalives', role => 'app', enforcement => 'locked',
	tcp_keepalives_idle => '60s', tcp_keepalives_interval => '10s', tcp_keepalives_count => 3);
$node->policy(name => 'dead', role => 'guarded', enforcement => 'ceiling', dead_after => '10s');
$node->policy(name => 'idle', priority => 200, role => 'guarded', tcp_keepalives_idle => '6s');
$node->policy(name => 'check', role => 'checked', enforcement => 'locked',
	client_connection_check_interval => '10s');
$node->policy(name => 'boss', role => 'boss', enforcement => 'locked', dead_after => '10s');
$node->wait_for_policies;

# --- refused --------------------------------------------------------------------------

my $app = $node->session(user => 'app');
my $refusal = $app->try(q{SET tcp_user_timeout = '24h'})->{error};
is($refusal->{sqlstate}, '42501', 'a user timeout that would replace the locked count is refused');
is($refusal->{message},
	'permission denied to set parameter "tcp_user_timeout" to 86400000: '
	  . 'keepalive policy "keepalives" does not allow it',
	'the error names the policy');
like($refusal->{detail}, qr/^A dead client would go unnoticed for \d+\.\d s while the session is idle; the policies promise 10\d\.\d s\.$/,
	'the detail has both times');
is(kernel_values($app), '60/10/3/0', 'the kernel keeps what it had');
$app->query(q{SET tcp_user_timeout = '30s'});
is(kernel_values($app), '60/10/3/30000', 'a user timeout that finds dead clients sooner is accepted');
is($node->status($app->pid)->{policy_state}, 'applied', 'and the policies stay applied');
$app->query(q{SET client_connection_check_interval = '1h'});

my $guarded = $node->session(user => 'guarded');
is($guarded->try('SET tcp_keepalives_idle = 32767')->{error}{sqlstate}, '42501',
	'the first probe cannot be put off where dead_after is enforced');
is($guarded->try(q{SET LOCAL tcp_keepalives_interval = '1h'})->{error}{sqlstate}, '42501',
	'nor by the interval');
$guarded->query('SET tcp_keepalives_idle = 3');
is(kernel_values($guarded), '3/75/9/0', 'an earlier first probe is accepted');

my $checked = $node->session(user => 'checked');
is($checked->try(q{SET tcp_user_timeout = '24h'})->{error}{sqlstate}, '42501',
	'a locked client check promises a time while the session is busy');
$checked->query('SET tcp_keepalives_idle = 32767');
is(kernel_values($checked), '32767/75/9/0', 'and none while it is idle');

# --- several settings together ------------------------------------------------------------

$app->query('RESET ALL');
$app->query('SET tcp_user_timeout = 80000');
is(kernel_values($app), '60/10/3/80000', 'a user timeout is chosen');
is($app->try('SET tcp_keepalives_interval = 10')->{error}, undef, 'the locked value itself can be set');

# --- not refused, but without effect: ALTER ROLE and connection options ------------------------

$admin->query(q{ALTER ROLE app SET tcp_user_timeout = '24h'});
{
	local $ENV{PGOPTIONS} = '-c tcp_keepalives_idle=32767';
	my ($stdout, $stderr);
	ok( IPC::Run::run(
			[ 'psql', '-XAtc', 'SHOW tcp_user_timeout', "host=127.0.0.1 port=@{[$node->port]} dbname=postgres user=app" ],
			'>', \$stdout, '2>', \$stderr),
		'a role with a value that would undo the policy connects');
	is($stdout, "0\n", 'and does not get it');
	like($stderr, qr/WARNING:  value of parameter "tcp_user_timeout" is overridden by keepalive policy "keepalives"/,
		'with a warning');
}
my $stored = $node->session(user => 'app');
is(kernel_values($stored), '60/10/3/0', 'the kernel has the policy');
$stored->query('RESET tcp_user_timeout');
is(kernel_values($stored), '60/10/3/0', 'after RESET, too');
$admin->query(q{UPDATE keepalive_policy SET enforcement = 'default' WHERE name = 'keepalives'});
$node->wait_for_policies;
is(kernel_values($stored), '60/10/3/86400000', 'what the role has chosen counts once nothing is enforced');
$admin->query(q{UPDATE keepalive_policy SET enforcement = 'locked' WHERE name = 'keepalives'});
$node->wait_for_policies;
is(kernel_values($stored), '60/10/3/0', 'and no longer when it is again');
is($stored->value('SHOW tcp_user_timeout'), '0', 'SHOW agrees');

# --- superusers ----------------------------------------------------------------------------

my $boss = $node->session(user => 'boss');
$boss->query('SET tcp_keepalives_idle = 32767');
is(kernel_values($boss), '32767/75/9/0', 'a superuser overrides');
is($node->status($boss->pid)->{policy_state}, 'overridden', 'and status says so');
$boss->query('RESET tcp_keepalives_idle');
is($node->status($boss->pid)->{policy_state}, 'applied', 'until the value is reset');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'nothing went wrong in the server');
done_testing();
