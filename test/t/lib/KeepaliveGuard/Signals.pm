# Which signals a process catches, processes with a given pid, and processes that can open
# no file.
package KeepaliveGuard::Signals;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(caught_signals fork_with_pid pending_signals session_with_pid use_up_descriptors);

# The real-time signals that a process catches, as "64" or "63 64".
sub caught_signals { return _signals($_[0], 'SigCgt') }

# Those that have been sent, and that its only thread blocks.
sub pending_signals { return join ' ', grep { length } map { _signals($_[0], $_) } qw(ShdPnd SigPnd) }

sub _signals
{
	my ($pid, $which) = @_;
	open my $status, '<', "/proc/$pid/status" or return;
	my ($mask) = map { /^$which:\s+(\w+)/ } <$status>;
	my $bits = reverse unpack 'B*', pack 'H*', $mask // '';
	return join ' ', grep { $_ > 32 && substr($bits, $_ - 1, 1) } 1 .. 64;
}

# From now on the process can open no descriptor.  Returns code that ends that.
sub use_up_descriptors
{
	my ($pid) = @_;
	my $limit = `prlimit --nofile --noheadings --output SOFT --pid $pid` =~ s/\s//gr;
	my %used = map { (m{(\d+)$} => 1) } glob "/proc/$pid/fd/*";
	my ($free) = grep { !$used{$_} } 0 .. 1000;
	my $set = sub { system('prlimit', "--nofile=$_[0]:", '--pid', $pid) == 0 or die 'prlimit' };
	$set->($free);
	return sub { $set->($limit) };
}

# The next process gets this pid, if it is free and no other one is faster.
sub _offer_pid
{
	my ($pid) = @_;
	open my $last, '>', '/proc/sys/kernel/ns_last_pid' or die "ns_last_pid: $!";
	syswrite $last, $pid - 1 or die "ns_last_pid: $!";
	close $last;
	return;
}

# Runs code in a child process with this pid.  False if the pid is in use, or if other
# processes were faster each time.
sub fork_with_pid
{
	my ($pid, $attempts, $code) = @_;
	foreach (1 .. $attempts)
	{
		return 0 if kill 0, $pid;
		_offer_pid($pid);
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

# Connects until the backend has this pid.  The code returns a new KeepaliveGuard::Session.
# undef if other processes were faster each time.
sub session_with_pid
{
	my ($node, $pid, $attempts, $connect) = @_;
	foreach (1 .. $attempts)
	{
		_offer_pid($pid);
		my $session = $connect->();
		return $session if $session->pid == $pid;
		$session->terminate;
		$node->wait_for_exit($session->pid, 10);
	}
	return;
}

1;
