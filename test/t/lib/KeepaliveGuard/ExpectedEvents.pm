# Compares keepalive_events() with the events that a test expects.
#
#   my $events = KeepaliveGuard::ExpectedEvents->new($node);
#   $events->expect($session, 'FIN', 'client_vanished', detail => qr/CLOSE_WAIT/);
#   $session->vanish;
#   $events->check(10);     # one test for each event, within ten seconds
package KeepaliveGuard::ExpectedEvents;

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

# Expects that a connection (a KeepaliveGuard::Session or a backend's pid) ends with this
# cause.  Further columns of its event: a value, undef or a pattern each.
sub expect
{
	my ($self, $session, $name, $cause, %columns) = @_;
	push @{ $self->{expected} },
	  {
		pid => ref $session ? $session->pid : $session,
		session => $session, # keeps the connection open
		name => $name,
		columns => { cause => $cause, %columns } };
	return;
}

# Waits for all expected events and tests each.  Returns the rows in the same order.
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
		ok($row && !@wrong, "$expected->{name}: cause is $expected->{columns}{cause}");
		diag($row
			? map { sprintf "%s: %s is %s\n", $expected->{name}, $_, $row->{$_} // 'NULL' } @wrong, 'detail'
			: "$expected->{name}: there is no event, process $expected->{pid} "
			  . (-d "/proc/$expected->{pid}" ? 'is running' : 'has exited'))
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

# The last event of each of these pids, { pid => { column => value } }, with intervals in
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
