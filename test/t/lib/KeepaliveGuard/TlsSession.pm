# A KeepaliveGuard::Session over TLS.  A relay (tls_relay.py) in the client's host holds
# the connection.  This module talks to the relay over a pair of sockets and tells it how
# to close the connection.
package KeepaliveGuard::TlsSession;

use strict;
use warnings;
use parent 'KeepaliveGuard::Session';

use Fcntl qw(F_SETFD);
use File::Basename 'dirname';
use IO::Handle ();
use IO::Socket ();
use Socket qw(AF_UNIX SOCK_STREAM PF_UNSPEC);

my $relay = dirname(__FILE__) . '/tls_relay.py';
my $test_process = $$;

sub _connect
{
	my ($self, %options) = @_;
	my ($host, $address, $port, $ipv6, $buffer) =
	  @options{qw(host address port ipv6 receive_buffer)};
	$address //= $host ? ($ipv6 ? $host->server6 : $host->server) : '127.0.0.1';

	($self->{socket}, my $bytes) = _pair();
	($self->{control}, my $commands) = _pair();
	my @command = ('python3', '-I', $relay, fileno $bytes, fileno $commands, $address, $port, $buffer // 0);
	@command = $host->command(@command) if $host;
	$self->{relay} = fork // die "fork: $!";
	if ($self->{relay} == 0)
	{
		fcntl $_, F_SETFD, 0 foreach $bytes, $commands;
		exec @command or die "exec: $!";
	}
	close $_ foreach $bytes, $commands;
	my $port_line = readline $self->{control} // '';
	($self->{port}) = $port_line =~ /^(\d+)$/ or die "no TLS connection\n";
	return;
}

# Closes the connection without a Terminate message and without TLS's close_notify.
sub vanish { return $_[0]->_go('vanish') }

# Sends close_notify and closes the connection, without a Terminate message.
sub close_notify { return $_[0]->_go('close_notify') }

sub reset { return $_[0]->_go('reset') }

# Sends FIN, and can still read.
sub half_close { return $_[0]->_command('half_close') }

# Sends bytes that are not a TLS record.
sub garble { return $_[0]->_command('garble') }

# Kills the process that holds the connection.
sub kill_client
{
	my ($self) = @_;
	kill 'KILL', $self->{relay};
	return $self->_gone;
}

sub _go
{
	my ($self, $command) = @_;
	$self->_command($command);
	return $self->_gone;
}

# The relay passes on all that was sent before, then runs the command.
sub _command
{
	my ($self, $command) = @_;
	syswrite $self->{control}, "$command\n";
	readline $self->{control};
	return;
}

sub _gone
{
	my ($self) = @_;
	close delete $self->{$_} foreach qw(socket control);
	waitpid delete $self->{relay}, 0;
	return;
}

sub _pair
{
	my @pair = IO::Socket->socketpair(AF_UNIX, SOCK_STREAM, PF_UNSPEC);
	die "socketpair: $!" unless @pair;
	return @pair;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	return unless $$ == $test_process && $self->{relay};
	kill 'KILL', $self->{relay};
	waitpid $self->{relay}, 0;
	return;
}

1;
