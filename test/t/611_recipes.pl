# doc/recipes.md: a plan for a path with an idle timeout keeps its connections open, whether
# the device forgets them silently or answers with a reset; without a policy they are lost.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Router;
use KeepaliveGuard::Network;
use Test::More;
use Time::HiRes 'sleep';

my $network = KeepaliveGuard::Network->new;
my %router = (
	silent => KeepaliveGuard::Router->new(201, forgets_after => 5),
	reset => KeepaliveGuard::Router->new(202, forgets_after => 5, answer => 'reject with tcp reset'));
my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->unix_session;
$admin->query('CREATE ROLE kept LOGIN; CREATE ROLE alone LOGIN');
$admin->query($admin->value(q{SELECT policy FROM keepalive_plan('15 s', '5 s')}));
$admin->query(q{UPDATE keepalive_policy SET role = 'kept'});
$node->wait_for_policies;

my %session;
foreach my $kind (keys %router)
{
	$session{$kind}{$_} = $node->session(host => $router{$kind}, user => $_) foreach qw(kept alone);
}
sleep 8;
foreach my $kind (sort keys %router)
{
	is($session{$kind}{kept}->value('SELECT 1', timeout => 5), 1, "$kind: with the plan's policy the connection is open after 8 s");
	ok(!eval { $session{$kind}{alone}->query('SELECT 1', timeout => 3); 1 }, "$kind: without it, it is lost");
}
is($admin->value(q{SELECT count(*) FROM keepalive_events() WHERE usename = 'kept'}), 0, 'no session with the policy has ended');

done_testing();
