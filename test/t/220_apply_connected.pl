# A committed change is in the kernel of every connected session within a second,
# whatever the session is doing.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(kernel_values kernel_values_of seconds_until);
use KeepaliveGuard::KernelSockets qw(client_socket socket_options);
use Test::More;
use Time::HiRes qw(sleep time);

my $native = '7200/75/9/0';
my $node = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 'logical', conf => "wal_sender_timeout = 0\n");
my $admin = $node->session;
$admin->query('CREATE ROLE app LOGIN REPLICATION; CREATE ROLE crew; CREATE TABLE t (i int)');
$admin->query('GRANT ALL ON t TO app');
$admin->query('CREATE PUBLICATION everything FOR ALL TABLES');
$admin->query(q{SELECT pg_create_logical_replication_slot('logical', 'pgoutput')});
my $end_of_wal = $admin->value('SELECT pg_current_wal_lsn()');

# --- sessions in every state -----------------------------------------------------------

my %session;

sub add_session
{
	my ($state, %options) = @_;
	my $sql = delete $options{sql} // [];
	my $send = delete $options{send};
	my $s = $session{$state} = $node->session(user => 'app', %options);
	$s->try($_) foreach @$sql;
	$s->send($send) if $send;
	return $s;
}

my $socket_state = <<'END';
SELECT state, wait_event_type, wait_event, backend_type FROM pg_stat_activity WHERE pid = %d
END

add_session('idle');
add_session('idle in transaction', sql => ['BEGIN; SELECT 1']);
add_session('aborted transaction', sql => [ 'BEGIN', 'SELECT 1/0' ]);
add_session('pg_sleep', send => 'SELECT pg_sleep(600)');
add_session('CPU-bound', send => 'DO $$BEGIN LOOP END LOOP; END$$');
$admin->query('BEGIN; LOCK TABLE t');
add_session('lock', send => 'SELECT * FROM t');
add_session('send', receive_buffer => 4096,
	send => q{SELECT repeat('x', 1000) FROM generate_series(1, 20000)});
add_session('COPY from the client', sql => ['CREATE TEMP TABLE c (i int)', 'COPY c FROM STDIN']);
add_session('physical walsender', replication => 'true',
	sql => ["START_REPLICATION PHYSICAL $end_of_wal"]);
add_session('logical walsender', replication => 'database',
	sql => [ 'START_REPLICATION SLOT logical LOGICAL 0/0'
		  . q{ (proto_version '1', publication_names 'everything')} ]);
add_session('idle walsender', replication => 'true');

my %expected_state = (
	'idle' => 'idle Client ClientRead client backend',
	'idle in transaction' => 'idle in transaction Client ClientRead client backend',
	'aborted transaction' => 'idle in transaction (aborted) Client ClientRead client backend',
	'pg_sleep' => 'active Timeout PgSleep client backend',
	'CPU-bound' => 'active   client backend',
	'lock' => 'active Lock relation client backend',
	'send' => 'active Client ClientWrite client backend',
	'COPY from the client' => 'active Client ClientRead client backend',
	'physical walsender' => 'active Activity WalSenderMain walsender',
	'logical walsender' => 'active Client WalSenderWaitForWAL walsender',
	'idle walsender' => 'idle Client ClientRead walsender');

my $watcher = $node->session;
foreach my $state (sort keys %expected_state)
{
	my $seen;
	seconds_until(
		5,
		sub {
			$seen = join ' ', map { $_ // '' }
			  @{ $watcher->query(sprintf $socket_state, $session{$state}->pid)->[0] };
			return lc $seen eq lc $expected_state{$state};
		});
	is(lc $seen, lc $expected_state{$state}, "a session is in state: $state");
}

my %socket = map { $_ => client_socket($session{$_}->pid, $session{$_}->port) } keys %session;

# Commits a change, and expects these values in the kernel for all sessions.
sub in_time
{
	my ($change, $expected, $commit) = @_;
	$commit->();
	my $start = time;
	my @waiting = sort keys %socket;
	seconds_until(1, sub { !(@waiting = grep { kernel_values_of($socket{$_}) ne $expected } @waiting) });
	my $took = sprintf '%.0f ms', (time - $start) * 1000;
	is_deeply([ map { "$_: " . kernel_values_of($socket{$_}) } @waiting ], [],
		"$change: $expected in all sessions within a second ($took)");
	return;
}

# The same with SQL.  Each statement is a transaction.
sub committed
{
	my ($change, $expected, @sql) = @_;
	in_time($change, $expected, sub { $watcher->query($_) foreach @sql });
	return;
}

# --- every kind of change ------------------------------------------------------------------

is(kernel_values_of($socket{$_}), $native, "a session without a policy has PostgreSQL's values: $_") foreach sort keys %socket;
committed('INSERT', '60/10/4/30000', <<'END');
INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle, tcp_keepalives_interval,
	tcp_keepalives_count, tcp_user_timeout) VALUES ('a', 'app', '60s', '10s', 4, '30s')
