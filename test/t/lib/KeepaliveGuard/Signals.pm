# Which signals a process catches, and processes with a given pid.
package KeepaliveGuard::Signals;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(caught_signals fork_with_pid);

# The real-time signals that a process catches, as "64" or "63 64".
sub caught_signals
{
	my ($pid) = @_;
	open my $status, '<', "/proc/$pid/status" or return;
	my ($mask) = map { /^SigCgt:\s+(\w+)/ } <$status>;
	my $bits = reverse unpack 'B*', pack 'H*', $mask // '';
	return join ' ', grep { $_ > 32 && substr($bits, $_ - 1, 1) } 1 .. 64;
}

# Runs code in a child process with this pid.  False if the pid is in use, or if other
# processes were faster each time.
sub fork_with_pid
{
	my ($pid, $attempts, $code) = @_;
	foreach (1 .. $attempts)
	{
		return 0 if kill 0, $pid;
		open my $last, '>', '/proc/sys/kernel/ns_last_pid' or die "ns_last_pid: $!";
		syswrite $last, $pid - 1 or die "ns_last_pid: $!";
		close $last;
		my $child = fork // die "fork: $!";
		if (!$child)
		{
			$code->() if $$ == $pid;
			kill 'KILL', $$; # skips the END blocks of the test
		}
		return 1 if $child == $pid;
		waitpid $child, 0;
	}
	return 0;
}

1;
