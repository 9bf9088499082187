# Clients that connect to a server and end in every way, in processes of their own, and a
# process that calls the reading functions meanwhile.  Each writes into a ledger what it
# did.  KeepaliveGuard::Storm compares the ledger with what the server says.
package KeepaliveGuard::StormClients;

use strict;
use warnings;

use IO::Select ();
use KeepaliveGuard::KernelSockets 'socket_lines';
use KeepaliveGuard::Session;
use KeepaliveGuard::WrongRows 'wrong_row_queries';
use List::Util 'max';
use POSIX 'WNOHANG';
use PostgreSQL::Test::Utils ();
use Time::HiRes qw(sleep time);

# What a client does, and the cause that its session has in keepalive_events().
my %cause = (
	'orderly' => 'client_closed',
	'closed' => 'client_vanished',
	'closed while busy' => 'client_vanished',
	'reset' => 'reset',
	'reset while busy' => 'reset',
	'terminated' => 'terminated',
	'terminated while busy' => 'terminated',
	'invalid message' => 'terminated',
	'failed login' => 'authentication_failed',
	'silent, dead_after' => 'dead_after',
	'silent, keepalive' => 'keepalive_timeout',
	'silent, user timeout' => 'user_timeout');

# How often clients with a living host do it.
my @deeds = (
	('orderly') x 40, ('closed') x 15, ('closed while busy') x 6, ('reset') x 12,
	('reset while busy') x 8, ('terminated') x 8, ('terminated while busy') x 5,
	('invalid message') x 4, ('failed login') x 2);

# The roles of clients with a living host; "member" is at times a member of "crew".
my @roles = qw(app app strict strict member);

# The roles of clients whose packets are dropped: their policies find that in different ways.
my %silent_role = (
	dead => 'silent, dead_after',
	probed => 'silent, keepalive',
	unanswered => 'silent, user timeout');

# Options: processes: with clients on the server's host; hosts: KeepaliveGuard::Hosts, each
# with one process more, whose packets are dropped; first_port: the first client port;
# every process uses 5000.
sub new
{
	my ($class, $node, %options) = @_;
	return bless {
		node => $node, directory => PostgreSQL::Test::Utils::tempdir(), processes => $options{processes}, hosts => $options{hosts} // [],
		first_port => $options{first_port}, round => 0 }, $class;
}

# The cause that keepalive_events() has for a session whose client did this; undef if it is
# none of the deeds.
sub cause_of_deed { return $cause{ $_[1] } }

# --- the clients --------------------------------------------------------------------------

# Starts clients that make this many connections in all; those of the hosts whose packets
# are dropped go on until end().  Options: failed_logins => 0: none.
sub begin
{
	my ($self, $connections, %options) = @_;
	$self->{stop} = "$self->{directory}/stop." . ++$self->{round};
	@$self{qw(ledgers entries readings)} = ([], [], []);
	my $each = int($connections / $self->{processes}) + 1;
	$self->{local} = [
		map { my $i = $_; $self->_fork("local$i", sub { $self->_living_clients($i, $each, %options) }) }
		  0 .. $self->{processes} - 1 ];
	$self->{others} = [
		map { my $host = $_; $self->_fork('silent' . $host->address, sub { $self->_silent_clients($host) }) }
		  @{ $self->{hosts} } ];
	$self->start_reader;
	return;
}

# Starts a process that reads the rows of the reading functions over and over, in one
# session, and notes what is wrong in them.  It ends with its session.
sub start_reader
{
	my ($self) = @_;
	my $session = $self->{node}->unix_session;
	my %wrong = wrong_row_queries(scalar @{ $self->{staying} });
	push @{ $self->{others} }, $self->_fork('reader', sub {
		my ($lost, $reads) = (0, 0);
		my @kilobytes = private_memory($session->pid)->{kilobytes};
		until ($lost || -e $self->{stop})
		{
			foreach my $what (sort keys %wrong)
			{
				my $start = time;
				my $result = eval { $session->try($wrong{$what}) };
				my $problem = !$result ? "lost: $@"
				  : $result->{error} ? "lost: $result->{error}{message}"
				  : @{ $result->{notices} } ? "notice: $result->{notices}[0]{message}"
				  : $result->{rows}[0][0] ? "wrong row: $what"
				  : undef;
				$reads++;
				$self->_enter($start, $session->pid, 0, 'reader', $problem) if $problem;
				$lost = 1 unless $result;
			}
			my $memory = eval { private_memory($session->pid) };
			push @kilobytes, $memory->{kilobytes} if $memory;
		}
		# The most in the second half of the queries and in the first.
		my @first_half = @kilobytes[ 0 .. @kilobytes / 2 ];
		my $grown = max(@kilobytes) - max(grep { defined } @first_half);
		$self->_enter(time, $session->pid, 0, 'reader', "reads: $reads, $grown kB");
		$session->terminate unless $lost;
	});
	$session->vanish;
	return;
}