END
committed('UPDATE', '50/10/4/30000',
	q{UPDATE keepalive_policy SET tcp_keepalives_idle = '50s' WHERE name = 'a'});
committed('UPDATE of all settings', '51/11/5/31000', <<'END');
UPDATE keepalive_policy SET tcp_keepalives_idle = '51s', tcp_keepalives_interval = '11s',
	tcp_keepalives_count = 5, tcp_user_timeout = '31s' WHERE name = 'a'
END
committed('UPDATE of a setting to NULL', '51/75/5/31000',
	q{UPDATE keepalive_policy SET tcp_keepalives_interval = NULL});
committed('INSERT of a policy that is later in match order', '51/75/5/31000', <<'END');
INSERT INTO keepalive_policy (name, role, priority, tcp_keepalives_idle)
	VALUES ('b', 'app', 200, '40s')
END
committed('UPDATE of priority that makes a policy the first', '40/75/5/31000', q{UPDATE keepalive_policy SET priority = 50 WHERE name = 'b'});
committed('UPDATE of priority that makes a policy a later one', '51/75/5/31000',
	q{UPDATE keepalive_policy SET priority = 101 WHERE name = 'b'});
committed('DELETE', '40/75/9/0', q{DELETE FROM keepalive_policy WHERE name = 'a'});
committed('UPDATE of enabled to false', $native, 'UPDATE keepalive_policy SET enabled = false');
committed('UPDATE of enabled to true', '40/75/9/0', 'UPDATE keepalive_policy SET enabled = true');

committed('a policy for a group without the role', $native, q{UPDATE keepalive_policy SET role = '+crew'});
committed('GRANT', '40/75/9/0', 'GRANT crew TO app');
committed('REVOKE', $native, 'REVOKE crew FROM app');
committed('CREATE ROLE between the role and the group', '40/75/9/0', 'CREATE ROLE squad IN ROLE crew ROLE app');
committed('DROP ROLE between the role and the group', $native, 'DROP ROLE squad');
committed('a policy for the name of another role', $native, q{UPDATE keepalive_policy SET role = 'later'});
committed('ALTER ROLE RENAME to the name in the policy', '40/75/9/0', 'ALTER ROLE app RENAME TO later');
committed('ALTER ROLE RENAME to another name', $native, 'ALTER ROLE later RENAME TO app');
committed('a policy for another network', $native,
	q{UPDATE keepalive_policy SET role = 'app', client = '10.0.0.0/8'});
committed('a policy for the network of the sessions', '40/75/9/0', q{UPDATE keepalive_policy SET client = '127.0.0.0/8'});

foreach my $switch ([ 'off', $native ], [ 'on', '40/75/9/0' ])
{
	my ($value, $expected) = @$switch;
	in_time(
		"keepalive_guard.enabled = $value and a reload",
		$expected,
		sub {
			$watcher->query("ALTER SYSTEM SET keepalive_guard.enabled = $value");
			$watcher->query('SELECT pg_reload_conf()');
		});
}

# Only commits count.
$watcher->query(q{BEGIN; UPDATE keepalive_policy SET tcp_keepalives_idle = '39s'});
sleep 0.3;
is_deeply([ grep { kernel_values_of($_) ne '40/75/9/0' } values %socket ], [], 'no session changes before COMMIT');
$watcher->query('ROLLBACK');
sleep 0.3;
is_deeply([ grep { kernel_values_of($_) ne '40/75/9/0' } values %socket ], [], 'no session changes after ROLLBACK');
committed('COMMIT of many edits', '30/31/9/0', <<'END');
BEGIN;
INSERT INTO keepalive_policy (name, priority) VALUES ('first', 1);
SAVEPOINT s;
UPDATE keepalive_policy SET tcp_keepalives_idle = '29s' WHERE name = 'b';
ROLLBACK TO s;
UPDATE keepalive_policy SET tcp_keepalives_idle = '30s' WHERE name = 'b';
DELETE FROM keepalive_policy WHERE name = 'first';
UPDATE keepalive_policy SET tcp_keepalives_interval = '31s' WHERE name = 'b';
COMMIT
END
committed('COPY', '20/31/9/0', <<'END');
COPY keepalive_policy (name, priority, role, tcp_keepalives_idle) FROM PROGRAM 'printf "c\\t1\\tapp\\t20 s\\n"'
END

