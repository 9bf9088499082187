# keepalive_guard.enabled = off leaves every session PostgreSQL's own settings.  on applies
# the policies to all sessions, whenever they started.
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
kernel_has($during_off, { idle => 11 }, 'off: a session has PostgreSQL\'s own settings');
is(policy_of($node, $during_off), undef, 'off: keepalive_status() shows no policy');

switch('on');
ok(defined wait_for_kernel($during_off, { idle => 21 }, 10), 'on: the connected session gets its policy');
is(policy_of($node, $during_off), 'everybody', 'on: keepalive_status() shows the policy');
my $during_on = $node->session;
kernel_has($during_on, { idle => 21 }, 'on: a new session has the policy');

switch('off');
ok(defined wait_for_kernel($_, { idle => 11 }, 10), 'off again: a session has PostgreSQL\'s own settings') foreach $during_off, $during_on;
is($during_on->value('SHOW tcp_keepalives_idle'), 11, 'off again: SHOW shows PostgreSQL\'s own setting');
$node->wait_for_policies; # the sessions have told what they have
is($node->status($_->pid)->{tcp_keepalives_idle}, '00:00:11', 'off again: keepalive_status() shows PostgreSQL\'s own setting')
  foreach $during_off, $during_on;

done_testing();
