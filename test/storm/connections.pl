# Many connections that end in every way, with edits of policies, role changes, and
# processes that are killed in between.  In the end no slot is leaked, no row was wrong,
# the policies are in force everywhere, keepalive_events() and keepalive_stats() have what
# the clients did, and no process has grown.  STORM_CONNECTIONS in the environment is the
# number of connections.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Storm;
use Test::More;

my $all = $ENV{STORM_CONNECTIONS};
my $network = KeepaliveGuard::Network->new;
KeepaliveGuard::Storm::return_freed_memory();
my $node = KeepaliveGuard::Cluster->start_new('primary', conf => KeepaliveGuard::Storm::conf($all));
KeepaliveGuard::Storm->create_roles($node->unix_session);
my $storm = KeepaliveGuard::Storm->new($node,
	processes => 4, first_port => 10_000, hosts => [ map { $network->add_host } 1 .. 2 ]);
$storm->open_sessions;
$storm->edit_policies;
$node->wait_for_policies;

$storm->run_part('to begin with', $all * 0.05);

# The worker and the sessions that stay live through all of this part.
my $before = $storm->memory;
$storm->run_part('without crash', $all * 0.3);
$storm->check_memory('without crash', $before);

$storm->run_part('workers terminated', $all * 0.1, terminate_workers => 1);
foreach my $round (1 .. 3)
{
	$storm->run_part("$_ killed, $round", $all * 0.04, crash => $_)
	  foreach 'client backend', 'keepalive_guard worker', 'keepalive_guard policy reader';
}

$storm->run_part('after the crashes', $all * 0.03);
$before = $storm->memory;
$storm->run_part('in the end', $all * 0.16);
$storm->check_memory('in the end', $before);
$storm->check_room;
$storm->check_log;
note $storm->summary;

done_testing();
