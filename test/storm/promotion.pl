# Many connections to a primary and to its standby, with edits of policies on the primary,
# crashes of the standby, and its promotion in the middle.  What is tested is the same as
# in connections.pl.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Storm;
use Test::More;

my $each = $ENV{STORM_CONNECTIONS} / 2;
my $network = KeepaliveGuard::Network->new;
KeepaliveGuard::Storm::return_freed_memory();
my $primary = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 1, conf => KeepaliveGuard::Storm::conf($each));
KeepaliveGuard::Storm->create_roles($primary->unix_session);
$primary->backup('base');
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
# So that queries on the standby are not cancelled.
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\n");
$standby->start;

my @storms = map {
	my ($node, $first_port) = @$_;
	KeepaliveGuard::Storm->new($node, processes => 2, first_port => $first_port, hosts => [ $network->add_host ])
} [ $primary, 10_000 ], [ $standby, 20_000 ];
my ($on_primary, $on_standby) = @storms;
$on_primary->open_sessions;
$on_primary->edit_policies;
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
$on_standby->open_sessions;
my @follows = (follows => $on_primary);

sub run_both
{
	my ($meanwhile) = @_;
	while (my @running = grep { !$_->is_over } @storms)
	{
		$_->step foreach @running;
		$meanwhile->() if $meanwhile;
	}
	$_->end_part foreach @storms;
	return;
}

# --- a standby --------------------------------------------------------------------------

foreach my $crash (undef, 'client backend', 'keepalive_guard worker')
{
	my $name = $crash ? "$crash of the standby killed" : 'before';
	$on_primary->begin_part("primary, $name", $each * 0.1);
	$on_standby->begin_part("standby, $name", $each * 0.1, @follows, $crash ? (crash => $crash) : ());
	run_both();
}

# --- promotion ----------------------------------------------------------------------------

$on_primary->begin_part('primary, promotion', $each * 0.4);
$on_standby->begin_part('standby, promotion', $each * 0.4, @follows);
my $promoted;
run_both(sub {
	return if $promoted || $on_standby->connections < $each * 0.2;
	$on_primary->edit_policies;
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	$standby->promote;
	$promoted = 1;
	$on_standby->stop_following;
	is_deeply([ $on_standby->late_sessions ], [], 'promotion: every session has the last policy of the primary');
});
ok($promoted, 'the standby is promoted while clients connect');

# --- two servers ------------------------------------------------------------------------------

$on_primary->begin_part('old primary, crash', $each * 0.15, crash => 'keepalive_guard worker');
$on_standby->begin_part('promoted server, crash', $each * 0.15, crash => 'client backend');
run_both();
$on_primary->begin_part('old primary, in the end', $each * 0.15, terminate_workers => 1);
$on_standby->begin_part('promoted server, in the end', $each * 0.15, terminate_workers => 1);
run_both();
foreach my $storm (@storms)
{
	$storm->check_room;
	$storm->check_log;
	note $storm->summary;
}

done_testing();
