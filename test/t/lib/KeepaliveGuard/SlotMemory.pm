# The sequence number of a backend's slot in shared memory (Versioned<Session>): two more
# after each write, odd while the backend writes.  Read in the memory of the backend,
# without any code of the extension.
package KeepaliveGuard::SlotMemory;

use strict;
use warnings;

use Fcntl 'SEEK_SET';

# The slot of this backend, whose session has this role.
sub new
{
	my ($class, $pid, $role) = @_;
	my $self = bless { pid => $pid }, $class;
	$self->{address} = $self->_find($role);
	return $self;
}

# Where it is, the same in all backends.
sub address { return $_[0]{address} }

sub sequence
{
	my ($self) = @_;
	my $memory = $self->_memory('<');
	sysread($memory, my $bytes, 4) // die "mem: $!";
	return unpack 'L<', $bytes;
}

sub set_sequence
{
	my ($self, $value) = @_;
	my $memory = $self->_memory('+<');
	syswrite($memory, pack 'L<', $value) // die "mem: $!";
	return;
}

# Writes as the worker does when it begins to write what the session should have: the
# spinlock is held, and the sequence number of Versioned<Wanted> is odd.  The code must make
# the worker write twice.  Returns a function that undoes it.
sub begin_to_write_wanted
{
	my ($self, $has_written) = @_;
	my @before = $self->_words;
	$has_written->();
	my @once = $self->_words;
	$has_written->();
	my @twice = $self->_words;
	my @changed = grep { $_ > 0 && $once[$_] - $before[$_] == 2 && $twice[$_] - $once[$_] == 2 } 0 .. $#before;
	die scalar(@changed) . ' sequence numbers found' unless @changed == 1;
	my $at = 4 * $changed[0];
	$self->_write(-8, pack 'C', 1);
	$self->_write($at, pack 'L<', $twice[ $changed[0] ] + 1);
	return sub {
		$self->_write($at, pack 'L<', $twice[ $changed[0] ] + 2);
		$self->_write(-8, pack 'C', 0);
	};
}

# The slot from its first sequence number on.
sub _words
{
	my ($self) = @_;
	sysread($self->_memory('<'), my $bytes, 1024) // die "mem: $!";
	return unpack 'L<*', $bytes;
}

sub _write
{
	my ($self, $offset, $bytes) = @_;
	my $memory = $self->_memory('+<');
	sysseek $memory, $self->{address} + $offset, SEEK_SET;
	syswrite($memory, $bytes) // die "mem: $!";
	return;
}

sub _memory
{
	my ($self, $mode) = @_;
	open my $memory, "$mode:raw", "/proc/$self->{pid}/mem" or die "mem: $!";
	sysseek $memory, $self->{address}, SEEK_SET if $self->{address};
	return $memory;
}

# The sequence number is eight bytes before the session's pid; the role's name is 16 bytes
# after the pid.
sub _find
{
	my ($self, $role) = @_;
	no warnings 'portable'; # addresses have 64 bits
	my $pattern = quotemeta(pack "l<", $self->{pid}) . "\0{4}[\\s\\S]{8}$role\0";
	open my $maps, '<', "/proc/$self->{pid}/maps" or die "maps: $!";
	my $memory = $self->_memory('<');
	my @found;
	foreach (<$maps>)
	{
		my ($from, $to) = m{^(\w+)-(\w+) rw-s .*/dev/zero} or next;
		($from, $to) = (hex $from, hex $to);
		sysseek $memory, $from, SEEK_SET;
		my $content = '';
		while (length $content < $to - $from)
		{
			sysread($memory, $content, $to - $from - length $content, length $content) or last;
		}
		push @found, $from + $-[0] - 8 while $content =~ /$pattern/g;
	}
	die scalar(@found) . " slots of backend $self->{pid} found" unless @found == 1;
	return $found[0];
}

1;
