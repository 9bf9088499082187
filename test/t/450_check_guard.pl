# keepalive_check() of the guard itself: each finding, provoked, and gone again.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Seccomp 'refuse_system_call';
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use constant AF_NETLINK => 16;

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->unix_session;

# The findings, "severity | subject | problem | hint" each.
sub findings
{
	my ($session) = @_;
	return map { join ' | ', @$_ } @{ ($session // $admin)->query('SELECT * FROM keepalive_check()') };
}

# Waits for all to be well.
sub is_well
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $until = time + 20;
	my @findings;
	do { sleep 0.1; @findings = findings() } until !@findings || time > $until;
	return is_deeply(\@findings, [], $name);
}

# Waits for one finding, of this severity and subject, like that.
sub finds
{
	my ($severity, $subject, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $until = time + 20;
	my @findings;
	do { sleep 0.1; @findings = findings() } until @findings || time > $until;
	return like(join("\n", @findings), qr/\A\Q$severity | $subject | \E$pattern\z/, $name);
}

# Runs the statements of the hint of the one finding there is.
sub follow_hint
{
	my ($statements) = (findings())[0] =~ /.* \| (.*)/s;
	$admin->query($_) foreach grep { /\S/ } split /;|--.*/, $statements;
	return $statements;
}

sub restarted
{
	$node->restart;
	return $admin = $node->unix_session;
}

is_deeply([ findings() ], [], 'a new cluster: all is well');
$admin->query(q{DO $$BEGIN EXECUTE (SELECT policy FROM keepalive_plan('1 min', '240 s')); END$$});
is_well('with a planned policy too');

# --- keepalive_guard.enabled, keepalive_guard.watch_interval ---------------------------

$admin->query('ALTER SYSTEM SET keepalive_guard.enabled = off');
$admin->query('SELECT pg_reload_conf()');
finds('warning', 'keepalive_guard.enabled', qr/policies are not applied to any session \| ALTER SYSTEM RESET keepalive_guard\.enabled; .*/,
	'the guard is off');
follow_hint();
is_well('the hint puts it on');

$admin->query('ALTER SYSTEM SET keepalive_guard.watch_interval = 0');
$admin->query('SELECT pg_reload_conf()');
sleep 0.3;
my @findings = findings();
like("@findings", qr/warning \| keepalive_guard\.watch_interval \| dead_after and stall_timeout are without effect, for policy "dead_within_60s" \|/,
	'nobody watches');
my $error = $admin->try(q{SELECT keepalive_plan('1 min')})->{error};
is_deeply([ @$error{qw(sqlstate message hint)} ],
	[ '55000', 'keepalive_guard.watch_interval is 0: nobody watches', 'Set keepalive_guard.watch_interval to 1s and reload.' ],
	'so that there can be no plan');
$admin->query('ALTER SYSTEM RESET keepalive_guard.watch_interval');
$admin->query('SELECT pg_reload_conf()');
is_well('somebody watches again');

# --- the worker -------------------------------------------------------------------

sub worker
{
	return $admin->value(q{SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'keepalive_guard worker'});
}

# It is back within a second or so: look at once.
my $worker = worker();
$admin->query("SELECT pg_terminate_backend($worker, 5000)");
like(join("\n", findings()), qr/\Aerror \| worker \| the keepalive_guard worker is not running: .* \| grep .*\z/, 'the worker is gone');
is_well('and back');

$worker = worker();
kill 'STOP', $worker;
$admin->query(q{UPDATE keepalive_policy SET comment = 'changed'});
finds('warning', 'worker', qr/the last change of policies is not in force yet \| SELECT .*/, 'the worker is held up');
kill 'CONT', $worker;
is_well('it goes on');

# --- policies ---------------------------------------------------------------------

$admin->query('ALTER TABLE keepalive_policy DISABLE TRIGGER keepalive_policy_guard');
finds('warning', 'keepalive_policy', qr/its trigger does not always fire: .* \| ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard;/,
	'no trigger');
$admin->query(q{INSERT INTO keepalive_policy (name, role) VALUES ('bad one', '/[')});
$admin->query('ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard');
$admin->query('SELECT keepalive_apply()');
finds('error', 'policy "bad one"',
	qr/not in force: something in it is invalid \| UPDATE keepalive_policy SET name = name WHERE name = 'bad one'; -- says what/,
	'an invalid policy');
$error = $admin->try(q{UPDATE keepalive_policy SET name = name WHERE name = 'bad one'})->{error};
like($error->{message} . $error->{detail}, qr/"role".*regular expression/s, 'the hint says what is invalid');
$node->safe_psql('postgres', 'CREATE DATABASE elsewhere');
$node->safe_psql('elsewhere', 'CREATE EXTENSION keepalive_guard');
my $elsewhere = $node->unix_session(dbname => 'elsewhere');
like(join("\n", findings($elsewhere)), qr/\Aerror \| keepalive_policy \| invalid policies are not in force: 1 of them \| grep [^|]*\z/,
	'seen from another database');
$admin->query(q{DELETE FROM keepalive_policy WHERE name = 'bad one'});
is_well('it is gone');
is_deeply([ findings($elsewhere) ], [], 'seen from there too');

$elsewhere->query(q{ALTER TABLE keepalive_policy DISABLE TRIGGER keepalive_policy_guard;
	INSERT INTO keepalive_policy (name) VALUES ('lost');
	ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard});
like(join("\n", findings($elsewhere)),
	qr/\Awarning \| database "elsewhere" \| the policies in this database are without effect: keepalive_guard\.database is "postgres" \| .*\z/,
	'policies where nobody looks');

# In a schema that a session does not look in, the hint is qualified.
$admin->query(q{ALTER TABLE keepalive_policy DISABLE TRIGGER keepalive_policy_guard_truncate; SET search_path = ''});
like(join("\n", map { join ' | ', @$_ } @{ $admin->query('SELECT * FROM public.keepalive_check()') }),
	qr/ALTER TABLE public\.keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard_truncate;\z/, 'a qualified name');
$admin->query(q{RESET search_path});
follow_hint();
is_well('the trigger is back');

$admin->query('ALTER TABLE keepalive_policy RENAME stall_timeout TO patience');
$admin->query('SELECT keepalive_apply()');
finds('error', 'keepalive_policy', qr/the table could not be read: .*/, 'a table that is not what it was');
$admin->query('ALTER TABLE keepalive_policy RENAME patience TO stall_timeout');
$admin->query('SELECT keepalive_apply()');
is_well('it is again');

# --- settings that need a restart ------------------------------------------------------

$admin->query('ALTER SYSTEM SET keepalive_guard.max_policies = 1');
restarted();
$admin->query(q{INSERT INTO keepalive_policy (name, priority, role) VALUES ('second', 1, 'postgres')});
finds('error', 'keepalive_guard.max_policies', qr/there are more policies than 1: .* \| ALTER SYSTEM SET keepalive_guard\.max_policies = 2; .*/,
	'too many policies');
$admin->query(q{DELETE FROM keepalive_policy WHERE name = 'second'});
is_well('no more than there is room for');

$admin->query(q{ALTER SYSTEM SET keepalive_guard.database = 'nowhere'});
restarted();
@findings = grep { /^error/ } findings();
sleep 0.1 until (@findings = grep { /^error/ } findings());
like("@findings", qr/^error \| keepalive_guard\.database \| there is no database "nowhere", where policies are looked for \| ALTER SYSTEM SET keepalive_guard\.database = 'postgres'; .*$/,
	'no such database');
$node->safe_psql('postgres', 'CREATE DATABASE nowhere');
my $until = time + 20;
do { sleep 0.1; @findings = grep { /^error/ } findings() } until "@findings" =~ /has no extension/ || time > $until;
like("@findings", qr/^error \| keepalive_guard\.database \| database "nowhere", where policies are looked for, has no extension keepalive_guard \| \\connect nowhere\nCREATE EXTENSION keepalive_guard;$/,
	'no extension in it');
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
$until = time + 20;
do { sleep 0.1; @findings = findings() } until @findings == 1 || time > $until;
like("@findings", qr/^warning \| netlink \| the kernel does not answer in full: .* \| systemctl edit .*$/, 'netlink is refused');
restarted();
is_well('it is allowed');

# --- not preloaded ---------------------------------------------------------------------

$node->append_conf('postgresql.conf', q{shared_preload_libraries = 'pg_stat_statements, "auto_explain"'});
restarted();
is_deeply([ findings() ],
	[ q{error | shared_preload_libraries | keepalive_guard is not preloaded: no policy is in force, nobody watches | }
		  . q{ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements', 'auto_explain', 'keepalive_guard'; -- then restart the server} ],
	'not preloaded');
my $result = $admin->try(q{SELECT tcp_keepalives_idle, dead_after, policy FROM keepalive_plan('1 min')});
is($result->{notices}[0]{message}, 'nobody watches: keepalive_guard is not preloaded', 'a plan warns');
like(join(' ', @{ $result->{rows}[0] }), qr/^00:00:\d\d 00:00:\d\d INSERT INTO keepalive_policy /, 'but there is one');
is($admin->try(q{SELECT keepalive_plan('1 s')})->{error}{sqlstate}, '22023', 'and the impossible is refused');
is_deeply($admin->query('TABLE keepalive_blockers'), [], 'nobody is known to hold up others');
follow_hint();
restarted();
is_well('the hint preloads it');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
