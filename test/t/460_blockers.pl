# keepalive_blockers: sessions with a dead connection that hold a lock for which others
# wait, directly or indirectly, or that hold back vacuum.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $other = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary', conf => "max_prepared_transactions = 2\nautovacuum = off\n");
my $admin = $node->unix_session;
$admin->query(<<'END');
CREATE TABLE t AS SELECT 1 AS id, 0 AS value;
CREATE TABLE u ();
CREATE ROLE nobody LOGIN;
CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
END

# Probes soon and many times, so that the state stays the same during the test.
$node->policy(
	name => 'probing', tcp_keepalives_idle => '2s', tcp_keepalives_interval => '1s',
	tcp_keepalives_count => 100);
$node->wait_for_policies;

my @columns = qw(pid datname usename application_name client_addr policy health
  silent_for gives_up_in waiting oldest_wait transaction_age holds_xmin xmin_age);

# The rows, [ { column => value } ], ordered by pid, with intervals in seconds.
sub blockers
{
	my ($session) = @_;
	my $rows = ($session // $admin)->query(<<'END');
SELECT pid, datname, usename, application_name, host(client_addr), policies[1], health,
	extract(epoch FROM silent_for), extract(epoch FROM gives_up_in), waiting,
	extract(epoch FROM oldest_wait), extract(epoch FROM transaction_age), holds_xmin, xmin_age
FROM keepalive_blockers ORDER BY pid
END
	return [ map { my %row; @row{@columns} = @$_; \%row } @$rows ];
}

# Waits until there are this many rows.  Returns the last rows seen.
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
# These wait for the session whose connection is not lost.
my @elsewhere = map { started_waiting($node->unix_session, $_) }
  'SELECT * FROM u', 'SELECT pg_advisory_lock_shared(8)';
sleep 2.5; # so that a probe is answered after they began to wait

is_deeply(wait_for_blockers(0), [], 'keepalive_blockers is empty while all connections are alive');
my $plan = join "\n", map { $_->[0] } @{ $admin->query('EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM keepalive_blockers') };
like($plan, qr/Function Scan on pg_lock_status[^\n]*\(never executed\)/, 'keepalive_blockers does not read locks while all connections are alive');
unlike($plan, qr/JIT:/, 'keepalive_blockers does not use JIT compilation');

# --- a dead connection ----------------------------------------------------------

$host->drop;
my $rows = wait_for_blockers(1);
is(scalar @$rows, 1, 'one session with a dead connection blocks others');
my $row = $rows->[0];
is_deeply(
	[ @$row{qw(pid datname usename application_name client_addr policy health waiting holds_xmin)} ],
	[ $victim->pid, 'postgres', 'postgres', 'victim', $host->address, 'probing', 'probing', 3, 't' ],
	'the row has the session, its health and its waiters, two direct and one indirect');
cmp_ok($row->{xmin_age}, '>=', 1, 'xmin_age of the blocker with a transaction ID is positive');
cmp_ok($row->{oldest_wait}, '>', $row->{silent_for}, 'the oldest wait is longer than the silence');
cmp_ok($row->{transaction_age}, '>', $row->{oldest_wait}, 'the transaction is older than the oldest wait');
cmp_ok($row->{silent_for}, '>=', 1.9, 'the blocker\'s client is silent');
cmp_ok($row->{gives_up_in}, '>', 60, 'the blocker\'s client is not given up soon');
my $status = $node->status($victim->pid);
is($status->{health}, 'probing', 'keepalive_status() shows the same health');

# --- the same in keepalive_metrics and keepalive_top ------------------------------------

is_deeply(
	$admin->query(<<'END'), [ [ 'blocked_sessions', 3, 't' ], [ 'blockers', 1, 't' ], [ 'longest_blocked_seconds', undef, 't' ], [ 'xmin_holders', 1, 't' ] ],
SELECT substr(name, 17), CASE WHEN name !~ 'seconds' THEN value END,
	name !~ 'seconds' OR value BETWEEN 1 AND (SELECT extract(epoch FROM max(oldest_wait)) FROM keepalive_blockers)
FROM keepalive_metrics WHERE name ~ 'block|xmin' ORDER BY 1
END
	'keepalive_metrics counts the blocker and its waiters');
is_deeply(
	$admin->query(q{SELECT m.labels ->> 'state', m.name, m.value::numeric(20, 3) FROM keepalive_metrics AS m WHERE name ~ 'detection' ORDER BY 1, 2}),
	$admin->query(<<'END'), 'keepalive_metrics has the worst detection times of remote clients');
SELECT state, 'keepalive_guard_detection_' || kind,
	CASE kind WHEN 'worst_seconds' THEN coalesce(extract(epoch FROM max(detects)), 0) ELSE count(*) - count(detects) END::numeric(20, 3)
FROM keepalive_status() CROSS JOIN LATERAL (VALUES ('idle', detects_idle), ('busy', detects_busy)) AS d (state, detects)
	CROSS JOIN (VALUES ('worst_seconds'), ('unlimited_sessions')) AS k (kind)
WHERE client_addr <<= '10.77.0.0/16' GROUP BY state, kind ORDER BY 1, 2
END
is_deeply(
	$admin->query('SELECT pid, client, state, health, waits FROM keepalive_top LIMIT 1'), [ [ $victim->pid, $host->address, 'in txn', 'probing', 3 ] ],
	'keepalive_top has the blocker first') or diag(map { join(' | ', map { $_ // '' } @$_) . "\n" } @{ $admin->query('TABLE keepalive_top') });

# --- who may see it ----------------------------------------------------------------

is_deeply(blockers($node->unix_session(user => 'nobody')), [], 'an ordinary role does not see the blocker');
is(scalar @{ blockers($node->unix_session(user => 'monitor')) }, 1, 'pg_monitor sees the blocker');

# --- the report -------------------------------------------------------------------------

# The other sessions that have lost their client are probed too by now, and those of the roles
# above have ended.
seconds_until(20, sub { join(' ', @{ $admin->query(q{SELECT count(*), count(*) FILTER (WHERE health = 'probing') FROM keepalive_status()})->[0] }) eq '10 3' })
  // die "not ten sessions\n";
my $report = $node->unix_session(user => 'monitor', application_name => 'a<b')->value('SELECT keepalive_report()');
# Without tags and attributes.
my $text = $report =~ s/<[^>]*>/ /gr =~ s/\s+/ /gr;
like($text, qr/ 3 of 11 clients do not answer; 3 sessions are blocked /, 'keepalive_report() has the numbers in its headline');
like($text, qr/ Blocked sessions .* victim postgres on postgres , \Q@{[$host->address]}\E:@{[$victim->port]}, pid @{[$victim->pid]} Its client has been silent for \d.*? \(probing\)\. It is given up within 1 min .*?\. Its transaction has been open for .*? It keeps vacuum from removing old rows\. 3 sessions wait for it /,
	'keepalive_report() shows the blocker');
like($text, qr/ pid @{[$waiting[$_->[0]]->pid]} $_->[1] \d/, "keepalive_report() shows that a session waits $_->[1]")
  foreach [ 0, 'directly' ], [ 1, 'directly' ], [ 2, "behind pid @{[$second->pid]}" ];

# --- a waiting session is cancelled ---------------------------------------------------

$admin->query('SELECT pg_cancel_backend(' . $waiting[2]->pid . ')');
ok(defined $waiting[2]->result->{error}, 'a waiting session is cancelled');
is(blockers()->[0]{waiting}, 2, 'a cancelled session is not counted');

# --- the connection works again -------------------------------------------------------

$host->restore;
is_deeply(wait_for_blockers(0), [], 'a session whose connection works again is not a blocker');
$victim->query('COMMIT; SELECT pg_advisory_unlock_all()');
is($waiting[0]->result->{error}, undef, 'the first waiting session gets its lock');
is($waiting[1]->result->{error}, undef, 'the second waiting session gets its lock');

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
	'a dead session with the oldest snapshot holds back vacuum');
is_deeply([ @$younger{qw(waiting oldest_wait holds_xmin xmin_age)} ], [ 0, undef, 'f', 0 ],
	'a dead session with a newer snapshot does not hold back vacuum');
$admin->query("SELECT pg_terminate_backend(@{[$snapshot->pid]})");
seconds_until(20, sub { $rows = blockers(); @$rows == 1 && $rows->[0]{holds_xmin} eq 't' });
is($rows->[0]{holds_xmin}, 't', 'the newer snapshot holds back vacuum once the older one is gone');

done_testing();
