# A client's host behind a router, each in a namespace of its own.  The router tracks
# connections (netfilter's conntrack) and forgets those that are idle for too long.
#
#   my $client = KeepaliveGuard::Router->new(20, forgets_after => 3);
#   $node->session(host => $client);     # as with any KeepaliveGuard::Host
#   $client->forget_after(5);            # another time
package KeepaliveGuard::Router;

use strict;
use warnings;
use parent 'KeepaliveGuard::Host';

# N is a number that no other host of the network has.  Options: forgets_after =>
# seconds (default: days); answer: what the router does with a packet of a connection that it has
# forgotten, as an nft statement (default "drop").
sub new
{
	my ($class, $n, %options) = @_;
	my $router = KeepaliveGuard::Host->new($n);
	my $pid = KeepaliveGuard::Host::namespace();
	my $self = bless { n => $n, pid => $pid, router => $router }, $class;

	$router->_must_here('ip', 'link', 'add', 'client', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', $pid);
	$router->_must_here('ip', 'link', 'set', 'client', 'up');
	$router->_must_here('ip', 'address', 'add', "10.78.$n.1/24", 'dev', 'client');
	$router->_must_here('sysctl', '-qw', 'net.ipv4.ip_forward=1');
	$self->_must_here('ip', 'link', 'set', 'eth0', 'up');
	$self->_must_here('ip', 'address', 'add', $self->address . '/24', 'dev', 'eth0');
	$self->_must_here('ip', 'route', 'add', 'default', 'via', "10.78.$n.1");
	$self->_own_ports;
	KeepaliveGuard::Host::_must('ip', 'route', 'add', "10.78.$n.0/24", 'via', $router->address);

	my $answer = $options{answer} // 'drop';
	$router->_nft(<<"END");
table inet lab {
	chain pass { type filter hook forward priority 0; ct state invalid $answer; }
}
END
	# Without "loose", a packet of an unknown connection is invalid unless it is a SYN.
	$router->_must_here('sysctl', '-qw', 'net.netfilter.nf_conntrack_tcp_loose=0');
	$self->forget_after($options{forgets_after}) if defined $options{forgets_after};
	return $self;
}

# From now on, the router forgets connections that are idle for this many seconds; one
# that is open already, once a packet has passed.
sub forget_after
{
	my ($self, $seconds) = @_;
	$self->{router}->_must_here('sysctl', '-qw', "net.netfilter.nf_conntrack_tcp_timeout_established=$seconds");
	return;
}

sub address { return "10.78.$_[0]{n}.2" }

1;
