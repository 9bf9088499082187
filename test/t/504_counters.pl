# keepalive_stats(): counts by policy and cause, counters after a restart, and that every
# ended connection is counted under load.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = KeepaliveGuard::Cluster->start_new('primary',
	conf => "autovacuum = off\nkeepalive_guard.max_events = 5\n");
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE ROLE other LOGIN');
$node->policy(name => 'app', role => 'app', tcp_keepalives_idle => '60s');
$node->policy(name => 'off', role => 'other', enabled => 0);
$node->wait_for_policies;
my $admin = $node->unix_session;
wait_for_sessions(1);
$admin->query('SELECT keepalive_stats_reset()');

# { policy ("" for none) => [ sessions, sessions_total, client_closed, client_vanished,
# reset, unknown ] }
sub stats
{
	my ($session) = @_;
	my $rows = ($session // $admin)->query(<<'END');
SELECT policy, sessions, sessions_total, client_closed, client_vanished, reset, unknown
FROM keepalive_stats()
END
	return { map { ($_->[0] // '' => [ @$_[ 1 .. 6 ] ]) } @$rows };
}

sub wait_for_sessions
{
	my ($count) = @_;
	my $until = time + 20;
	usleep(20_000) while time < $until
	  && $admin->value('SELECT sum(sessions) FROM keepalive_stats()') != $count;
	return;
}

# --- by policy and cause --------------------------------------------------------------

my @open = map { $node->session(user => 'app') } 1 .. 3;
is_deeply(stats(), { '' => [ 1, 1, 0, 0, 0, 0 ], app => [ 3, 3, 0, 0, 0, 0 ], off => [ (0) x 6 ] },
	'keepalive_stats() counts connected sessions by policy');
$open[0]->terminate;
$open[1]->vanish;
$open[2]->reset;
$node->session(user => 'other')->vanish;
wait_for_sessions(1);
my $counted = { '' => [ 1, 2, 0, 1, 0, 0 ], app => [ 0, 3, 1, 1, 1, 0 ], off => [ (0) x 6 ] };
is_deeply(stats(), $counted, 'keepalive_stats() counts ended sessions by policy and cause');
my $reset_at = $admin->value('SELECT min(stats_reset) FROM keepalive_stats()');

# --- privileges -----------------------------------------------------------------------

$node->safe_psql('postgres', <<'END');
CREATE ROLE auditor LOGIN;
GRANT SELECT ON keepalive_policy TO auditor;
CREATE ROLE monitor LOGIN;
GRANT pg_read_all_stats TO monitor;
CREATE DATABASE elsewhere;
\c elsewhere
CREATE EXTENSION keepalive_guard;
GRANT SELECT ON keepalive_policy TO other;
END
foreach my $case ([ other => 'postgres', '' ], [ other => 'elsewhere', '' ],
	[ auditor => 'postgres', ' app off' ], [ monitor => 'elsewhere', ' app off' ])
{
	my ($user, $database, $policies) = @$case;
	my $session = $node->unix_session(user => $user, dbname => $database);
	is(join(' ', sort keys %{ stats($session) }), $policies,
		"keepalive_stats() shows the policies that $user may read in database $database");
	$session->terminate;
}
wait_for_sessions(1);
$counted->{''} = stats()->{''};
my $app = $node->unix_session(user => 'other');
is($app->try('SELECT keepalive_stats_reset()')->{error}{sqlstate}, '42501', 'keepalive_stats_reset() is refused for an ordinary role');
$app->terminate;
wait_for_sessions(1);

# --- a deleted policy -----------------------------------------------------------------

$node->safe_psql('postgres', "DELETE FROM keepalive_policy WHERE name = 'app'");
$node->wait_for_policies;
is_deeply(stats()->{app}, $counted->{app}, 'the counters of a deleted policy stay');

# --- a clean restart ------------------------------------------------------------------

wait_for_sessions(1);
$admin->query('SELECT keepalive_stats_reset()');
isnt($admin->value('SELECT min(stats_reset) FROM keepalive_stats()'), $reset_at, 'keepalive_stats_reset() sets stats_reset');
is_deeply(stats(), { '' => [ 1, 1, (0) x 4 ], off => [ (0) x 6 ] }, 'keepalive_stats_reset() sets all counters to zero');
is($admin->value('SELECT sum(connections) FROM keepalive_ended()'), 0, 'keepalive_stats_reset() sets the totals to zero');
$reset_at = $admin->value('SELECT min(stats_reset) FROM keepalive_stats()');
$node->session->reset foreach 1 .. 3;
wait_for_sessions(1);
$admin->terminate;
wait_for_exit_of($admin);

sub wait_for_exit_of
{
	my ($session) = @_;
	$node->wait_for_exit($session->pid, 20);
	return;
}

my $file = $node->data_dir . '/pg_stat/keepalive_guard.stat';

sub restart
{
	my ($between) = @_;
	$node->stop('fast');
	$between->() if $between;
	my $log = $node->log_end;
	$node->start;
	$admin = $node->unix_session;
	return $node->log_count(qr/LOG:  ignoring invalid data in file "pg_stat\/keepalive_guard.stat"/, $log);
}

is(restart(sub { ok(-e $file, 'a clean shutdown saves the counters') }), 0, 'the server loads the counters without a message');
is_deeply(stats()->{''}, [ 1, 5, 1, 0, 3, 0 ], 'the loaded counters are the saved ones');
is($admin->value('SELECT min(stats_reset) FROM keepalive_stats()'), $reset_at, 'stats_reset is loaded too');
is_deeply($admin->query('SELECT cause, lost, connections FROM keepalive_ended() WHERE connections > 0'),
	[ [ 'client_closed', 'f', 1 ], [ 'reset', 't', 3 ] ], 'the totals are loaded too');
ok(!-e $file, 'the file is removed once it is loaded');

# --- a damaged file -------------------------------------------------------------------

sub rewrite
{
	my ($change) = @_;
	my $bytes = PostgreSQL::Test::Utils::slurp_file($file);
	$bytes = $change->($bytes);
	open my $out, '>:raw', $file or die $!;
	print $out $bytes;
	close $out;
	return;
}
my %damage = (
	'one bit of a counter' => sub { my ($b) = @_; substr($b, -1) = chr(1 + ord substr $b, -1); return $b },
	'one bit of the date' => sub { my ($b) = @_; substr($b, 8, 1) ^= "\1"; return $b },
	'truncated' => sub { return substr $_[0], 0, -10 },
	'half a header' => sub { return substr $_[0], 0, 7 },
	'empty' => sub { return '' },
	'of another format' => sub { return 'x' x 5000 },
	'with a huge count' => sub { my ($b) = @_; substr($b, 4, 4) = "\xff" x 4; return $b });
foreach my $damage (sort keys %damage)
{
	is(restart(sub { rewrite($damage{$damage}) }), 1, "a damaged file is ignored with a log message: $damage");
	is_deeply(stats()->{''}, [ 1, 1, (0) x 4 ], "the counters are zero after a damaged file: $damage");
}
is(restart(sub { unlink $file; mkdir $file }), 1, 'a directory in place of the file is ignored with a log message');
rmdir $file;

# --- under load -----------------------------------------------------------------------

sub pgbench
{
	my ($seconds) = @_;
	my $script = PostgreSQL::Test::Utils::tempdir . '/script';
	PostgreSQL::Test::Utils::append_to_file($script, "SELECT 1;\n");
	my ($out, $err) = ('', '');
	IPC::Run::run(
		[ 'pgbench', '-n', '-C', '-c', 8, '-j', 2, '-T', $seconds, '-f', $script, '-U', 'other',
			'-h', '127.0.0.1', '-p', $node->port, 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err) or die $err;
	return $out =~ /transactions actually processed: (\d+)/ ? $1 : die $out;
}

$admin->query('SELECT keepalive_stats_reset()');
my $transactions = pgbench(5);
wait_for_sessions(1);
# pgbench makes one more connection to read the catalogs
my $ended = $admin->value(q{SELECT client_closed FROM keepalive_stats() WHERE policy IS NULL});
cmp_ok($ended, '>=', $transactions, "each of $transactions connections in 5 s is counted as client_closed");
cmp_ok($ended, '<=', $transactions + 1 + 8, 'no other connection is counted as client_closed');
is($admin->value('SELECT sum(sessions_total - sessions - client_closed) FROM keepalive_stats()'), 0,
	'every ended session is counted as client_closed');
is($admin->value(q{SELECT count(*) FROM keepalive_events() WHERE cause = 'client_closed'}), 5,
	'keepalive_events() has max_events connections that were not lost');

done_testing();
