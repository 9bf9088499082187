# A host for clients, made by KeepaliveGuard::Network.
package KeepaliveGuard::Host;

use strict;
use warnings;

use IPC::Run ();
use Time::HiRes 'usleep';

{
	package main; # loaded once, so its functions must be in main
	require 'syscall.ph';
}

use constant CLONE_NEWNET => 0x40000000;

my $test_process = $$;

sub new
{
	my ($class, $n) = @_;
	my $pid = namespace();
	my $self = bless { n => $n, pid => $pid }, $class;

	_must('ip', 'link', 'add', "veth$n", 'type', 'veth', 'peer', 'name', 'eth0', 'netns', $pid);
	_must('ip', 'link', 'set', "veth$n", 'up');
	_must('ip', 'address', 'add', $self->server . '/24', 'dev', "veth$n");
	_must('ip', 'address', 'add', $self->server6 . '/64', 'dev', "veth$n", 'nodad');
	$self->_must_here('ip', 'link', 'set', 'lo', 'up');
	$self->_up;
	$self->_own_ports;
	return $self;
}

# No other host has the ports from which this host's clients connect, and the server's own
# host has others too (KeepaliveGuard::Network): a client's port tells its connection.  The
# kernel takes them separately for IPv4 and IPv6, so sessions over IPv6 have their own here.
my $first_port = 41_000;
use constant { PORTS => 1300, IPV6_PORTS => 200 };

sub _own_ports
{
	my ($self) = @_;
	my $next = $first_port + PORTS;
	$self->{ipv6_ports} = [ $next .. $next + IPV6_PORTS - 1 ];
	die "too many hosts\n" if $next + IPV6_PORTS > 65_536;
	$self->_must_here('sysctl', '-qw', "net.ipv4.ip_local_port_range=$first_port @{[ $next - 1 ]}", 'net.ipv4.tcp_tw_reuse=1');
	$first_port = $next + IPV6_PORTS;
	return;
}

# The port for the next session over IPv6.
sub ipv6_port
{
	my ($self) = @_;
	push @{ $self->{ipv6_ports} }, my $port = shift @{ $self->{ipv6_ports} };
	return $port;
}

# Starts a process in a network namespace of its own.
sub namespace
{
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		exec 'unshare', '--net', '--', 'sleep', 'infinity' or die "unshare: $!";
	}
	my $own = readlink '/proc/self/ns/net';
	usleep(1000) while (readlink("/proc/$pid/ns/net") // $own) eq $own;
	return $pid;
}

sub address { return "10.77.$_[0]{n}.2" }
sub address6 { return "fd00:77:$_[0]{n}::2" }
sub server { return "10.77.$_[0]{n}.1" }
sub server6 { return "fd00:77:$_[0]{n}::1" }

# The process that holds this host's network namespace.
sub pid { return $_[0]{pid} }

# A command line that runs a command in this host, without any capability.
sub command
{
	my ($self, @command) = @_;
	return ('nsenter', "--target=$self->{pid}", '--net', '--', 'uncapped', @command);
}

# Runs a command in this host.  Returns its stdout, stderr and exit status.
sub run
{
	my ($self, @command) = @_;
	my ($stdout, $stderr) = ('', '');
	IPC::Run::run [ $self->command(@command) ], '<', \undef, '>', \$stdout, '2>', \$stderr;
	chomp $stdout;
	return ($stdout, $stderr, $? >> 8);
}

# Starts a command in this host.  Returns an IPC::Run harness, which the end of the test
# kills.
sub start
{
	my ($self, @command) = @_;
	my ($stdin, $stdout, $stderr) = ('', '', '');
	return IPC::Run::start [ $self->command(@command) ], '<', \$stdin, '>', \$stdout, '2>', \$stderr;
}

# Runs code while this process is in the host's network namespace.  A socket that the
# code creates stays in that namespace.
sub within
{
	my ($self, $code) = @_;
	open my $own, '<', '/proc/self/ns/net' or die "/proc/self/ns/net: $!";
	open my $host, '<', "/proc/$self->{pid}/ns/net" or die "the host is gone: $!";
	_setns($host);
	my @result = eval { $code->() };
	my $error = $@;
	_setns($own);
	die $error if $error;
	return wantarray ? @result : $result[0];
}

