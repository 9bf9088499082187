# What is replayed last before recovery ends is in force afterwards: after a promotion,
# and after a restore to a point in time.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(wait_for_kernel);
use Test::More;
use Time::HiRes 'time';

my $primary = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1, has_archiving => 1);
$primary->policy(name => 'a', tcp_keepalives_idle => '21s');
$primary->backup('base');

sub set_idle
{
	my ($seconds) = @_;
	$primary->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '$seconds s'");
	return;
}

sub pid_of
{
	my ($node, $name) = @_;
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'keepalive_guard $name'");
}

# Starts a standby, and waits until a session there has its policy.
sub start_standby
{
	my ($name, $idle) = @_;
	my $standby = KeepaliveGuard::Cluster->new($name);
	$standby->init_from_backup($primary, 'base', has_streaming => 1);
	$standby->start;
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	my $session = $standby->session;
	ok(defined wait_for_kernel($session, { idle => $idle }, 10), "$name: a policy is in force");
	return ($standby, $session);
}

# Ends recovery while a process is stopped, and then lets it continue.  From 19 on,
# recovery has replayed everything by then, and waits for the process.
sub promote_with_stopped
{
	my ($standby, $pid) = @_;
	$standby->safe_psql('postgres', 'SELECT pg_promote(wait => false)');
	ok($standby->poll_query_until('postgres', <<'END'), 'everything is replayed');
SELECT NOT pg_is_in_recovery() OR EXISTS (SELECT FROM pg_stat_activity
    WHERE backend_type = 'startup' AND wait_event = 'ProcSignalBarrier')
END
	kill 'CONT', $pid;
	return;
}

# --- promotion ------------------------------------------------------------------------

# As it is in practice: within the second in which the reader does not look.
my ($standby, $session) = start_standby('promoted', 21);
set_idle(22);
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$standby->promote;
ok(defined wait_for_kernel($session, { idle => 22 }, 20), 'the last change before a promotion is in force');
ok($standby->poll_query_until('postgres',
		q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ 'policy reader'}),
	'the policy reader exits');
$standby->stop;

# The reader does not get to look until recovery has ended.
($standby, $session) = start_standby('reader_stopped', 22);
my $reader = pid_of($standby, 'policy reader');
kill 'STOP', $reader;
set_idle(23);
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
promote_with_stopped($standby, $reader);
ok(defined wait_for_kernel($session, { idle => 23 }, 20), 'the policy reader notices the end of recovery');
$standby->stop;

# There is no reader, and the worker does not get to look.
($standby, $session) = start_standby('worker_stopped', 23);
my $worker = pid_of($standby, 'worker');
kill 'STOP', $worker;
$reader = pid_of($standby, 'policy reader');
kill 'TERM', $reader;
ok(defined $standby->wait_for_exit($reader, 10), 'the policy reader is terminated');
set_idle(24);
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
promote_with_stopped($standby, $worker);
ok(defined wait_for_kernel($session, { idle => 24 }, 20), 'the worker notices the end of recovery');
$standby->stop;

# --- restore to a point in time --------------------------------------------------------

set_idle(25);
my $committed = time;
$primary->safe_psql('postgres', q{SELECT pg_create_restore_point('wanted')});
set_idle(26);
my $segment = $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
$primary->poll_query_until('postgres', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver")
  or die "WAL is not archived\n";

foreach my $hot_standby ('on', 'off')
{
	my $restored = KeepaliveGuard::Cluster->new("restored_$hot_standby");
	# With time to read the policies of the base backup, as when there is much to replay.
	my $delay = int(1000 * (time - $committed + 3));
	$restored->init_from_backup($primary, 'base', has_restoring => 1, standby => 0);
	$restored->append_conf('postgresql.conf', <<"END");
hot_standby = $hot_standby
recovery_target_name = 'wanted'
recovery_target_timeline = 'current' # not that of a standby which was promoted
recovery_target_action = 'promote'
recovery_min_apply_delay = '$delay ms'
END
	$restored->start;
	$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die "recovery does not end\n";
	$session = $restored->session;
	ok(defined wait_for_kernel($session, { idle => 25 }, 20),
		"hot_standby = $hot_standby: the policies of the wanted point in time are in force");
	is($restored->log_count(qr/PANIC|TRAP/), 0, 'the server log has no crash');
	$restored->stop;
}

done_testing();
