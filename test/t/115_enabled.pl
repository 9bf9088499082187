# keepalive_guard.enabled: off leaves every session as PostgreSQL would have it, on
# brings the policies to all, whenever they started.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(policy_of kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
keepalive_guard.enabled = off
tcp_keepalives_idle = 11
END
$node->policy(name => 'everybody', tcp_keepalives_idle => '21s');
$node->wait_for_policies;

sub switch
{
	my ($to) = @_;
	$node->append_conf('postgresql.conf', "keepalive_guard.enabled = $to\n");
	$node->reload;
	return;
}

my $during_off = $node->session;
kernel_has($during_off, { idle => 11 }, 'off: a session is as PostgreSQL would have it');
is(policy_of($node, $during_off), undef, 'and has no policy');

switch('on');
ok(defined wait_for_kernel($during_off, { idle => 21 }, 10), 'on: it has its policy');
is(policy_of($node, $during_off), 'everybody', 'as its status tells');
my $during_on = $node->session;
kernel_has($during_on, { idle => 21 }, 'so has a new one');

switch('off');
ok(defined wait_for_kernel($_, { idle => 11 }, 10), 'off again: nobody has') foreach $during_off, $during_on;
is($during_on->value('SHOW tcp_keepalives_idle'), 11, 'as SHOW tells');
is($node->status($_->pid)->{tcp_keepalives_idle}, '00:00:11', 'and status goes on to tell')
  foreach $during_off, $during_on;

done_testing();
