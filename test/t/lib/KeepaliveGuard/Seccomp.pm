# A kernel that refuses a socket option, by seccomp.
package KeepaliveGuard::Seccomp;

use strict;
use warnings;

use Errno 'EPERM';
use Exporter 'import';

require 'syscall.ph';

our @EXPORT_OK = qw(refuse_socket_option);

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
# all that it starts.  Needs CAP_SYS_ADMIN.
sub refuse_socket_option
{
	my ($level, $name) = @_;
	my $low = unpack('S', pack 'n', 1) == 1 ? 4 : 0; # where a word's lower half is
	my @filter = (
		[ LOAD_WORD, 0, 0, 0 ], # the system call
		[ JUMP_IF_EQUAL, 0, 5, SYS_setsockopt() ],
		[ LOAD_WORD, 0, 0, 24 + $low ], # its second argument
		[ JUMP_IF_EQUAL, 0, 3, $level ],
		[ LOAD_WORD, 0, 0, 32 + $low ], # its third
		[ JUMP_IF_EQUAL, 0, 1, $name ],
		[ RETURN, 0, 0, SECCOMP_RET_ERRNO | EPERM ],
		[ RETURN, 0, 0, SECCOMP_RET_ALLOW ]);
	my $program = join '', map { pack 'SCCL', @$_ } @filter;
	my $pointed = pack 'Sx![P]P', scalar @filter, $program;
	syscall(SYS_seccomp(), SECCOMP_SET_MODE_FILTER, 0, $pointed) == 0 or die "seccomp: $!\n";
	return;
}

1;