# SO_KEEPALIVE: PostgreSQL has no setting for it.
my $keepalive_is = sub {
	my ($wanted) = @_;
	return seconds_until(2,
		sub { !grep { socket_options($_->pid, $_->port)->{keepalive} != $wanted } values %session });
};
$watcher->query(q{UPDATE keepalive_policy SET keepalive = false WHERE name = 'c'});
cmp_ok($keepalive_is->(0) // 9, '<', 1, 'keepalive = false switches SO_KEEPALIVE off within a second');
$watcher->query(q{UPDATE keepalive_policy SET keepalive = NULL WHERE name = 'c'});
cmp_ok($keepalive_is->(1) // 9, '<', 1, 'keepalive = NULL switches SO_KEEPALIVE on again within a second');

# --- SHOW agrees with the kernel from the next command on -------------------------------------

# With different commands as the next one.
is($session{'idle in transaction'}->value('SHOW tcp_keepalives_idle'), 20, 'SHOW in a transaction shows the policy\'s value');
is($session{'idle'}->value(q{SELECT current_setting('tcp_keepalives_idle')}), 20, 'current_setting() shows the policy\'s value');
is($session{'idle walsender'}->value('SHOW tcp_keepalives_idle'), 20, 'SHOW in a walsender shows the policy\'s value');
$session{'aborted transaction'}->query('ROLLBACK');
is($session{'aborted transaction'}->value(
		q{SELECT setting || ' ' || source FROM pg_settings WHERE name = 'tcp_keepalives_idle'}),
	'20 global', 'pg_settings shows the policy\'s value and its source');

committed('TRUNCATE', $native, 'TRUNCATE keepalive_policy');
is($session{'idle'}->value('SHOW tcp_keepalives_idle'), 7200, 'SHOW shows PostgreSQL\'s value after TRUNCATE');
is($session{'idle in transaction'}->value(
		q{SELECT setting || ' ' || source FROM pg_settings WHERE name = 'tcp_keepalives_idle'}),
	'7200 default', 'pg_settings shows PostgreSQL\'s value and source after TRUNCATE');

# --- policy changes do not disturb sessions ------------------------------------------------------

my $sleeper = $node->session(user => 'app');
my $start = time;
$sleeper->send('SELECT pg_sleep(1.5), 42');
foreach my $idle (1 .. 50)
{
	$watcher->query('TRUNCATE keepalive_policy');
	$watcher->query("INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('x', '$idle s')");
}
is_deeply($sleeper->result->{rows}, [ [ '', 42 ] ], 'pg_sleep() returns normally during policy changes');
cmp_ok(time - $start, '>=', 1.5, 'pg_sleep() lasts as long as without policy changes');
committed('the last of many edits', '50/75/9/0', 'SELECT 1');
$admin->query('COMMIT');
is($session{lock}->result->{error}, undef, 'a session that waited for a lock gets it');
is(scalar @{ $session{send}->result->{rows} }, 20_000, 'a result whose client paused is complete');
is($session{$_}->value('SELECT 1'), 1, "a session works after the policy changes: $_") foreach 'idle', 'idle in transaction';
is($watcher->value('SELECT count(*) FROM pg_stat_replication'), 3, 'the walsenders are still connected');

# --- the client check, which takes effect with the session's next command ----------------------

foreach my $kind ('TCP', 'Unix socket')
{
	my @options = $kind eq 'TCP' ? () : (socket => $node->host);
	$watcher->query('TRUNCATE keepalive_policy');
	$node->wait_for_policies;
	my ($idle, $transaction, $shown) = map { $node->session(user => 'app', @options) } 1 .. 3;
	$transaction->query('BEGIN; SELECT 1');
	$watcher->query(<<'END');
INSERT INTO keepalive_policy (name, client_connection_check_interval) VALUES ('check', '100ms')
END
	$node->wait_for_policies;
	is($shown->value('SHOW client_connection_check_interval'), '100ms', "$kind: the next command shows the new client check");
	foreach my $s ($idle, $transaction)
	{
		$s->send('SELECT pg_sleep(60)');
		sleep 0.1;
		$s->vanish;
		ok(defined $node->wait_for_exit($s->pid, 20), "$kind: the new client check is in force during the next command");
	}
}

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
