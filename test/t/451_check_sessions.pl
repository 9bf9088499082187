# keepalive_check() about sessions: slow detection, overrides, refused settings, sessions
# that do not confirm a change, long queries without a client check; and on a standby.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Seccomp 'refuse_socket_option';
use Socket qw(IPPROTO_TCP TCP_USER_TIMEOUT);
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1);
my $admin = $node->unix_session;
$admin->query($_) foreach 'CREATE ROLE app LOGIN', 'CREATE ROLE plain LOGIN', 'CREATE ROLE nocheck LOGIN';

# Creates a planned policy for a role.
sub plan_for
{
	my ($role, $changes) = @_;
	$admin->query(qq{DO \$\$BEGIN EXECUTE (SELECT policy FROM keepalive_plan('1 min', '240 s')); END\$\$});
	$admin->query(qq{UPDATE keepalive_policy SET name = '$role', role = '$role' $changes WHERE name = 'dead_within_60s_path_240s'});
	$node->wait_for_policies;
	return;
}
plan_for('app', '');
plan_for('nocheck', q{, client_connection_check_interval = '0'});

# Waits until the findings are like the patterns.
sub finds
{
	my ($name, $session, @patterns) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $until = time + 20;
	my $pattern = join "\n", @patterns;
	my $findings;
	do { sleep 0.1; $findings = join "\n", $session->findings } until $findings =~ /\A$pattern\z/ || time > $until;
	return like($findings, qr/\A$pattern\z/, $name);
}

# Follows the hints of all findings, and of those that appear then, until there is none.
sub hints_help
{
	my ($name, $session) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @findings;
	foreach my $round (1 .. 4)
	{
		my %hints = map { $_->[3] => 1 } @{ $session->query('SELECT * FROM keepalive_check()') };
		$node->follow_hint($_) foreach sort keys %hints;
		my $until = time + 5;
		do { sleep 0.1; @findings = $session->findings } until !@findings || time > $until;
		last if !@findings;
	}
	return is_deeply(\@findings, [], $name);
}

# Undoes what hints have changed.
sub reset_policies
{
	$admin->query(q{DELETE FROM keepalive_policy WHERE name LIKE 'dead\_within\_%';
		UPDATE keepalive_policy SET enforcement = 'default'});
	$node->wait_for_policies;
	return;
}

my $app = $node->session(host => $host, user => 'app');
my $local = $node->session(user => 'plain');
finds('a session with a policy and local sessions give no finding', $admin);

# --- no policy -------------------------------------------------------------------------

my @plain = map { $node->session(host => $host, user => 'plain') } 1 .. 3;
my $pid = $plain[0]->pid;
finds(
	'sessions without a policy are found', $admin,
	qr/warning \| session $pid and 2 like it \| a dead client would go unnoticed for up to 02:[\d:.]+ while the session is idle, an unlimited time while it is busy \| SELECT policy FROM keepalive_plan\('1 min'\) \\gexec/,
	qr/info \| session $pid and 2 like it \| probes every 02:00:00 do not keep these open: Azure [^|]* \| SELECT policy FROM keepalive_plan\('1 min'\) \\gexec/);
$admin->query(q{SET search_path = ''});
like(join("\n", map { $_->[3] } @{ $admin->query('SELECT * FROM public.keepalive_check()') }),
	qr/^SELECT policy FROM public\.keepalive_plan\('1 min'\) \\gexec$/m, 'hints have the schema of functions where it is needed');
