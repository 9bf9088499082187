# Stops a process of the server at a system call (ptrace), so that a test can do something
# meanwhile.
#
#   my $tracer = KeepaliveGuard::Tracer->new($pid);
#   $tracer->stop_before(sub { my ($number, @arguments) = @_; ... });
#   $tracer->stop_after(sub { my ($result) = @_; ... });
#   $tracer->step(5);   # instructions
#   $tracer->detach;    # the process goes on; so it does if the test ends
package KeepaliveGuard::Tracer;

use strict;
use warnings;

{
	package main; # loaded once, so its functions must be in main
	require 'syscall.ph';
}

# linux/ptrace.h
use constant {
	PTRACE_SINGLESTEP => 9,
	PTRACE_DETACH => 17,
	PTRACE_SYSCALL => 24,
	PTRACE_SEIZE => 0x4206,
	PTRACE_INTERRUPT => 0x4207,
	PTRACE_GET_SYSCALL_INFO => 0x420e,
	PTRACE_O_TRACESYSGOOD => 1,
	PTRACE_SYSCALL_INFO_ENTRY => 1,
	PTRACE_SYSCALL_INFO_EXIT => 2,
};
use constant {
	SYSCALL_STOP => 5 | 0x80, # SIGTRAP, marked by PTRACE_O_TRACESYSGOOD
	DEADLINE => 60, # s
};

# Attaches to a process, which stops, wherever it is.
sub new
{
	my ($class, $pid) = @_;
	my $self = bless { pid => $pid + 0 }, $class;
	$self->_ptrace(PTRACE_SEIZE, 0, PTRACE_O_TRACESYSGOOD);
	$self->_ptrace(PTRACE_INTERRUPT, 0, 0);
	$self->_wait;
	return $self;
}

# Lets the process go on until it is about to execute a system call for which the code
# returns true.  The code gets its number and its six arguments.  Dies after a minute.
sub stop_before
{
	my ($self, $is_it) = @_;
	$self->_stop_at(PTRACE_SYSCALL_INFO_ENTRY, $is_it);
	return;
}

# The same for a system call that has been executed.  The code gets its result, which is
# negative after an error: -ENOENT, for one.
sub stop_after
{
	my ($self, $is_it) = @_;
	$self->_stop_at(PTRACE_SYSCALL_INFO_EXIT, $is_it);
	return;
}

sub _stop_at
{
	my ($self, $side, $is_it) = @_;
	my $signal = 0;
	local $SIG{ALRM} = sub { die "process $self->{pid} did not come to the system call\n" };
	alarm DEADLINE;
	while (1)
	{
		my $stop = $self->_go_on(PTRACE_SYSCALL, $signal);
		# A signal is delivered; other stops have no number below 128.
		$signal = $stop < 0x80 ? $stop : 0;
		last if $stop == SYSCALL_STOP && $self->_is_at($side, $is_it);
	}
	alarm 0;
	return;
}

# Lets the process execute so many instructions.
sub step
{
	my ($self, $count) = @_;
	$self->_go_on(PTRACE_SINGLESTEP, 0) foreach 1 .. $count;
	return;
}

# Until it stops again.
sub _go_on
{
	my ($self, $request, $signal) = @_;
	$self->_ptrace($request, 0, $signal);
	$self->{is_stopped} = 0;
	return $self->_wait;
}

sub detach
{
	my ($self) = @_;
	unless ($self->{is_stopped})
	{
		$self->_ptrace(PTRACE_INTERRUPT, 0, 0);
		$self->_wait;
	}
	$self->_ptrace(PTRACE_DETACH, 0, 0);
	$self->{pid} = 0;
	return;
}

# After an error, too: the server could not be stopped otherwise.
sub DESTROY
{
	my ($self) = @_;
	local ($@, $?, $!);
	eval { $self->detach } if $self->{pid};
	return;
}

# Waits until the process stops.  Returns what for: a signal, or other stops (ptrace(2)).
sub _wait
{
	my ($self) = @_;
	my $status = pack 'i', 0;
	syscall(main::SYS_wait4(), $self->{pid}, $status, 0, 0) == $self->{pid} or die "wait4: $!\n";
	$status = unpack 'i', $status;
	die "process $self->{pid} has ended\n" if ($status & 0xff) != 0x7f;
	$self->{is_stopped} = 1;
	return $status >> 8;
}

# Whether it is on this side of a system call for which the code returns true.
sub _is_at
{
	my ($self, $side, $is_it) = @_;
	my $info = "\0" x 88; # struct ptrace_syscall_info
	$self->_ptrace(PTRACE_GET_SYSCALL_INFO, length $info, $info);
	my ($what, @call) = unpack 'Cx23q7', $info;
	return $what == $side && $is_it->(@call);
}

# The kernel may write to the last argument.
sub _ptrace
{
	my ($self, $request, $address) = @_;
	syscall(main::SYS_ptrace(), $request, $self->{pid}, $address, $_[3]) >= 0 or die "ptrace: $!\n";
	return;
}

1;
