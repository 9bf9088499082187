# Hosts for clients.  The server is in the network namespace of the test itself
# (test/lab/isolated).  Each host is a namespace of its own, held by a sleeping process
# and connected to the server by a veth pair:
#
#   my $network = KeepaliveGuard::Network->new;
#   my $host = $network->add_host;
#   $host->address;     # 10.77.1.2     the client's address
#   $host->address6;    # fd00:77:1::2
#   $host->server;      # 10.77.1.1     the server's address, as this host sees it
#   $host->server6;     # fd00:77:1::1
#   my ($stdout, $stderr, $status) = $host->run('psql', '-h', $host->server, ...);
#   $host->drop;        # TCP packets are dropped, as of a host that lost power
#   $host->restore;
package KeepaliveGuard::Network;

use strict;
use warnings;

use KeepaliveGuard::Host;

sub new
{
	my ($class) = @_;
	die "run this test with test/run: it changes its network\n" unless $ENV{IN_LAB};
	KeepaliveGuard::Host::_must('sysctl', '-qw', 'net.ipv4.ip_local_port_range=32768 40999');
	return bless { hosts => [] }, $class;
}

# Options: network => N, between 1 and 254: the network's number in the addresses above.
sub add_host
{
	my ($self, %options) = @_;
	my $n = $options{network} // @{ $self->{hosts} } + 1;
	my $host = KeepaliveGuard::Host->new($n);
	push @{ $self->{hosts} }, $host;
	return $host;
}

1;
