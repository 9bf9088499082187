# Policies on a streaming standby, and after its promotion.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(kernel_values seconds_until);
use Test::More;

my $native = '7200/75/9/0';
my $primary = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1);
my $admin = $primary->session;
$admin->query('CREATE ROLE app LOGIN; CREATE ROLE locked LOGIN; CREATE ROLE crew');
$admin->query('CREATE DATABASE other');
$primary->policy(name => 'app', role => 'app', tcp_keepalives_idle => '60s', tcp_user_timeout => '30s');
$primary->policy(name => 'locked', role => 'locked', enforcement => 'locked', tcp_keepalives_idle => '61s');

$primary->backup('base');
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
# Lest long queries there be in the way of replay.
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1s\n");
$standby->start;

# Waits until that is in the kernel of all of these sessions; fails after some seconds.
sub arrives
{
	my ($name, $seconds, $expected, @sessions) = @_;
	my $took = seconds_until($seconds,
		sub { !grep { kernel_values($_) ne $expected } @sessions });
	my ($wrong) = grep { $_ ne $expected } map { kernel_values($_) } @sessions;
	is($wrong // $expected, $expected, $name . sprintf ' (%.1f s)', $took // $seconds);
	return;
}

# --- from the start ----------------------------------------------------------------------

my $here = $primary->session(user => 'app');
my $there = $standby->session(user => 'app');
is($there->value('SELECT pg_is_in_recovery()'), 't', 'there is a standby');
arrives('a policy is in force there', 5, '60/75/9/30000', $there);
$there = $standby->session(user => 'app');
is(kernel_values($there), '60/75/9/30000', 'for a new session at once');
my $other = $standby->session(user => 'app', dbname => 'other');
is(kernel_values($other), '60/75/9/30000', 'in every database');
my $locked = $standby->session(user => 'locked');
is($locked->try('SET tcp_keepalives_idle = 5')->{error}{sqlstate}, '42501', 'a locked one is locked');
is($standby->status($there->pid)->{policy}, 'app', 'keepalive_status() tells');
my $walreceiver = $admin->value(q{SELECT pid FROM pg_stat_replication});
is($primary->status($walreceiver)->{policy}, undef, 'the primary\'s walsender has none');

# --- live ------------------------------------------------------------------------------------

my $sleeper = $standby->session(user => 'app');
$sleeper->send('SELECT pg_sleep(600)');
my $transaction = $standby->session(user => 'app');
$transaction->query('BEGIN; SELECT 1');
ok($primary->poll_query_until('postgres', 'SELECT backend_xmin IS NOT NULL FROM pg_stat_replication'),
	'the primary knows of the queries on the standby');
my @there = ($there, $other, $sleeper, $transaction);

my @changes = (
	[ 'UPDATE', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '50s' WHERE name = 'app'}, '50/75/9/30000' ],
	[
		'INSERT',
		q{INSERT INTO keepalive_policy (name, priority, role, tcp_keepalives_idle)
			VALUES ('first', 1, 'app', '40s')},
		'40/75/9/0' ],
	[ 'DELETE', q{DELETE FROM keepalive_policy WHERE name = 'first'}, '50/75/9/30000' ],
	[ 'TRUNCATE', 'TRUNCATE keepalive_policy', $native ],
	[
		'COPY',
		q{COPY keepalive_policy (name, role, tcp_keepalives_idle) FROM PROGRAM 'printf "a\\tapp\\t30s\\n"'},
		'30/75/9/0' ],
	[ 'DROP EXTENSION', 'DROP EXTENSION keepalive_guard', $native ],
	[
		'CREATE EXTENSION and a policy',
		q{CREATE EXTENSION keepalive_guard;
			INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('a', '20s')},
		'20/75/9/0' ]);
foreach my $change (@changes)
{
	my ($name, $sql, $expected) = @$change;
	$admin->query($sql);
	arrives("$name: on the primary", 1, $expected, $here);
	arrives("$name: on the standby", 3, $expected, @there);
}
is($there->value('SHOW tcp_keepalives_idle'), 20, 'SHOW agrees');

# Membership, which no table of ours tells of.
$admin->query(q{UPDATE keepalive_policy SET role = '+crew'});
arrives('a policy for a group', 3, $native, @there);
$admin->query('GRANT crew TO app');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$standby->session->query('SELECT * FROM keepalive_apply()');
arrives('GRANT on the primary and keepalive_apply() on the standby', 1, '20/75/9/0', @there);
$admin->query('UPDATE keepalive_policy SET role = NULL');

# A switch of its own.
$standby->append_conf('postgresql.conf', 'keepalive_guard.enabled = off');
$standby->reload;
arrives('off on the standby alone', 1, $native, @there);
$admin->query('SELECT * FROM keepalive_apply()');
is(kernel_values($here), '20/75/9/0', 'is not off on the primary');
$standby->append_conf('postgresql.conf', 'keepalive_guard.enabled = on');
$standby->reload;
arrives('on again', 1, '20/75/9/0', @there);

# --- read only ------------------------------------------------------------------------------

my $reader = $standby->session;
is($reader->try($_)->{error}{sqlstate}, '25006', "PostgreSQL refuses $_ there")
  foreach q{INSERT INTO keepalive_policy (name) VALUES ('x')},
  'DELETE FROM keepalive_policy', 'TRUNCATE keepalive_policy';

# --- a restart of the standby ------------------------------------------------------------------

$standby->restart;
$there = $standby->session(user => 'app');
arrives('after a restart', 3, '20/75/9/0', $there);
$sleeper = $standby->session(user => 'app');
$sleeper->send('SELECT pg_sleep(600)');

# --- promotion ------------------------------------------------------------------------------------

$standby->promote;
is(kernel_values($there), '20/75/9/0', 'promotion changes nothing');
my $new = $standby->session;
$new->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '10s'});
arrives('the table is writable there, and a change is in force', 1, '10/75/9/0', $there, $sleeper);
is(kernel_values($here), '20/75/9/0', 'but not on the old primary');
$new->query('DELETE FROM keepalive_policy');
arrives('so is the next', 1, $native, $there, $sleeper);
$new->query(q{INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('a', '11s')});
arrives('and the next', 1, '11/75/9/0', $there, $sleeper);
is($new->value('SELECT pending FROM keepalive_apply()'), 0, 'all is confirmed');

is($_->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash')
  foreach $primary, $standby;

done_testing();
