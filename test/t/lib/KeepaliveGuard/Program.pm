# A program that a test talks to over pipes, line by line, and that notes when each line
# came.
#
#   my $program = KeepaliveGuard::Program->start([ 'psql', ... ], env => { A => 1 });
#   $program->send('SELECT 1');
#   KeepaliveGuard::Program::wait_until(sub { $program->line(qr/^answer/) }, 10, $program, ...);
package KeepaliveGuard::Program;

use strict;
use warnings;

use IO::Select ();
use POSIX ();
use Time::HiRes 'time';

my $test_process = $$;

# Options: env: variables to add to the environment.
sub start
{
	my ($class, $command, %options) = @_;
	pipe my $stdin, my $to or die "pipe: $!";
	pipe my $from, my $stdout or die "pipe: $!";
	my $started = time;
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		local $SIG{__DIE__};
		open STDIN, '<&', $stdin or POSIX::_exit(126);
		open STDOUT, '>&', $stdout or POSIX::_exit(126);
		open STDERR, '>&', $stdout or POSIX::_exit(126);
		%ENV = (%ENV, %{ $options{env} // {} });
		exec {$command->[0]} @$command or POSIX::_exit(127);
	}
	close $_ foreach $stdin, $stdout;
	return bless {
		pid => $pid, to => $to, from => $from, started => $started, silent_at => $started,
		buffer => '', lines => [] }, $class;
}

sub pid { return $_[0]{pid} }

sub started { return $_[0]{started} }

sub send
{
	my ($self, $line) = @_;
	local $SIG{PIPE} = 'IGNORE';
	syswrite $self->{to}, "$line\n";
	return;
}

# All that it has written so far.
sub output { return join "\n", (map { $_->[1] } @{ $_[0]{lines} }), $_[0]{buffer} }

# When the first line came that matches, counted from line $from on, at the latest; undef if
# none has.  The end of the output counts as the line "EOF".
sub line
{
	my ($self, $pattern, $from) = @_;
	my $line = $self->_line($pattern, $from);
	return $line && $line->[0];
}

# The same at the earliest: when there was nothing to read for the last time.  That does not
# take it for the program's delay if the test has to wait for a CPU.
sub earliest_line
{
	my ($self, $pattern, $from) = @_;
	my $line = $self->_line($pattern, $from);
	return $line && $line->[2];
}

sub _line
{
	my ($self, $pattern, $from) = @_;
	my @lines = @{ $self->{lines} };
	return (grep { $_->[1] =~ $pattern } @lines[ ($from // 0) .. $#lines ])[0];
}

# The number of lines so far.
sub lines { return scalar @{ $_[0]{lines} } }

# Reads what programs write until the condition is true.  Returns whether it is.
sub wait_until
{
	my ($condition, $timeout, @programs) = @_;
	my $until = time + $timeout;
	my %program = map { (fileno $_->{from} => $_) } grep { $_->{from} } @programs;
	my $select = IO::Select->new(map { $_->{from} } values %program);
	my $is_late = 0;
	until ($condition->())
	{
		return 0 if $is_late; # what had come was read once more
		$is_late = time > $until;
		my $asked = time;
		my @ready = $select->can_read(0.02);
		my %is_ready = map { (fileno $_ => 1) } @ready;
		$program{$_}{silent_at} = $asked foreach grep { !$is_ready{$_} } keys %program;
		Time::HiRes::sleep(0.02) unless $select->count;
		foreach my $from (@ready)
		{
			my $self = $program{ fileno $from };
			my $read = sysread $from, $self->{buffer}, 65536, length $self->{buffer};
			my @when = (time, $self->{silent_at});
			push @{ $self->{lines} }, [ $when[0], $1, $when[1] ] while $self->{buffer} =~ s/^(.*)\n//;
			next if $read;
			push @{ $self->{lines} }, [ $when[0], 'EOF', $when[1] ];
			$select->remove($from);
			close delete $self->{from};
		}
	}
	return 1;
}

sub stop
{
	my ($self) = @_;
	return unless $self->{pid};
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	$self->stop if $$ == $test_process;
	return;
}

1;
