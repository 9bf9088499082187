# A client that speaks PostgreSQL's protocol itself, so that a test controls its socket:
# when the client reads, and how it closes the connection.
#
#   my $s = KeepaliveGuard::Session->new(port => 5432, host => $host, user => 'app');
#   my $s = KeepaliveGuard::Session->new(port => 5432, socket => '/tmp/dir');
#   $s->pid;                                 # the backend's pid
#   my $rows = $s->query('SELECT 1, 2');     # [ [1, 2] ]; dies on an ERROR
#   my $value = $s->value('SHOW tcp_keepalives_idle');
#   my $result = $s->try('SET x = 1');       # { rows, error, notices }
#   $s->send('SELECT pg_sleep(60)');         # does not wait
#   my $result = $s->result;                 # the result of what was sent
#   $s->terminate;                           # with a Terminate message
#   $s->vanish; $s->half_close; $s->reset;   # without one
#
# It supports only "trust" and cleartext passwords.  KeepaliveGuard::TlsSession is the
# same over TLS.
package KeepaliveGuard::Session;

use strict;
use warnings;

use IO::Select ();
use IO::Socket::IP ();
use IO::Socket::UNIX ();
use Socket qw(SOL_SOCKET SO_LINGER SO_RCVBUF SHUT_WR);
use Time::HiRes 'time';

use constant DEFAULT_TIMEOUT => 60;