sub _fork
{
	my ($self, $name, $code) = @_;
	my $file = "$self->{directory}/$name.$self->{round}";
	open my $ledger, '+>', $file or die "$file: $!";
	my $pid = fork // die "fork: $!";
	if (!$pid)
	{
		srand $$;
		$self->{ledger} = $ledger;
		eval { $code->(); 1 } or $self->_enter(time, 0, 0, '-', "failed: $@");
		kill 'KILL', $$; # skips the END blocks of the test
	}
	open my $reader, '<', $file or die "$file: $!";
	push @{ $self->{ledgers} }, { file => $reader, text => '' };
	return $pid;
}

# Notes what a client did: when it asked its first question, pid and port of its session,
# its role and the deed.
sub _enter
{
	my ($self, @entry) = @_;
	$entry[-1] =~ s/\s+/ /g;
	syswrite $self->{ledger}, join("\t", @entry) . "\n";
	return;
}

# Connects, and has an answer to a question.  Returns the session and when it asked, or
# notes that there was none.
sub _connect
{
	my ($self, $port, %options) = @_;
	my $start = time;
	my $session = eval {
		KeepaliveGuard::Session->new(
			port => $self->{node}->port, client_port => $port,
			application_name => "port $port", %options);
	};
	if (!$session)
	{
		# Somebody uses the port, or its last connection has just ended.
		return if $@ =~ /in use|assign requested/;
		$self->_enter($start, 0, $port, $options{user}, "refused: $@");
		sleep 0.05;
		return;
	}
	my $asked = time;
	return ($session, $asked) if eval { $session->query('SELECT 1') };
	$self->_enter($asked, $session->pid, $port, $options{user}, "lost: $@");
	return;
}

