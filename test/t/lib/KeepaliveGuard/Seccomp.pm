# A kernel that refuses a socket option or a system call, by seccomp.
package KeepaliveGuard::Seccomp;

use strict;
use warnings;

use Errno 'EPERM';
use Exporter 'import';

{
	package main; # where it is for all who need it: it is loaded once
	require 'syscall.ph';
}

our @EXPORT_OK = qw(refuse_socket_option refuse_system_call);

# linux/seccomp.h and linux/bpf_common.h
use constant {
	SECCOMP_SET_MODE_FILTER => 1,
	SECCOMP_RET_ALLOW => 0x7fff0000,
	SECCOMP_RET_ERRNO => 0x00050000,
	LOAD_WORD => 0x20,
	JUMP_IF_EQUAL => 0x15,
	RETURN => 0x06,
};

# From now on, setsockopt() of that option fails with EPERM in this process and in
# all that it starts.  Needs CAP_SYS_ADMIN, as all of these.
sub refuse_socket_option
{
	my ($level, $name) = @_;
	return _filter(EPERM, SYS_setsockopt(), 1 => $level, 2 => $name);
}

# Likewise, it does nothing and says that all is well.
sub ignore_socket_option
{
	my ($level, $name) = @_;
	return _filter(0, SYS_setsockopt(), 1 => $level, 2 => $name);
}

# Likewise, socket() of that address family fails with that errno.
sub refuse_sockets
{
	my ($family, $error) = @_;
	return _filter($error, SYS_socket(), 0 => $family);
}

# Has a system call with these values of arguments (counted from 0) end with an errno.
sub _filter
{
	my ($error, $call, %values) = @_;
	my $low = unpack('S', pack 'n', 1) == 1 ? 4 : 0; # where a word's lower half is
	my @tests = ([ 0, $call ], map { [ 16 + 8 * $_ + $low, $values{$_} ] } sort keys %values);
	my @filter;
	foreach my $i (0 .. $#tests)
	{
		my ($offset, $value) = @{ $tests[$i] };
		push @filter, [ LOAD_WORD, 0, 0, $offset ],
		  [ JUMP_IF_EQUAL, 0, 2 * ($#tests - $i) + 1, $value ];
	}
	push @filter, [ RETURN, 0, 0, SECCOMP_RET_ERRNO | $error ],
	  [ RETURN, 0, 0, SECCOMP_RET_ALLOW ];
	my $program = join '', map { pack 'SCCL', @$_ } @filter;
	my $pointed = pack 'Sx![P]P', scalar @filter, $program;
	syscall(SYS_seccomp(), SECCOMP_SET_MODE_FILTER, 0, $pointed) == 0 or die "seccomp: $!\n";
	return;
}

1;