$admin->query('RESET search_path');
hints_help('the hints add a policy that solves the problems of sessions without a policy', $admin);
reset_policies();
$plain[0]->query("SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 60; SET tcp_keepalives_count = 3;
	SET tcp_user_timeout = 5000; SET client_connection_check_interval = 1000");
$_->terminate foreach @plain[ 1, 2 ];
finds(
	'a session with unsuitable settings is found', $admin,
	qr/warning \| session $pid \| tcp_keepalives_interval \(00:01:00\) is longer than tcp_keepalives_idle \(00:00:10\): [^|]* \| [^|\n]*/,
	qr/warning \| session $pid \| tcp_user_timeout \(00:00:05\) also ends living clients [^|]* \| [^|\n]*/,
	qr/warning \| session $pid \| tcp_user_timeout \(00:00:05\) is shorter than tcp_keepalives_idle \(00:00:10\): [^|]* \| [^|\n]*/);
hints_help('the hints solve the problems of a session with unsuitable settings', $admin);
reset_policies();
$plain[0]->terminate;

# --- postgresql.conf -----------------------------------------------------------------------

$admin->query("ALTER SYSTEM SET tcp_user_timeout = '20s'");
$admin->query('SELECT pg_reload_conf()');
finds(
	'an unsuitable setting in postgresql.conf is found', $admin,
	qr/warning \| postgresql\.conf \| tcp_user_timeout \(00:00:20\) also ends living clients [^|]* \| ALTER SYSTEM SET tcp_user_timeout = '0'; SELECT pg_reload_conf\(\);/,
	qr/warning \| postgresql\.conf \| tcp_user_timeout \(00:00:20\) is shorter than tcp_keepalives_idle \(02:00:00\): [^|]* \| ALTER SYSTEM SET tcp_user_timeout = '0'; SELECT pg_reload_conf\(\);/);
hints_help('the hints correct postgresql.conf', $admin);

# --- overrides -----------------------------------------------------------------------------

my $probes = $admin->value(q{SELECT tcp_keepalives_count FROM keepalive_policy WHERE name = 'app'});
$app->query('SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 2');
my $hint = q{UPDATE keepalive_policy SET tcp_keepalives_count = '5', enforcement = 'locked' WHERE name = 'app';};
finds(
	'a session that gives up too soon is found', $admin,
	qr/warning \| session @{[$app->pid]} \| a client that leaves probes unanswered for 00:00:02 [^|]* \| \Q$hint\E/,
	qr/info \| sessions of policy "app" \| other values [^|]* \| [^|\n]*/);
hints_help('the hints solve the problem of a session that gives up too soon', $admin);
$app->query('RESET ALL');
$admin->query("UPDATE keepalive_policy SET tcp_keepalives_count = $probes, enforcement = 'default' WHERE name = 'app'");
finds('there is no finding once the session and the policy are as before', $admin);

$app->query('SET tcp_keepalives_idle = 30');
$pid = $app->pid;
finds('an override of a policy is found', $admin,
	qr/info \| sessions of policy "app" \| other values than those of the policy are in force, for pid $pid \| UPDATE keepalive_policy SET enforcement = 'locked' WHERE name = 'app';/);
hints_help('the hint ends the override', $admin);
reset_policies();
$app->query('SET tcp_keepalives_idle = 7200');
finds(
	'an override that delays detection is found', $admin,
	qr/warning \| session $pid \| a dead client would go unnoticed for up to 02:[\d:.]+ while the session is idle, up to 00:00:\d\S+ while it is busy \| [^|\n]*/,
	qr/info \| session $pid \| probes every 02:00:00 [^|]* \| UPDATE keepalive_policy SET enforcement = 'ceiling' WHERE name = 'app';/,
	qr/info \| sessions of policy "app" \| other values [^|]* \| [^|\n]*/);
hints_help('the hints end an override that delays detection', $admin);

# --- a session that does not confirm ----------------------------------------------------------

kill 'STOP', $app->pid;
$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_count = 5 WHERE name = 'app'});
finds('a session that does not confirm a change is found', $admin,
	qr/info \| sessions of policy "app" \| the values of the policy are not confirmed yet, by pid $pid \| SELECT \* FROM keepalive_apply\(\);/);
kill 'CONT', $app->pid;
hints_help('the hint waits until the session confirms', $admin);

