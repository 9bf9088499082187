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
# So that long queries on the standby do not delay replay.
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\nwal_receiver_status_interval = 1s\n");
$standby->start;

# Tests that the kernel has these values for all of these sessions within some seconds.
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
is($there->value('SELECT pg_is_in_recovery()'), 't', 'the standby is in recovery');
arrives('a policy is in force on the standby', 20, '60/75/9/30000', $there);
$there = $standby->session(user => 'app');
is(kernel_values($there), '60/75/9/30000', 'a new session on the standby has its policy at once');
my $other = $standby->session(user => 'app', dbname => 'other');
is(kernel_values($other), '60/75/9/30000', 'a policy is in force in another database of the standby');
my $locked = $standby->session(user => 'locked');
is($locked->try('SET tcp_keepalives_idle = 5')->{error}{sqlstate}, '42501', 'a locked policy is enforced on the standby');
is($standby->status($there->pid)->{policy}, 'app', 'keepalive_status() on the standby shows the policy');
like($there->try('SELECT keepalive_report()')->{error}{sqlstate} // '', qr/42501/, 'an ordinary role cannot make the report on the standby');
like($standby->safe_psql('postgres', 'SELECT keepalive_report()'), qr{ standby .*<th scope="row"><bdi>app</bdi></th>}s,
	'keepalive_report() on the standby shows the policy');
$primary->poll_query_until('postgres', 'SELECT count(*) = 1 FROM pg_stat_replication') or die "no replication\n";
my $walreceiver = $admin->value(q{SELECT pid FROM pg_stat_replication});
is($primary->status($walreceiver)->{policy}, undef, 'the primary\'s walsender has no policy');

# --- changes ---------------------------------------------------------------------------------

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
		'40/75/9/30000' ],
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
is($there->value('SHOW tcp_keepalives_idle'), 20, 'SHOW on the standby shows the policy\'s value');

# Membership in a group is not in the policy table.
$admin->query(q{UPDATE keepalive_policy SET role = '+crew'});
arrives('a policy for a group does not apply to other roles', 3, $native, @there);
$admin->query('GRANT crew TO app');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$standby->session->query('SELECT * FROM keepalive_apply()');
arrives('GRANT on the primary and keepalive_apply() on the standby', 1, '20/75/9/0', @there);
$admin->query('UPDATE keepalive_policy SET role = NULL');

# The standby has its own keepalive_guard.enabled.
$standby->append_conf('postgresql.conf', 'keepalive_guard.enabled = off');
$standby->reload;
arrives('enabled = off on the standby restores PostgreSQL\'s values there', 1, $native, @there);
$admin->query('SELECT * FROM keepalive_apply()');
is(kernel_values($here), '20/75/9/0', 'enabled = off on the standby does not affect the primary');
$standby->append_conf('postgresql.conf', 'keepalive_guard.enabled = on');
$standby->reload;
arrives('enabled = on applies the policies on the standby again', 1, '20/75/9/0', @there);

# --- read only ------------------------------------------------------------------------------

my $reader = $standby->session;
is($reader->try($_)->{error}{sqlstate}, '25006', "the standby refuses $_")
  foreach q{INSERT INTO keepalive_policy (name) VALUES ('x')},
  'DELETE FROM keepalive_policy', 'TRUNCATE keepalive_policy';

# --- a restart of the standby ------------------------------------------------------------------

$standby->restart;
$there = $standby->session(user => 'app');
arrives('a policy is in force after a restart of the standby', 20, '20/75/9/0', $there);
$sleeper = $standby->session(user => 'app');
$sleeper->send('SELECT pg_sleep(600)');

# --- promotion ------------------------------------------------------------------------------------

$standby->promote;
is(kernel_values($there), '20/75/9/0', 'promotion does not change a session');
my $new = $standby->session;
$new->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '10s'});
arrives('an UPDATE on the promoted server is in force there', 1, '10/75/9/0', $there, $sleeper);
is(kernel_values($here), '20/75/9/0', 'an UPDATE on the promoted server does not affect the old primary');
$new->query('DELETE FROM keepalive_policy');
arrives('a DELETE on the promoted server is in force', 1, $native, $there, $sleeper);
$new->query(q{INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('a', '11s')});
arrives('an INSERT on the promoted server is in force', 1, '11/75/9/0', $there, $sleeper);
is($new->value('SELECT pending FROM keepalive_apply()'), 0, 'no session of the promoted server is pending');

is($_->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash')
  foreach $primary, $standby;

done_testing();
