# keepalive_check() about the guard itself: each finding appears when its problem exists,
# and disappears when its hint is followed, or shows what to look at.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Seccomp 'refuse_system_call';
use KeepaliveGuard::Settings 'seconds_until';
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use constant { AF_NETLINK => 16, CLONE_NEWNS => 0x20000 };

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->unix_session;

# Waits until there is no finding.
sub is_well
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $until = time + 20;
	my @findings;
	do { sleep 0.1; @findings = $admin->findings } until !@findings || time > $until;
	return is_deeply(\@findings, [], $name);
}

# Waits until the findings (those that $select matches) match the pattern: others may come before
# them, such as that the policies have not been read.
sub becomes_like
{
	my ($pattern, $name, $select) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $findings;
	seconds_until(20, sub { sleep 0.1; $findings = join "\n", grep { !$select || /$select/ } $admin->findings; $findings =~ $pattern });
	return like($findings, $pattern, $name);
}

# Waits for one finding, with this severity and subject, that matches the pattern.
sub finds
{
	my ($severity, $subject, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return becomes_like(qr/\A\Q$severity | $subject | \E$pattern\z/, $name);
}

sub restarted
{
	$node->restart;
	return $admin = $node->unix_session;
}

# Follows the hint of the only finding of this severity.  Returns what is printed.
sub follow_hint
{
	my ($severity) = @_;
	my @hints = map { $_->[3] } grep { !$severity || $_->[0] eq $severity } @{ $admin->query('SELECT * FROM keepalive_check()') };
	die "not one finding, but these hints: @hints" if @hints != 1;
	my $output = $node->follow_hint(@hints);
	$admin = $node->unix_session if !eval { $admin->query('SELECT 1') };
	return $output;
}

is_well('a new cluster has no finding');
$admin->query(q{DO $$BEGIN EXECUTE (SELECT policy FROM keepalive_plan('1 min', '240 s')); END$$});
is_well('a planned policy gives no finding');

# --- keepalive_guard.enabled, keepalive_guard.watch_interval ---------------------------

$admin->query('ALTER SYSTEM SET keepalive_guard.enabled = off');
$admin->query('SELECT pg_reload_conf()');
finds('warning', 'keepalive_guard.enabled', qr/policies are not applied to any session \| ALTER SYSTEM RESET keepalive_guard\.enabled; .*/,
	'enabled = off is found');
follow_hint();
is_well('the hint sets enabled = on');

$admin->query('ALTER SYSTEM SET keepalive_guard.watch_interval = 0');
$admin->query('SELECT pg_reload_conf()');
becomes_like(qr/warning \| keepalive_guard\.watch_interval \| dead_after and stall_timeout are not enforced, for policy "dead_within_60s_path_240s" \|/,
	'watch_interval = 0 is found');
my $error = $admin->try(q{SELECT keepalive_plan('1 min')})->{error};
is_deeply([ @$error{qw(sqlstate message hint)} ],
	[ '55000', 'cannot make a plan while keepalive_guard.watch_interval is 0', 'Set keepalive_guard.watch_interval to 1s and reload.' ],
	'keepalive_plan() fails with watch_interval = 0');
follow_hint();
is_well('the hint sets watch_interval again');

# --- the worker -------------------------------------------------------------------

sub worker
{
	return $admin->value(q{SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'keepalive_guard worker'});
}

# The postmaster restarts it after about a second: call keepalive_check() at once, and again if
# that was too late.
my $worker;
my @findings;
foreach (1 .. 5)
{
	$worker = worker();
	$admin->query("SELECT pg_terminate_backend($worker, 5000)");
	@findings = $admin->findings;
	last if @findings;
	is_well('the worker runs again');
}
$node->wait_for_log(qr/background worker "keepalive_guard worker"/);
like("@findings", qr/\Aerror \| worker \| the keepalive_guard worker is not running: .* \| grep .*\z/, 'a worker that is not running is found');
like($node->follow_hint($findings[0] =~ /.*\| (.*)/), qr/background worker "keepalive_guard worker"/, 'the command of the hint finds the worker\'s end in the server log');
is_well('there is no finding once the worker runs again');

$worker = worker();
kill 'STOP', $worker;
$admin->query(q{UPDATE keepalive_policy SET comment = 'changed'});
finds('warning', 'worker', qr/the last change of policies is not in force yet \| SELECT .*/, 'a change that is not in force is found while the worker is stopped');
like(follow_hint(), qr/keepalive_guard worker/, 'the query of the hint shows the worker');
kill 'CONT', $worker;
is_well('there is no finding once the worker continues');

# --- policies ---------------------------------------------------------------------

$admin->query('ALTER TABLE keepalive_policy DISABLE TRIGGER keepalive_policy_guard');
finds('warning', 'keepalive_policy', qr/its trigger does not always fire: .* \| ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard;/,
	'a disabled trigger is found');
$admin->query(q{INSERT INTO keepalive_policy (name, role) VALUES ('bad one', '/[')});
$admin->query('ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard');
$admin->query('SELECT keepalive_apply()');
finds('error', 'policy "bad one"',
	qr/not in force: a value is invalid \| UPDATE keepalive_policy SET name = name WHERE name = 'bad one'; -- the error says which one/,
	'an invalid policy is found');
$error = $admin->try(q{UPDATE keepalive_policy SET name = name WHERE name = 'bad one'})->{error};
like($error->{message} . $error->{detail}, qr/"role".*regular expression/s, 'the statement in the hint shows what is invalid');
$node->safe_psql('postgres', 'CREATE DATABASE elsewhere');
$node->safe_psql('elsewhere', 'CREATE EXTENSION keepalive_guard');
my $elsewhere = $node->unix_session(dbname => 'elsewhere');
@findings = $elsewhere->findings;
like("@findings", qr/\Aerror \| keepalive_policy \| invalid policies are not in force: 1 of them \| grep [^|]*\z/,
	'an invalid policy is found from another database');
like($node->follow_hint($findings[0] =~ /.*\| (.*)/), qr/skipping keepalive policy "bad one"/, 'the command of the hint finds it in the server log');
$admin->query(q{DELETE FROM keepalive_policy WHERE name = 'bad one'});
is_well('there is no finding once the invalid policy is deleted');
is_deeply([ $elsewhere->findings ], [], 'there is no finding in the other database either');

$elsewhere->query(q{ALTER TABLE keepalive_policy DISABLE TRIGGER keepalive_policy_guard;
	INSERT INTO keepalive_policy (name) VALUES ('lost');
	ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard});
like(join("\n", $elsewhere->findings),
	qr/\Awarning \| database "elsewhere" \| the policies in this database are not used: keepalive_guard\.database is "postgres" \| .*\z/,
	'policies in another database are found');

# The hint names the schema if it is not in search_path.
$admin->query(q{ALTER TABLE keepalive_policy DISABLE TRIGGER keepalive_policy_guard_truncate; SET search_path = ''});
like(join("\n", map { join ' | ', @$_ } @{ $admin->query('SELECT * FROM public.keepalive_check()') }),
	qr/ALTER TABLE public\.keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard_truncate;\z/, 'the hint has a qualified name');
$admin->query(q{RESET search_path});
follow_hint();
is_well('the hint enables the trigger');

$admin->query('ALTER TABLE keepalive_policy RENAME role TO who');
$admin->query('SELECT keepalive_apply()');
finds('error', 'keepalive_policy', qr/the table could not be read: .*/, 'a table without an expected column is found');
like(follow_hint(), qr/keepalive_policy has no column "role"/, 'the command of the hint finds the column in the server log');
$admin->query('ALTER TABLE keepalive_policy RENAME who TO role');
$admin->query('SELECT keepalive_apply()');
is_well('there is no finding once the column is restored');

# --- settings that need a restart ------------------------------------------------------

$admin->query('ALTER SYSTEM SET keepalive_guard.max_policies = 1');
restarted();
$admin->query(q{INSERT INTO keepalive_policy (name, priority, role, client_connection_check_interval) VALUES ('second', 1, 'postgres', '20s')});
finds('error', 'keepalive_guard.max_policies', qr/there are more policies than 1: .* \| ALTER SYSTEM SET keepalive_guard\.max_policies = 2; .*/,
	'more policies than max_policies are found');
follow_hint();
is_well('the hint makes room for all policies');
$admin->query(q{DELETE FROM keepalive_policy WHERE name = 'second'});

$admin->query(q{ALTER SYSTEM SET keepalive_guard.database = 'nowhere'});
restarted();
becomes_like(qr/^error \| keepalive_guard\.database \| policies are read from database "nowhere", which does not exist \| ALTER SYSTEM SET keepalive_guard\.database = 'postgres'; .*$/,
	'a missing policy database is found', qr/^error/);
follow_hint('error');
is_well('the hint names a database that exists');
$admin->query(q{ALTER SYSTEM SET keepalive_guard.database = 'nowhere'});
restarted();
$node->safe_psql('postgres', 'CREATE DATABASE nowhere');
becomes_like(qr/^error \| keepalive_guard\.database \| policies are read from database "nowhere", which does not have the extension \| \\connect nowhere\nCREATE EXTENSION keepalive_guard;$/,
	'a policy database without the extension is found', qr/^error/);
follow_hint('error');
becomes_like(qr/\Awarning \| database "postgres" \| the policies in this database are not used: keepalive_guard\.database is "nowhere" \| ALTER SYSTEM[^|]*\z/,
	'the hint creates the extension, and policies in another database are found');
follow_hint();
is_well('the hint uses the policies of this database');
$admin->query(q{ALTER SYSTEM RESET keepalive_guard.database});
$admin->query(q{ALTER SYSTEM RESET keepalive_guard.max_policies});

# --- a sandbox without netlink --------------------------------------------------------

unless (my $sandboxed = fork)
{
	refuse_system_call(main::SYS_socket(), 0 => AF_NETLINK);
	$node->restart;
	POSIX::_exit(0);
}
wait;
$admin = $node->unix_session;
becomes_like(qr{\Awarning \| netlink \| netlink is unavailable, using /proc/net/tcp: .* \| systemctl edit .*$}, 'refused netlink is found');

# Without netlink and /proc, nothing is known of the sockets.
SKIP:
{
	skip 'AddressSanitizer does not find the stack without /proc', 5 if $ENV{ASAN_OPTIONS};
	$admin->query('DISCARD ALL');
	$node->stop;
	is($node->start_after(sub {
			refuse_system_call(main::SYS_socket(), 0 => AF_NETLINK);
			my ($none, $proc, $type) = ("none\0", "/proc\0", "tmpfs\0");
			syscall(main::SYS_unshare(), CLONE_NEWNS) == 0 or die "unshare: $!";
			syscall(main::SYS_mount(), $none, $proc, $type, 0, 0) == 0 or die "mount: $!";
		}), 0, 'a server without netlink and /proc starts');
	$admin = $node->unix_session;
	my $remote = $node->session;
	becomes_like(qr/\Aerror \| sockets \| the state of connections is not known: .* \| systemctl edit .*$/, 'unreadable sockets are found');
	my $status = $admin->try("SELECT transport, keepalive, tcp_keepalives_idle > '0', tcp_state, health FROM keepalive_status() WHERE pid = @{[$remote->pid]}");
	is_deeply($status->{rows}, [ [ 'tcp', 't', 't', undef, undef ] ], 'keepalive_status() shows what is known without the kernel');
	is_deeply([ map { [ @$_{qw(severity sqlstate)} ] } @{ $status->{notices} } ], [ [ 'WARNING', '58000' ] ], 'keepalive_status() warns');
	is($admin->try('SELECT * FROM keepalive_sockets()')->{error}{sqlstate}, '58000', 'keepalive_sockets() fails');
}
restarted();
is_well('there is no finding once netlink and /proc are back');

# --- not preloaded ---------------------------------------------------------------------

$node->append_conf('postgresql.conf', q{shared_preload_libraries = 'pg_stat_statements, "auto_explain"'});
restarted();
is_deeply([ $admin->findings ],
	[ q{error | shared_preload_libraries | keepalive_guard is not loaded via shared_preload_libraries: no policy is in force | }
		  . q{ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements', 'auto_explain', 'keepalive_guard'; -- then restart the server} ],
	'a library that is not preloaded is found');
my $result = $admin->try(q{SELECT tcp_keepalives_idle, dead_after, policy FROM keepalive_plan('1 min')});
is($result->{notices}[0]{message}, 'keepalive_guard is not loaded via shared_preload_libraries', 'keepalive_plan() warns if the library is not preloaded');
like(join(' ', @{ $result->{rows}[0] }), qr/^00:00:\d\d 00:00:\d\d INSERT INTO keepalive_policy /, 'keepalive_plan() returns a plan if the library is not preloaded');
is($admin->try(q{SELECT keepalive_plan('1 s')})->{error}{sqlstate}, '22023', 'keepalive_plan() refuses an impossible intent if the library is not preloaded');
is_deeply($admin->query('TABLE keepalive_blockers'), [], 'keepalive_blockers is empty if the library is not preloaded');
follow_hint();
is_well('the hint preloads the library');
$node->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements');
is($node->safe_psql('postgres', 'SELECT count(*) > 0 FROM pg_stat_statements'), 't', 'a library that is preloaded before it works');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