# Options: port (required); one of host (the KeepaliveGuard::Host to connect from),
# address (default 127.0.0.1) and socket (a Unix socket's directory); ipv6 => 1 with
# host; receive_buffer (SO_RCVBUF, bytes, set before connecting); client_port (the
# client's own port, IPv4 only); user, dbname, password.  Any other option is a startup
# parameter: options, application_name, replication, a setting.  Dies with the server's
# message if the server refuses the connection.
sub new
{
	my ($class, %options) = @_;
	my $self = bless { input => '', parameters => {}, notices => [], notifications => [] }, $class;
	my ($password, $dbname) = delete @options{qw(password dbname)};
	my @connect = qw(host address port socket ipv6 receive_buffer client_port);
	my %connect;
	@connect{@connect} = delete @options{@connect};
	$self->_connect(%connect);

	my %startup = (user => 'postgres', database => $dbname // 'postgres', %options);
	my $body = pack('N', 3 << 16) . join('', map { "$_\0$startup{$_}\0" } sort keys %startup) . "\0";
	$self->_write(pack('N', 4 + length $body) . $body);
	$self->_authenticate($password);
	return $self;
}

sub _connect
{
	my ($self, %options) = @_;
	my ($host, $address, $port, $directory, $ipv6, $buffer, $client_port) =
	  @options{qw(host address port socket ipv6 receive_buffer client_port)};

	$address //= $host ? ($ipv6 ? $host->server6 : $host->server) : '127.0.0.1';
	$client_port //= $host->ipv6_port if $host && $ipv6;
	my $connect = sub {
		return IO::Socket::UNIX->new(Peer => "$directory/.s.PGSQL.$port") if defined $directory;
		return IO::Socket::IP->new(
			PeerHost => $address,
			PeerPort => $port,
			Timeout => DEFAULT_TIMEOUT,
			$client_port ? (LocalPort => $client_port, ReuseAddr => 1) : (),
			$buffer ? (Sockopts => [ [ SOL_SOCKET, SO_RCVBUF, $buffer ] ]) : ());
	};
	$self->{socket} = ($host ? $host->within($connect) : $connect->())
	  or die 'cannot connect to ' . ($directory // $address) . " port $port: $@ $!\n";
	$self->{port} = $self->{socket}->sockport unless defined $directory;
	return;
}

# The backend's pid.
sub pid { return $_[0]{pid} }

# The client's port; undef for a Unix socket.
sub port { return $_[0]{port} }

# The value that the server reported for a parameter (ParameterStatus).
sub parameter { return $_[0]{parameters}{ $_[1] } }

sub socket { return $_[0]{socket} }

# Runs SQL.  Returns the rows of all its statements.  Dies with the error if there is one.
sub query
{
	my ($self, $sql, %options) = @_;
	my $result = $self->try($sql, %options);
	die "$result->{error}{severity}: $result->{error}{sqlstate}: $result->{error}{message}\n"
	  if $result->{error};
	return $result->{rows};
}

# Runs SQL.  Returns the first column of the first row.
sub value
{
	my ($self, $sql, %options) = @_;
	my $rows = $self->query($sql, %options);
	return @$rows ? $rows->[0][0] : undef;
}

# What keepalive_check() returns: "severity | subject | problem | hint" for each finding.
sub findings
{
	my ($self) = @_;
	return map { join ' | ', @$_ } @{ $self->query('SELECT severity, subject, problem, hint FROM keepalive_check()') };
}

# Runs SQL.  Returns { rows => [[...]], error => undef or fields, notices => [ fields ] },
# where fields are { severity, sqlstate, message, detail, hint }.
sub try
{
	my ($self, $sql, %options) = @_;
	$self->send($sql);
	return $self->result(%options);
}

sub send
{
	my ($self, $sql) = @_;
	$self->_message('Q', "$sql\0");
	return;
}

# Waits for the result of what was sent, in the form of try().  Option: timeout in
# seconds.  Dies if the connection ends without an error message.
sub result
{
	my ($self, %options) = @_;
	my %result = (rows => [], error => undef, notices => []);
	my $until = time + ($options{timeout} // DEFAULT_TIMEOUT);
	while (1)
	{
		my ($type, $body) = $self->_read($until);
		if (!defined $type)
		{
			die "the connection has ended\n" unless $result{error};
			last;
		}
		push @{ $result{rows} }, _row($body) if $type eq 'D';
		$result{error} = _fields($body) if $type eq 'E';
		push @{ $result{notices} }, _fields($body) if $type eq 'N';
		last if $type =~ /[ZGW]/; # ready for query, COPY IN or COPY BOTH
	}
	return \%result;
}

# Waits until this many notifications have arrived, or for the timeout (seconds).  Returns
# all that have arrived since the last call: [ channel, payload ].
sub notifications
{
	my ($self, $count, $timeout) = @_;
	my $until = time + $timeout;
	while (@{ $self->{notifications} } < $count)
	{
		defined eval { ($self->_read($until))[0] } or last;
	}
	return splice @{ $self->{notifications} };
}

# Waits until the server has closed or reset the connection, and reads what arrives.
# Returns the seconds that took, undef after the timeout (seconds).
sub wait_for_end
{
	my ($self, $timeout) = @_;
	my $start = time;
	while (1)
	{
		my $ended = eval { !defined(($self->_read($start + $timeout))[0]) };
		return time - $start if $ended;
		return if $@;
	}
}

# Sends a Terminate message and closes the socket.
sub terminate
{
	my ($self) = @_;
	$self->_message('X', '');
	return $self->vanish;
}

# Closes the socket without a Terminate message, as the kernel does for a killed client.
sub vanish
{
	my ($self) = @_;
	close delete $self->{socket};
	return;
}

# Sends FIN, and can still read.
sub half_close
{
	my ($self) = @_;
	shutdown $self->{socket}, SHUT_WR;
	return;
}

# Closes the socket with a reset.
sub reset
{
	my ($self) = @_;
	setsockopt $self->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);
	return $self->vanish;
}

sub _authenticate
{
	my ($self, $password) = @_;
	my $until = time + DEFAULT_TIMEOUT;
	while (1)
	{
		my ($type, $body) = $self->_read($until);
		die "the connection has ended before authentication\n" unless defined $type;
		if ($type eq 'R')
		{
			my $method = unpack 'N', $body;
			$self->_message('p', "$password\0") if $method == 3 && defined $password;
			die "authentication method $method\n" if $method != 0 && $method != 3;
		}
		elsif ($type eq 'E')
		{
			my $fields = _fields($body);
			die "$fields->{severity}: $fields->{sqlstate}: $fields->{message}\n";
		}
		push @{ $self->{notices} }, _fields($body) if $type eq 'N';
		$self->{pid} = unpack 'N', $body if $type eq 'K';
		return if $type eq 'Z';
	}
}

# The notices sent while the connection started: [ fields ].
sub notices { return $_[0]{notices} }

sub _message
{
	my ($self, $type, $body) = @_;
	return $self->_write(pack('aN', $type, 4 + length $body) . $body);
}

sub _write
{
	my ($self, $bytes) = @_;
	local $SIG{PIPE} = 'IGNORE';
	my $written = syswrite $self->{socket}, $bytes;
	die "cannot send to the server: $!\n" unless ($written // -1) == length $bytes;
	return;
}

# The next message's type and body; an empty list at the end of the connection.
sub _read
{
	my ($self, $until) = @_;
	my $type = $self->_bytes(1, $until) // return;
	my $length = $self->_bytes(4, $until) // return;
	my $body = $self->_bytes(unpack('N', $length) - 4, $until) // return;
	if ($type eq 'S')
	{
		my ($name, $value) = split /\0/, $body;
		$self->{parameters}{$name} = $value;
	}
	push @{ $self->{notifications} }, [ split /\0/, substr $body, 4 ] if $type eq 'A';
	return ($type, $body);
}

sub _bytes
{
	my ($self, $count, $until) = @_;
	while (length $self->{input} < $count)
	{
		my $left = $until - time;
		die "no answer from the server in time\n"
		  if $left <= 0 || !IO::Select->new($self->{socket})->can_read($left);
		my $read = sysread $self->{socket}, $self->{input}, 65536, length $self->{input};
		return unless $read;
	}
	return substr $self->{input}, 0, $count, '';
}

sub _row
{
	my ($body) = @_;
	my $columns = unpack 'n', substr $body, 0, 2, '';
	my @row;
	foreach (1 .. $columns)
	{
		my $length = unpack 'l>', substr $body, 0, 4, '';
		push @row, $length < 0 ? undef : substr $body, 0, $length, '';
	}
	return \@row;
}

sub _fields
{
	my ($body) = @_;
	my %field = map { (substr($_, 0, 1) => substr($_, 1)) } grep { length } split /\0/, $body;
	my %named;
	@named{qw(severity sqlstate message detail hint)} = @field{qw(V C M D H)};
	return \%named;
}

1;