# From now on, TCP packets from and to this host are dropped, as if the host had lost
# power behind a router: the server's neighbour table does not change.  Options:
# port => N: drop only packets of the connection with this client port.
sub drop
{
	my ($self, %options) = @_;
	$self->_filter(
		$options{port}
		? ("tcp dport $options{port} drop", "tcp sport $options{port} drop")
		: ('meta l4proto tcp drop', 'meta l4proto tcp drop'));
	return;
}

# From now on, TCP packets to this host are dropped, as if all other hosts had lost power
# behind a router.  Connections within this host are not affected.
sub lose_others
{
	my ($self) = @_;
	$self->_nft(<<'END');
table inet lab {
	chain in { type filter hook input priority 0; iifname "eth0" meta l4proto tcp drop; }
}
END
	return;
}

# From now on, one in this many TCP packets is dropped, in each direction.
sub lose
{
	my ($self, $packets) = @_;
	my $rule = "meta l4proto tcp numgen inc mod $packets 0 drop";
	$self->_filter($rule, $rule);
	return;
}

# From now on, TCP packets to this host are rejected: an ICMP message tells the server
# that the host is unreachable.  Optional: another icmpx type of nft, such as
# admin-prohibited.
sub unreachable
{
	my ($self, $type) = @_;
	$type //= 'host-unreachable';
	$self->_filter("meta l4proto tcp reject with icmpx type $type", 'meta l4proto tcp drop');
	return;
}

# From now on, each TCP packet of the server is answered with a reset, as by a host that
# was restarted.
sub refuse
{
	my ($self) = @_;
	$self->_filter('meta l4proto tcp reject with tcp reset', 'tcp flags & rst == 0 drop');
	return;
}

# From now on, nothing comes from this host, not even an answer to ARP or neighbour
# discovery, and the server's neighbour table has no entry for it: as if the host had
# lost power on the server's own network some time ago.
sub power_off
{
	my ($self) = @_;
	$self->_nft(<<'END');
table netdev lab {
	chain in { type filter hook ingress device eth0 priority 0; drop; }
}
table inet lab {
	chain out { type filter hook output priority 0; drop; }
}
END
	_must('ip', 'neighbour', 'flush', 'dev', "veth$self->{n}");
	return;
}

# Takes the link down: the server's end loses its carrier too.
sub link_down
{
	my ($self) = @_;
	$self->_must_here('ip', 'link', 'set', 'eth0', 'down');
	return;
}

# Undoes drop, lose, unreachable, refuse, power_off and link_down.
sub restore
{
	my ($self) = @_;
	$self->_nft('');
	$self->_up;
	return;
}

sub _filter
{
	my ($self, $in, $out) = @_;
	# The input hook, because reject works for input only.  Output of this host's own
	# TCP may fail with EPERM, which does not matter to the server.
	$self->_nft(<<"END");
table inet lab {
	chain in { type filter hook input priority 0; $in; }
	chain out { type filter hook output priority 0; $out; }
}
END
	return;
}

# Replaces this host's packet filter.
sub _nft
{
	my ($self, $rules) = @_;
	$self->_must_here('nft', "flush ruleset; $rules");
	return;
}

sub _up
{
	my ($self) = @_;
	$self->_must_here('ip', 'link', 'set', 'eth0', 'up');
	$self->_must_here('ip', 'address', 'replace', $self->address . '/24', 'dev', 'eth0');
	$self->_must_here('ip', 'address', 'replace', $self->address6 . '/64', 'dev', 'eth0', 'nodad');
	return;
}

sub _must_here
{
	my ($self, @command) = @_;
	_must('nsenter', "--target=$self->{pid}", '--net', '--', @command);
	return;
}

sub _must
{
	my (@command) = @_;
	my $output = '';
	IPC::Run::run(\@command, '<', \undef, '>&', \$output)
	  or die "@command failed: $output";
	return;
}

sub _setns
{
	my ($namespace) = @_;
	syscall(main::SYS_setns(), fileno $namespace, CLONE_NEWNET) == 0 or die "setns: $!";
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local $?;
	kill 'KILL', $self->{pid} if $$ == $test_process && $self->{pid};
	return;
}

1;
