# The library with the table of an older version, which lacks columns: the policies stay
# in force, and what is missing reads as null.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has seconds_until wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->unix_session;
$admin->query(q{CREATE ROLE app LOGIN; CREATE ROLE exempt LOGIN});
$admin->query(q{INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle, tcp_keepalives_interval,
	tcp_keepalives_count, tcp_user_timeout, enforcement) VALUES ('app', 'app', '21s', '22s', 23, '24s', 'locked')});
my %expected = (idle => 21, interval => 22, count => 23, user_timeout => 24000);
my $session = $node->session(user => 'app');
ok(defined wait_for_kernel($session, \%expected, 10), 'a policy is in force');

# Drops a column, and tests what the policy then gives.
my $idle = 30;
sub is_read_without
{
	my ($column, %lost) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	%expected = (%expected, %lost, idle => ++$idle);
	my $from = $node->log_end;
	$admin->query("ALTER TABLE keepalive_policy DROP COLUMN $column");
	$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s'");
	ok(defined wait_for_kernel($session, \%expected, 10), "without $column: a change is in force");
	is_deeply($admin->try('SELECT * FROM keepalive_apply()')->{notices}, [], "without $column: keepalive_apply() does not warn");
	return $from;
}

my $missing = qr/LOG:  keepalive_guard: keepalive_policy has no column "stall_timeout"$/;
my $from = is_read_without('stall_timeout');
is($node->log_count($missing, $from), 1, 'the server log names the column');
$admin->query(q{UPDATE keepalive_policy SET comment = 'changed'; SELECT keepalive_apply()});
is($node->log_count($missing, $from), 1, 'the server log names it once');
is_read_without('dead_after');
is_read_without('client_connection_check_interval');
is_read_without('tcp_user_timeout', user_timeout => 0);
is_read_without('tcp_keepalives_count', count => 9);
is($session->try('SET tcp_keepalives_idle = 5')->{error}{sqlstate}, '42501', 'the policy is locked');
is_read_without('enforcement');
is($session->try('SET tcp_keepalives_idle = 5')->{error}, undef, 'without enforcement the policy is a default');
$session->query('RESET tcp_keepalives_idle');
is_read_without('keepalive');

is($admin->try(q{INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('bad', '-1s')})->{error}{sqlstate},
	'22023', 'the trigger refuses invalid values');
$admin->query(q{INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle) VALUES ('exempt', 'exempt', '50s')});
ok(defined wait_for_kernel($node->session(user => 'exempt'), { idle => 50 }, 10), 'a new policy is in force');

$from = $node->log_end;
$node->restart;
$session = $node->session(user => 'app');
ok(defined wait_for_kernel($session, \%expected, 10), 'the policy is in force after a restart');
ok(defined seconds_until(5, sub { $node->log_count(qr/keepalive_policy has no column "keepalive"$/, $from) }),
	'the server log names the first column after a restart');

# Without the column that selects sessions a policy would apply to all of them.
$admin = $node->unix_session;
$from = $node->log_end;
$admin->query('ALTER TABLE keepalive_policy DROP COLUMN role');
is($admin->try('SELECT * FROM keepalive_apply()')->{notices}[0]{message}, 'table keepalive_policy could not be read',
	'a table without role is not read');
is($node->log_count(qr/keepalive_policy has no column "role" of the expected type/, $from), 1,
	'the server log names the column');
kernel_has($node->session(user => 'app'), \%expected, 'the policies that were read before stay in force');
kernel_has($node->session, { idle => 7200 }, 'they apply to no other session');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'nothing went wrong in the server');

done_testing();
