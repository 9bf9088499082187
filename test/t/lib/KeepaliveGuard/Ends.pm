# What keepalive_events() says of connections that were ended in some way.
#
#   my $ends = KeepaliveGuard::Ends->new($node);
#   $ends->expect($session, 'FIN', 'client_vanished', detail => qr/CLOSE_WAIT/);
#   $session->vanish;
#   $ends->check(10);     # a test for each of them, within ten seconds
package KeepaliveGuard::Ends;

use strict;
use warnings;

use JSON::PP 'decode_json';
use Test::More;
use Time::HiRes qw(time usleep);

sub new
{
	my ($class, $node) = @_;
	return bless { node => $node, expected => [] }, $class;
}

# A connection, as a KeepaliveGuard::Session or a backend's pid, that is to end for that
# cause.  Other columns of its event: a value, undef or a pattern.
sub expect
{
	my ($self, $session, $name, $cause, %columns) = @_;
	push @{ $self->{expected} },
	  {
		pid => ref $session ? $session->pid : $session,
		session => $session, # not to be closed by going out of scope
		name => $name,
		columns => { cause => $cause, %columns } };
	return;
}

# Waits for all that is expected, and tests each.  Returns the rows in that order.
sub check
{
	my ($self, $timeout) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $until = time + $timeout;
	my @pids = map { $_->{pid} } @{ $self->{expected} };
	my %rows;
	while (1)
	{
		%rows = %{ events_of($self->{node}, @pids) };
		last if keys %rows == @pids || time > $until;
		usleep(100_000);
	}
	foreach my $expected (@{ $self->{expected} })
	{
		my $row = $rows{ $expected->{pid} };
		my @wrong = grep { !_matches($row->{$_}, $expected->{columns}{$_}) }
		  sort keys %{ $expected->{columns} };
		ok($row && !@wrong, "$expected->{name}: $expected->{columns}{cause}");
		diag($row
			? map { sprintf "%s: %s is %s\n", $expected->{name}, $_, $row->{$_} // 'NULL' } @wrong, 'detail'
			: "$expected->{name}: there is no event, process $expected->{pid} is "
			  . (-d "/proc/$expected->{pid}" ? 'there' : 'gone'))
		  if !$row || @wrong;
	}
	$self->{expected} = [];
	return map { $rows{$_} } @pids;
}

sub _matches
{
	my ($value, $expected) = @_;
	return !defined $value if !defined $expected;
	return defined $value && (ref $expected ? $value =~ $expected : $value eq $expected);
}

# The last event of each of those pids: { pid => { column => value } }; intervals in
# seconds.
sub events_of
{
	my ($node, @pids) = @_;
	my $session = $node->unix_session;
	my $json = $session->value(<<'END' =~ s/%s/join ',', @pids, 0/er);
SELECT json_object_agg(e.pid, to_jsonb(e) || jsonb_build_object(
	'connected_for', extract(epoch FROM connected_for),
	'silent_for', extract(epoch FROM silent_for),
	'transaction_age', extract(epoch FROM transaction_age)) ORDER BY ended_at)
FROM keepalive_events() e WHERE pid IN (%s)
END
	$session->terminate;
	return $json ? decode_json($json) : {};
}

1;
