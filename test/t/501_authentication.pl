# A failed authentication is an event with its own cause.  A client that disconnects when
# asked for its password, or that never sends a user name, is not an event.
use strict;
use warnings;

use IO::Socket::INET ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;
use Time::HiRes qw(sleep);

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => "authentication_timeout = 2s\n");
$node->safe_psql('postgres', <<'END');
SET password_encryption = 'md5';
CREATE ROLE app LOGIN PASSWORD 'right';
CREATE ROLE excluded NOLOGIN;
CREATE ROLE crowd LOGIN CONNECTION LIMIT 0;
END
open my $hba, '>', $node->data_dir . '/pg_hba.conf' or die $!;
print $hba <<'END';
local all all trust
host postgres app 127.0.0.1/32 password
host postgres slow 127.0.0.1/32 password
host postgres nobody 127.0.0.1/32 password
host all refused 127.0.0.1/32 reject
host all excluded,crowd,postgres,stranger 127.0.0.1/32 trust
END
close $hba;
$node->reload;
my $admin = $node->unix_session;
sleep 0.3;

# Connects and expects a refusal.  Returns the error message.
sub refusal
{
	my (%options) = @_;
	eval { $node->session(%options); 1 } and die "the connection was not refused\n";
	return $@ =~ /^FATAL: \w+: (.*)/ ? $1 : $@;
}

sub startup
{
	my (%parameters) = @_;
	my $socket = IO::Socket::INET->new(PeerHost => '127.0.0.1', PeerPort => $node->port) or die $!;
	my $body = pack('N', 3 << 16) . join('', map { "$_\0$parameters{$_}\0" } sort keys %parameters) . "\0";
	syswrite $socket, pack('N', 4 + length $body) . $body;
	return $socket;
}

# It fails after two seconds, and is checked below.
my $slow = startup(user => 'slow', database => 'postgres');

my %expected;
$expected{ refusal(user => 'app', password => 'wrong') } = 'app';
$expected{ refusal(user => 'nobody', password => 'any') } = 'nobody';
$expected{ refusal(user => 'refused') } = 'refused';
$expected{ refusal(user => 'app', dbname => 'template1') } = 'app';
$expected{ refusal(user => 'stranger') } = 'stranger';
$expected{ refusal(user => 'excluded') } = 'excluded';
is(scalar keys %expected, 6, 'six connections are refused with different messages');

my $admitted = $node->session(user => 'app', password => 'right');
ok($admitted->pid, 'the right password is accepted');
$admitted->terminate;

my $leaves = startup(user => 'app', database => 'postgres');
is(read($leaves, my $request, 9), 9, 'the server asks a client for its password');
close $leaves;
my $anonymous = startup(database => 'postgres');
like(join('', readline $anonymous), qr/no PostgreSQL user name/, 'a client without a user name is refused');
my $silent = IO::Socket::INET->new(PeerHost => '127.0.0.1', PeerPort => $node->port) or die $!;
close $silent;
is(length join('', readline $slow), 9, 'at authentication_timeout, the client gets no further message');
sleep 0.5;

my $rows;
seconds_until(20, sub { @{ $rows = $admin->query(<<'END') } >= 7 });
SELECT usename, detail, datname, policies, state, transaction_age, backend_type, host(client_addr), client_port > 0
FROM keepalive_events() WHERE cause = 'authentication_failed'
END
my %seen = map { ($_->[1] => $_->[0]) } @$rows;
is_deeply(\%seen, { %expected, 'canceling authentication due to timeout' => 'slow' },
	'each failed authentication is an event with its role and PostgreSQL\'s message');
is(scalar @$rows, 7, 'each failed authentication is one event');
is_deeply([ grep { "@$_[6 .. 8]" ne 'client backend 127.0.0.1 t' || grep { defined } @$_[ 3 .. 5 ] } @$rows ],
	[], 'the events have the client\'s address, and no policy and no state');

# A refusal after authentication has the cause "terminated".
foreach my $case ([ user => 'postgres', dbname => 'nowhere' ], [ user => 'crowd' ])
{
	my $message = refusal(@$case);
	my $role = { @$case }->{user};
	ok( $node->poll_query_until('postgres', <<"END"), "the event has cause terminated: $message");
SELECT count(*) = 1 FROM keepalive_events()
WHERE detail = '@{[$message =~ s/'/''/gr]}' AND cause = 'terminated' AND usename = '$role'
END
}

my $stats;
seconds_until(20, sub { ($stats) = @{ $admin->query(<<'END') }; $stats->[3] == 0 });
SELECT authentication_failed, terminated, client_closed > 0,
	sessions_total - client_closed - terminated - sessions
FROM keepalive_stats() WHERE policy IS NULL
END
is_deeply($stats, [ 7, 2, 't', 0 ], 'keepalive_stats() counts failed authentications separately from sessions');

# A shutdown while a client is being authenticated is not a failed authentication.
$slow = startup(user => 'slow', database => 'postgres');
read $slow, $request, 9;
$node->stop('fast');
$node->start;
is($node->safe_psql('postgres', 'SELECT authentication_failed FROM keepalive_stats() WHERE policy IS NULL'),
	7, 'a shutdown is not counted as a failed authentication');

done_testing();
