# A session cannot delay detection beyond what locked and ceiling settings give by choosing
# values for settings that the policies leave NULL.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(@SETTINGS kernel_values);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->session;
$admin->query('CREATE ROLE app LOGIN; CREATE ROLE guarded LOGIN; CREATE ROLE checked LOGIN; CREATE ROLE kept LOGIN; CREATE ROLE boss LOGIN SUPERUSER');
$node->policy(name => 'keepalives', role => 'app', enforcement => 'locked',
	tcp_keepalives_idle => '60s', tcp_keepalives_interval => '10s', tcp_keepalives_count => 3);
$node->policy(name => 'dead', role => 'guarded', enforcement => 'ceiling', dead_after => '10s');
$node->policy(name => 'idle', priority => 200, role => 'guarded', tcp_keepalives_idle => '6s');
$node->policy(name => 'check', role => 'checked', enforcement => 'locked',
	client_connection_check_interval => '10s');
$node->policy(name => 'kept', role => 'kept', enforcement => 'locked', keepalive => 'true');
$node->policy(name => 'kept times', priority => 200, role => 'kept',
	tcp_keepalives_idle => '60s', tcp_keepalives_interval => '10s', tcp_keepalives_count => 6);
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
is(kernel_values($app), '60/10/3/0', 'a refused SET does not change the kernel\'s values');
$app->query(q{SET tcp_user_timeout = '30s'});
is(kernel_values($app), '60/10/3/30000', 'a user timeout that finds dead clients sooner is accepted');
is($node->status($app->pid)->{policy_state}, 'applied', 'policy_state is applied after an accepted user timeout');
$app->query(q{SET client_connection_check_interval = '1h'});

my $kept = $node->session(user => 'kept');
$kept->query('SET tcp_keepalives_interval = 1');
$kept->query('SET tcp_keepalives_idle = 100');
is(kernel_values($kept), '100/1/6/0', 'a longer idle is accepted after a shorter interval');
$kept->query('RESET tcp_keepalives_interval');
is(kernel_values($kept), '60/10/6/0', 'RESET of the interval takes the longer idle back');

my $guarded = $node->session(user => 'guarded');
is($guarded->try('SET tcp_keepalives_idle = 32767')->{error}{sqlstate}, '42501',
	'a later first probe by tcp_keepalives_idle is refused under a ceiling of dead_after');
is($guarded->try(q{SET LOCAL tcp_keepalives_interval = '1h'})->{error}{sqlstate}, '42501',
	'a later first probe by tcp_keepalives_interval is refused under a ceiling of dead_after');
$guarded->query('SET tcp_keepalives_idle = 3');
is(kernel_values($guarded), '3/75/9/0', 'an earlier first probe is accepted');

my $checked = $node->session(user => 'checked');
is($checked->try(q{SET tcp_user_timeout = '24h'})->{error}{sqlstate}, '42501',
	'a value that delays detection while busy is refused under a locked client check');
$checked->query('SET tcp_keepalives_idle = 32767');
is(kernel_values($checked), '32767/75/9/0', 'a value that delays detection while idle is accepted under a locked client check');

# --- several settings together ------------------------------------------------------------

$app->query('RESET ALL');
$app->query('SET tcp_user_timeout = 80000');
is(kernel_values($app), '60/10/3/80000', 'a longer user timeout within the limit is accepted');
is($app->try('SET tcp_keepalives_interval = 10')->{error}, undef, 'SET to the locked value itself is accepted');

# --- ALTER ROLE and connection options: ignored with a warning ------------------------------------

$admin->query(q{ALTER ROLE app SET tcp_user_timeout = '24h'});
{
	local $ENV{PGOPTIONS} = '-c tcp_keepalives_idle=32767';
	my ($stdout, $stderr);
	ok( IPC::Run::run(
			[ 'psql', '-XAtc', 'SHOW tcp_user_timeout', "host=127.0.0.1 port=@{[$node->port]} dbname=postgres user=app" ],
			'>', \$stdout, '2>', \$stderr),
		'a role with a value that would delay detection connects');
	is($stdout, "0\n", 'a role with a value that would delay detection gets the policy\'s value');
	like($stderr, qr/WARNING:  value of parameter "tcp_user_timeout" is overridden by keepalive policy "keepalives"/,
		'a role with a value that would delay detection gets a warning');
}
my $stored = $node->session(user => 'app');
is(kernel_values($stored), '60/10/3/0', 'the kernel has the policy\'s values despite ALTER ROLE');
$stored->query('RESET tcp_user_timeout');
is(kernel_values($stored), '60/10/3/0', 'RESET restores the policy\'s values despite ALTER ROLE');
$admin->query(q{UPDATE keepalive_policy SET enforcement = 'default' WHERE name = 'keepalives'});
$node->wait_for_policies;
is(kernel_values($stored), '60/10/3/86400000', 'the role\'s value is in force once the policy is no longer enforced');
$admin->query(q{UPDATE keepalive_policy SET enforcement = 'locked' WHERE name = 'keepalives'});
$node->wait_for_policies;
is(kernel_values($stored), '60/10/3/0', 'the policy\'s value is in force once the policy is enforced again');
is($stored->value('SHOW tcp_user_timeout'), '0', 'SHOW shows the policy\'s value once the policy is enforced again');

# --- superusers ----------------------------------------------------------------------------

my $boss = $node->session(user => 'boss');
$boss->query('SET tcp_keepalives_idle = 32767');
is(kernel_values($boss), '32767/75/9/0', 'SET by a superuser overrides a locked policy');
is($node->status($boss->pid)->{policy_state}, 'overridden', 'policy_state is overridden after SET by a superuser');
$boss->query('RESET tcp_keepalives_idle');
is($node->status($boss->pid)->{policy_state}, 'applied', 'policy_state is applied after RESET by a superuser');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');
done_testing();
