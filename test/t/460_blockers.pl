# keepalive_blockers: a dead line that holds a lock for which others wait, directly
# and behind each other, or that keeps vacuum from its work.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $other = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary', conf => "max_prepared_transactions = 2\n");
my $admin = $node->unix_session;
$admin->query(<<'END');
CREATE TABLE t AS SELECT 1 AS id, 0 AS value;
CREATE TABLE u ();
CREATE ROLE nobody LOGIN;
CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
END

# Probes soon, and for a while: the line stays as it is during the test.
$node->policy(
	name => 'probing', tcp_keepalives_idle => '2s', tcp_keepalives_interval => '1s',
	tcp_keepalives_count => 100);
$node->wait_for_policies;

my @columns = qw(pid datname usename application_name client_addr policy health
  silent_for gives_up_in waiting oldest_wait transaction_age holds_xmin xmin_age);

# The rows, [ { column => value } ], lengths of time in seconds, in order of pid.
sub blockers
{
	my ($session) = @_;
	my $rows = ($session // $admin)->query(<<'END');
SELECT pid, datname, usename, application_name, host(client_addr), policy, health,
	extract(epoch FROM silent_for), extract(epoch FROM gives_up_in), waiting,
	extract(epoch FROM oldest_wait), extract(epoch FROM transaction_age), holds_xmin, xmin_age
FROM keepalive_blockers ORDER BY pid
END
	return [ map { my %row; @row{@columns} = @$_; \%row } @$rows ];
}

# Waits until there are that many rows: the last ones seen.
sub wait_for_blockers
{
	my ($count) = @_;
	my $until = time + 20;
	my $rows;
	do { sleep 0.1; $rows = blockers() } until @$rows == $count || time > $until;
	return $rows;
}

sub started_waiting
{
	my ($session, $sql) = @_;
	$session->send($sql);
	my $until = time + 20;
	my $waits;
	do
	{
		sleep 0.02;
		$waits = $admin->value("SELECT count(*) FROM pg_locks WHERE NOT granted AND waitstart IS NOT NULL AND pid = " . $session->pid);
	} until $waits || time > $until;
	die "does not wait: $sql\n" unless $waits;
	return $session;
}

my @names = qw(victim idle);
my ($victim, $idle) = map { $node->session(host => $host, application_name => $_) } @names;
my $snapshot = $node->session(host => $host, application_name => 'snapshot');
$victim->query('BEGIN; UPDATE t SET value = 1; SELECT pg_advisory_lock(7)');

my $living = $node->session(host => $other);
$living->query('BEGIN; LOCK TABLE u; SELECT pg_advisory_lock(8)');
my @waiting;
push @waiting, started_waiting($node->session(host => $other), 'UPDATE t SET value = 2');
my $second = $node->session(host => $other);
$second->query('BEGIN; SELECT pg_advisory_lock(9)');
push @waiting, started_waiting($second, 'SELECT pg_advisory_lock(7)');
push @waiting, started_waiting($node->unix_session, 'SELECT pg_advisory_lock(9)');
# These wait for the living.
my @elsewhere = map { started_waiting($node->unix_session, $_) }
  'SELECT * FROM u', 'SELECT pg_advisory_lock_shared(8)';
sleep 2.5; # so that a probe is answered after they began to wait

is_deeply(blockers(), [], 'while the line is good it is nobody\'s business');
my $plan = join "\n", map { $_->[0] } @{ $admin->query('EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM keepalive_blockers') };
like($plan, qr/Function Scan on pg_lock_status[^\n]*\(never executed\)/, 'and no lock is looked at');
unlike($plan, qr/JIT:/, 'nor is time spent on compilation');

# --- a dead line ----------------------------------------------------------------

$host->drop;
my $rows = wait_for_blockers(1);
is(scalar @$rows, 1, 'one line holds up others');
my $row = $rows->[0];
is_deeply(
	[ @$row{qw(pid datname usename application_name client_addr policy health waiting holds_xmin)} ],
	[ $victim->pid, 'postgres', 'postgres', 'victim', $host->address, 'probing', 'probing', 3, 't' ],
	'which, whose and how many: two directly, one behind another');
cmp_ok($row->{xmin_age}, '>=', 1, 'it has an xid');
cmp_ok($row->{oldest_wait}, '>', $row->{silent_for}, 'the oldest wait began before the line was dead');
cmp_ok($row->{transaction_age}, '>', $row->{oldest_wait}, 'the transaction before the wait');
cmp_ok($row->{silent_for}, '>=', 1.9, 'it is silent');
cmp_ok($row->{gives_up_in}, '>', 60, 'and will not be given up soon');
my $status = $node->status($victim->pid);
is($status->{health}, 'probing', 'as keepalive_status() says');

# --- who may see it ----------------------------------------------------------------

is_deeply(blockers($node->unix_session(user => 'nobody')), [], 'others do not see it');
is(scalar @{ blockers($node->unix_session(user => 'monitor')) }, 1, 'a monitor does');

# --- a waiter gives up ----------------------------------------------------------------

$admin->query('SELECT pg_cancel_backend(' . $waiting[2]->pid . ')');
ok(defined $waiting[2]->result->{error}, 'a waiter is cancelled');
is(blockers()->[0]{waiting}, 2, 'and no longer counted');

# --- back again ----------------------------------------------------------------------

$host->restore;
is_deeply(wait_for_blockers(0), [], 'a line that is back is no blocker');
$victim->query('COMMIT; SELECT pg_advisory_unlock_all()');
is($waiting[0]->result->{error}, undef, 'the first waiter goes on');
is($waiting[1]->result->{error}, undef, 'the second too');

# --- vacuum ------------------------------------------------------------------------

$second->query('COMMIT');
$living->query('COMMIT; SELECT pg_advisory_unlock_all()');
$_->result foreach @elsewhere;
$snapshot->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$admin->query('UPDATE t SET value = value + 1') foreach 1 .. 3;
$victim->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$host->drop;
$rows = wait_for_blockers(2);
my ($older) = grep { $_->{pid} == $snapshot->pid } @$rows;
my ($younger) = grep { $_->{pid} == $victim->pid } @$rows;
is_deeply([ @$older{qw(waiting oldest_wait holds_xmin xmin_age)} ], [ 0, undef, 't', 3 ],
	'a dead snapshot that nobody waits for holds back vacuum');
is_deeply([ @$younger{qw(waiting oldest_wait holds_xmin xmin_age)} ], [ 0, undef, 'f', 0 ],
	'a younger one does not as long as there is the older');
$admin->query("SELECT pg_terminate_backend(@{[$snapshot->pid]})");
$rows = wait_for_blockers(1);
is($rows->[0]{holds_xmin}, 't', 'then it does');

done_testing();