sub _living_clients
{
	my ($self, $i, $count, %options) = @_;
	my $n = 0;
	while ($count > 0)
	{
		my $port = $self->{first_port} + 5000 * $i + $n++ % 5000;
		my $deed = $deeds[ rand @deeds ];
		if ($deed eq 'failed login')
		{
			$count-- if ($options{failed_logins} // 1) && $self->_failed_login($port);
			next;
		}
		my $user = $roles[ rand @roles ];
		my ($session, $asked) = $self->_connect($port, user => $user) or next;
		$count--;
		my $done = eval { $self->_live($session, $deed); 1 };
		$self->_enter($asked, $session->pid, $port, $user, $done ? $deed : "lost: $@");
	}
	return;
}

sub _failed_login
{
	my ($self, $port) = @_;
	my $start = time;
	my $session = eval {
		KeepaliveGuard::Session->new(port => $self->{node}->port, client_port => $port, user => 'nobody');
	};
	die "nobody can log in\n" if $session;
	return 0 if $@ =~ /in use|assign requested/;
	$self->_enter($start, 0, $port, 'nobody', $@ =~ /28000/ ? 'failed login' : "refused: $@");
	return 1;
}

# A short life of a session, and its end.
sub _live
{
	my ($self, $session, $deed) = @_;
	my $what = rand 10;
	if ($what < 1) { $self->_look_at_own_row($session) }
	elsif ($what < 2)
	{
		$session->query(q{BEGIN; SET LOCAL client_connection_check_interval = '60s'; COMMIT});
	}
	if ($deed eq 'orderly') { $session->terminate }
	elsif ($deed eq 'closed') { $session->vanish }
	elsif ($deed eq 'reset') { $session->reset }
	elsif ($deed eq 'closed while busy')
	{
		$session->send('SELECT pg_sleep(0.05)');
		$session->vanish;
	}
	elsif ($deed eq 'reset while busy')
	{
		$session->send('SELECT pg_sleep(0.05)');
		$session->reset;
	}
	elsif ($deed =~ /^terminated/)
	{
		$session->send('SELECT pg_sleep(60)') if $deed =~ /busy/;
		kill 'TERM', $session->pid;
		$session->wait_for_end(60) // die "not ended by SIGTERM\n";
		$session->vanish;
	}
	elsif ($deed eq 'invalid message')
	{
		syswrite $session->socket, "\1\0\0\0\4";
		$session->wait_for_end(60) // die "not ended by an invalid message\n";
		$session->vanish;
	}
	return;
}

# The row of keepalive_status() is of one moment, and of this session: policy_edit() derives
# all values from one number.
sub _look_at_own_row
{
	my ($self, $session) = @_;
	my $wrong = $session->query(<<'END');
SELECT to_json(s) FROM keepalive_status() s
WHERE pid = pg_backend_pid() AND (usename IS DISTINCT FROM session_user
	OR application_name <> 'port ' || client_port
	OR policies[1] IN ('app', 'strict', 'crew') AND (tcp_keepalives_idle <> tcp_keepalives_interval
		OR tcp_keepalives_idle <> tcp_user_timeout
		OR tcp_keepalives_count <> extract(epoch FROM tcp_keepalives_idle)::int % 100 + 1))
END
	$self->_enter(time, $session->pid, $session->port, '-', "wrong row: $_->[0]") foreach @$wrong;
	return;
}

# Clients of a host connect, and then their packets are dropped until all their sessions
# have been ended.
sub _silent_clients
{
	my ($self, $host) = @_;
	my $n = 0;
	until (-e $self->{stop})
	{
		$host->restore;
		my @batch;
		while (@batch < 30 && !-e $self->{stop})
		{
			my $port = 10_000 + $n++ % 20_000;
			my $user = (sort keys %silent_role)[ $n % 3 ];
			my ($session, $asked) = $self->_connect($port, user => $user, host => $host) or next;
			push @batch, { session => $session, asked => $asked, port => $port, user => $user };
		}
		eval { $_->{session}->send('SELECT pg_sleep(2)') } foreach grep { $_->{user} eq 'unanswered' } @batch;
		_wait_until_acknowledged(map { $_->{port} } @batch);
		$host->drop;
		foreach my $client (@batch)
		{
			$client->{deed} = $silent_role{ $client->{user} };
			# The answer came before.
			next unless $client->{user} eq 'unanswered' && IO::Select->new($client->{session}->socket)->can_read(0);
			kill 'TERM', $client->{session}->pid;
			$client->{deed} = 'terminated';
		}
		my $until = time + 60;
		my @left = @batch;
		while (@left && time < $until)
		{
			sleep 0.05;
			@left = grep { -d '/proc/' . $_->{session}->pid } @left;
		}
		$_->{deed} = 'not ended: ' . $_->{deed} foreach @left;
		$self->_enter($_->{asked}, $_->{session}->pid, $_->{port}, $_->{user}, $_->{deed}) foreach @batch;
		# The sockets are closed before the host is reached again.
	}
	return;
}

# As wait_until_acknowledged() of KernelSockets, for many.
sub _wait_until_acknowledged
{
	my (@ports) = @_;
	my %port = map { ($_ => 1) } @ports;
	my $until = time + 10;
	sleep 0.02 while time < $until && grep { $port{ $_->{peer_port} } && $_->{send_queue} > 0 } socket_lines();
	return;
}

# --- the ledger ------------------------------------------------------------------------------

# Reads what the clients have written.  Returns the number of connections so far.
sub connections
{
	my ($self) = @_;
	foreach my $ledger (@{ $self->{ledgers} })
	{
		seek $ledger->{file}, 0, 1;
		local $/ = undef;
		$ledger->{text} .= readline($ledger->{file}) // '';
		while ($ledger->{text} =~ s/^(.*)\n//)
		{
			my %entry;
			@entry{qw(asked pid port user deed)} = split /\t/, $1;
			push @{ $self->{ $entry{user} eq 'reader' ? 'readings' : 'entries' } }, \%entry;
		}
	}
	return scalar grep { $_->{deed} !~ /^refused/ } @{ $self->{entries} };
}

# Whether all clients with a living host are through.
sub is_over
{
	my ($self) = @_;
	$self->{local} = [ grep { waitpid($_, WNOHANG) == 0 } @{ $self->{local} } ];
	return !@{ $self->{local} };
}

# Waits for the clients with living hosts, has the others end, and reads all ledgers.
sub end
{
	my ($self) = @_;
	sleep 0.05 until $self->is_over;
	open my $stop, '>', $self->{stop} or die "$self->{stop}: $!";
	waitpid $_, 0 foreach @{ $self->{others} };
	$self->connections;
	return $self;
}

# The private memory of a process in kB, and how many files it has open.
sub private_memory
{
	my ($pid) = @_;
	my ($kilobytes) = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
	my @files = glob "/proc/$pid/fd/*";
	return { pid => $pid, kilobytes => $kilobytes, files => scalar @files };
}

1;