# --- a standby -----------------------------------------------------------------------------

$node->backup('backup');
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
my $there = $standby->unix_session;
finds('a standby gives no finding', $there);
finds('the primary gives no finding about the standby\'s walsender', $admin);

# They are found after they have run for a minute, below.
my @long = map { my $s = $node->unix_session(user => $_); $s->send('SELECT pg_sleep(300)'); $s } qw(plain nocheck app);
my $long_since = time;

$admin->query(q{UPDATE keepalive_policy SET comment = 'changed'});
$node->wait_for_catchup($standby);
$there->query('SELECT pg_wal_replay_pause()');
finds('paused replay is found', $there,
	qr/warning \| standby \| the policies are those of \S+ \S+: replay is paused \| SELECT pg_wal_replay_resume\(\);/);
$standby->follow_hint($there->value('SELECT hint FROM keepalive_check()'));
finds('the hint resumes replay', $there);

$standby->append_conf('postgresql.conf', "primary_conninfo = 'host=/nowhere'");
$standby->restart;
$there = $standby->unix_session;
finds('a standby without a connection to its primary is found', $there,
	qr/warning \| standby \| the policies are those of [^:]+\S* ?\S*: the standby is not connected to its primary \| SHOW primary_conninfo; .*/);
is($standby->follow_hint($there->value('SELECT hint FROM keepalive_check()')), 'host=/nowhere',
	'the statements of the hint show how it connects, and that it is not connected');
$standby->append_conf('postgresql.conf', "restore_command = 'false'");
$standby->restart;
$there = $standby->unix_session;
finds('a standby that reads archives gives no finding', $there);
$standby->stop;

# --- long queries ------------------------------------------------------------------------

sleep 0.5 while time < $long_since + 61;
my ($plain_pid, $nocheck_pid) = map { $_->pid } @long;
finds(
	'long queries without a client check are found', $admin,
	qr/warning \| sessions of policy "nocheck" \| a query has been running [^|]* not noticed by pid $nocheck_pid \| UPDATE keepalive_policy SET client_connection_check_interval = '10s' WHERE name = 'nocheck'; -- for their next queries/,
	qr/warning \| sessions without policy \| a query has been running [^|]* not noticed by pid $plain_pid \| ALTER SYSTEM SET client_connection_check_interval = '10s'; [^|\n]* -- for their next queries/);
$node->follow_hint($_) foreach map { $_->[3] } @{ $admin->query('SELECT * FROM keepalive_check()') };
$admin->query("SELECT pg_cancel_backend($_)") foreach $plain_pid, $nocheck_pid;
finds('there is no finding once the long queries are cancelled', $admin);
foreach my $session (@long[ 0, 1 ])
{
	eval { $session->result };
	$session->send('SELECT pg_sleep(300)');
}
ok($node->poll_query_until('postgres', qq{SELECT count(*) = 2 FROM keepalive_status()
	WHERE pid IN ($plain_pid, $nocheck_pid) AND client_connection_check_interval = '10s'}),
	'the hints switch the client check on for the next queries');

# --- a kernel that refuses -------------------------------------------------------------------

refuse_socket_option(IPPROTO_TCP, TCP_USER_TIMEOUT);
$node->restart;
$admin = $node->unix_session;
$admin->query(q{UPDATE keepalive_policy SET tcp_user_timeout = '33s', stall_timeout = '30s', tcp_keepalives_count = 3});
$node->wait_for_policies;
$app = $node->session(user => 'app');
$pid = $app->pid;
finds('a setting that the kernel refuses is found', $admin,
	qr/error \| sessions of policy "app" \| the kernel refused a value of the policy, for pid $pid \| SELECT \* FROM keepalive_status\(\) WHERE policy_state = 'failed';/);
like($node->follow_hint($admin->value('SELECT hint FROM keepalive_check()')), qr/^$pid\|/, 'the query of the hint shows the session');

done_testing();
