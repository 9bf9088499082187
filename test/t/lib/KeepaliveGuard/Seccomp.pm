# Makes the kernel refuse a socket option or a system call, by seccomp.
package KeepaliveGuard::Seccomp;

use strict;
use warnings;

use Errno 'EPERM';
use Exporter 'import';

{
	package main; # loaded once, so its functions must be in main
	require 'syscall.ph';
}

our @EXPORT_OK = qw(refuse_socket_option refuse_system_call answer_system_call);

# linux/seccomp.h and linux/bpf_common.h
use constant {
	SECCOMP_SET_MODE_FILTER => 1,
	SECCOMP_RET_ALLOW => 0x7fff0000,
	SECCOMP_RET_ERRNO => 0x00050000,
	LOAD_WORD => 0x20,
	JUMP_IF_EQUAL => 0x15,
	RETURN => 0x06,
};

# From now on, setsockopt() of this option fails with EPERM in this process and in all
# processes that it starts.  Needs CAP_SYS_ADMIN.
sub refuse_socket_option
{
	my ($level, $name) = @_;
	return refuse_system_call(main::SYS_setsockopt(), 1 => $level, 2 => $name);
}

# From now on, a system call, given by its number, fails with EPERM: always, or only with
# these argument values: ARGUMENT (counted from 0) => VALUE, ...
sub refuse_system_call
{
	my ($number, %arguments) = @_;
	return answer_system_call(EPERM, $number, %arguments);
}

# From now on, a system call fails with this errno; 0: it does nothing and succeeds.
# Arguments: as for refuse_system_call().
sub answer_system_call
{
	my ($error, $number, %arguments) = @_;
	my $low = unpack('S', pack 'n', 1) == 1 ? 4 : 0; # offset of the lower 32 bits
	my @filter;
	foreach my $condition ([ 0, $number ],
		map { [ 16 + 8 * $_ + $low, $arguments{$_} ] } sort keys %arguments)
	{
		my ($offset, $value) = @$condition;
		push @filter, [ LOAD_WORD, 0, 0, $offset ], [ JUMP_IF_EQUAL, 1, 0, $value ],
		  [ RETURN, 0, 0, SECCOMP_RET_ALLOW ];
	}
	push @filter, [ RETURN, 0, 0, SECCOMP_RET_ERRNO | $error ];
	my $program = join '', map { pack 'SCCL', @$_ } @filter;
	my $pointed = pack 'Sx![P]P', scalar @filter, $program;
	syscall(main::SYS_seccomp(), SECCOMP_SET_MODE_FILTER, 0, $pointed) == 0 or die "seccomp: $!\n";
	return;
}

1;
