# Real clients, poolers and proxies with the settings that keepalive_plan_clients()
# returns, while the server's host loses power.
#
#   my $clients = KeepaliveGuard::Clients->new($node, $network, within => '15 s');
#   $clients->add(name => 'psql', row => 'libpq (psql, ...)', command => [...]);
#   $clients->measure;     # tests, and returns rows
package KeepaliveGuard::Clients;

use strict;
use warnings;

use JSON::PP 'decode_json';
use KeepaliveGuard::KernelSockets qw(client_socket socket_options);
use KeepaliveGuard::Program;
use Socket 'IPPROTO_TCP';
use Test::More;
use Time::HiRes qw(sleep time);

use constant { TCP_INFO => 11, TCP_CLOSE => 7 };

# What a client does while the server's host loses power.
our @STATES = qw(idle waiting sending connecting);

# Which of the function's columns promises the time.
my %promise = (idle => 'idle', waiting => 'busy', sending => 'busy', connecting => 'connecting');

# Makes two hosts: the second has the kernel settings of the row "sysctl".
sub new
{
	my ($class, $node, $network, %options) = @_;
	my $rows = decode_json($node->safe_psql('postgres', <<"END"));
SELECT json_agg(to_jsonb(c) || jsonb_build_object(
	'idle', extract(epoch FROM detects_idle),
	'busy', extract(epoch FROM detects_busy),
	'connecting', extract(epoch FROM detects_connecting)))
FROM keepalive_plan_clients('$options{within}') AS c
END
	my $self = bless {
		node => $node,
		row => { map { ($_->{client} => $_) } @$rows },
		plain => $network->add_host,
		tuned => $network->add_host,
		directory => $options{directory} // $ENV{TESTDIR},
		next_port => 7000,
		kinds => [] }, $class;
	foreach my $line (split /\n/, $self->{row}{sysctl}{settings})
	{
		my ($name, $value) = $line =~ /^(\S+) = (\d+)$/ or die "sysctl: $line";
		$self->{tuned}->_must_here('sysctl', '-qw', "$name=$value");
	}
	return $self;
}

# The settings of a row.
sub settings
{
	my ($self, $row) = @_;
	return ($self->{row}{$row} // die "there is no client \"$row\"\n")->{settings};
}

# Adds a kind of client.  Options:
# name; row: the client of keepalive_plan_clients();
# command: its command line, or a function ($self, $host, $state) that returns it and a
#   hash of environment variables; the environment has HOST, PORT, CONNINFO, SETTINGS;
# sql: { one, sleep } if these are not SELECT 1 and SELECT pg_sleep(3600);
# proxy: a function ($self, $host, $port) that returns the command line of a proxy that
#   listens on this port of 127.0.0.1; command then connects there, and the proxy's
#   connection is the one that is measured;
# pid: a function that returns the process that has the connection, of the program that
#   psql calls by this application_name;
# reconnects: a query on a lost connection connects once more, and fails after that;
# options: { idle, interval, count, user_timeout } that differ from the row's.
sub add
{
	my ($self, %kind) = @_;
	my $row = $self->{row}{ $kind{row} } // die "there is no client \"$kind{row}\"\n";
	$kind{promised} = $row;
	$kind{host} = $row->{needs} || $kind{row} eq 'sysctl' ? $self->{tuned} : $self->{plain};
	$kind{sql} //= { one => 'SELECT 1', sleep => 'SELECT pg_sleep(3600)' };
	push @{ $self->{kinds} }, \%kind;
	return;
}

# A command that connects with psql.  Its output has a line "answer" or an error.
sub psql
{
	my ($conninfo) = @_;
	return [ qw(psql -XAtq -v ON_ERROR_STOP=1 -d), $conninfo ];
}

# The command line of PgBouncer, for proxy => ...
sub pgbouncer
{
	my ($self, $host, $port) = @_;
	my $file = $self->file("pgbouncer.$port.ini", <<"END");
[databases]
postgres = host=@{[$host->server]} port=@{[$self->{node}->port]} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = any
@{[$self->settings('PgBouncer')]}
END
	return [ 'pgbouncer', $file ];
}

# Writes a file in the test's directory.  Returns its name.
sub file
{
	my ($self, $name, $text) = @_;
	my $path = "$self->{directory}/$name";
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file;
	return $path;
}

# The numbers that the settings promise.
sub expected_options
{
	my ($self, $kind) = @_;
	my $number = sub {
		my ($row, $name) = @_;
		return $self->settings($row) =~ /\Q$name\E ?= ?(\d+)/ ? $1 + 0 : die "$row: no $name\n";
	};
	my %expected = $kind->{host} == $self->{tuned}
	  ? (
		idle => $number->('sysctl', 'keepalive_time'),
		interval => $number->('sysctl', 'keepalive_intvl'),
		count => $number->('sysctl', 'keepalive_probes'),
		user_timeout => 0)
	  : (
		idle => $number->('primary_conninfo', 'keepalives_idle'),
		interval => $number->('primary_conninfo', 'keepalives_interval'),
		count => $number->('primary_conninfo', 'keepalives_count'),
		user_timeout => $number->('primary_conninfo', 'tcp_user_timeout'));
	return { keepalive => 1, %expected, %{ $kind->{options} // {} } };
}

sub _start
{
	my ($self, $kind, $state) = @_;
	my $host = $kind->{host};
	my ($address, $port) = ($host->server, $self->{node}->port);
	if ($kind->{proxy})
	{
		my $listens = $self->{next_port}++;
		my $command = $kind->{proxy}->($self, $host, $listens);
		$kind->{proxies}{$state} = KeepaliveGuard::Program->start([ $host->command(@$command) ]);
		($address, $port) = ('127.0.0.1', $listens);
		my $until = time + 10;
		sleep 0.05 until ($host->run('ss', '-ltnH', 'sport', '=', ":$listens"))[0] ne '' || time > $until;
	}
	my %env = (
		HOST => $address, PORT => $port, SETTINGS => $kind->{promised}{settings},
		PGAPPNAME => "$kind->{name} $state",
		CONNINFO => "host=$address port=$port user=postgres dbname=postgres");
	my ($command, $more) = ref $kind->{command} eq 'CODE'
	  ? $kind->{command}->($self, \%env, $state) : $kind->{command};
	my $program = KeepaliveGuard::Program->start(
		$kind->{local} ? $command : [ $host->command(@$command) ], env => \%env);
	return $kind->{programs}{$state} = $program;
}

# When a program says that it has an error, as the seconds after $from, at the earliest.
sub _error
{
	my ($program, $from) = @_;
	my $when = $program->earliest_line(qr/^EOF$|error|FATAL|could not|timed out|terminated|closed/i) // return;
	return $when - $from;
}

sub _closed
{
	my ($socket) = @_;
	return unpack('C', getsockopt $socket, IPPROTO_TCP, TCP_INFO) == TCP_CLOSE;
}

sub _process
{
	my ($kind, $state) = @_;
	my $program = ($kind->{proxies} // $kind->{programs})->{$state};
	return $kind->{pid} ? $kind->{pid}->("$kind->{name} $state") : $program->pid;
}

sub measure
{
	my ($self) = @_;
	my @kinds = @{ $self->{kinds} };
	my $port = $self->{node}->port;

	# All that are connected when it happens.
	my @programs;
	foreach my $kind (@kinds)
	{
		foreach my $state (grep { $_ ne 'connecting' } @STATES)
		{
			push @programs, my $program = $self->_start($kind, $state);
			$program->send("$kind->{sql}{one};");
			sleep 0.05;
		}
	}
	KeepaliveGuard::Program::wait_until(
		sub { !grep { !$_->line(qr/^(?:answer|1)$/) && !defined _error($_, 0) } @programs }, 60, @programs);
	my @good;
	foreach my $kind (@kinds)
	{
		my @bad = grep { my $p = $kind->{programs}{$_}; $p && !$p->line(qr/^(?:answer|1)$/) } @STATES;
		my $good = ok(!@bad, "$kind->{name}: connects and gets an answer");
		if (!$good)
		{
			diag($kind->{programs}{ $bad[0] }->output);
			diag($kind->{proxies}{ $bad[0] }->output) if $kind->{proxies};
			next;
		}
		push @good, $kind;
		my $pid = _process($kind, 'idle');
		my $options = socket_options($pid, $port);
		delete $options->{port} if $options;
		is_deeply($options, $self->expected_options($kind), "$kind->{name}: the kernel has the promised options");
		$kind->{socket} = client_socket($pid, $port);
	}
	@kinds = grep { $_->{socket} } @good;
	$_->{programs}{waiting}->send("$_->{sql}{sleep};") foreach @kinds;
	sleep 1.5;

	# Only what arrives is dropped: output that fails would be known to the client's kernel.
	foreach my $host ($self->{plain}, $self->{tuned})
	{
		$host->lose_others;
	}
	my $lost = time;
	my %since;
	foreach my $kind (@kinds)
	{
		@{ $since{ $kind->{name} } }{qw(idle waiting)} = ($lost, $lost);
		$kind->{programs}{sending}->send("$kind->{sql}{one};");
		$since{ $kind->{name} }{sending} = time;
	}
	foreach my $kind (@kinds)
	{
		push @programs, my $program = $self->_start($kind, 'connecting');
		$program->send("$kind->{sql}{one};");
		sleep 0.05;
	}

	my %seconds;
	my $longest = 0;
	foreach my $kind (@kinds)
	{
		foreach my $state (@STATES)
		{
			my $promised = $kind->{promised}{ $promise{$state} };
			$longest = $promised if $promised > $longest;
		}
	}
	KeepaliveGuard::Program::wait_until(
		sub {
			my $left = 0;
			foreach my $kind (@kinds)
			{
				my $of = $seconds{ $kind->{name} } //= {};
				my $looked = time;
				if (!_closed($kind->{socket})) { $kind->{open_at} = $looked }
				else { $of->{idle} //= ($kind->{open_at} // $lost) - $lost }
				foreach my $state (qw(waiting sending connecting))
				{
					my $program = $kind->{programs}{$state};
					my $from = $since{ $kind->{name} }{$state}
					  // $program->line(qr/^connecting$/) // $program->started;
					$of->{$state} //= _error($program, $from);
				}
				$left += grep { !defined $of->{$_} } @STATES;
			}
			return !$left;
		},
		$longest + 10,
		@programs);

	my @rows;
	foreach my $kind (@kinds)
	{
		my $name = $kind->{name};
		my $of = $seconds{$name};
		foreach my $state (@STATES)
		{
			my $promised = $kind->{promised}{ $promise{$state} };
			ok(defined $of->{$state} && $of->{$state} <= $promised,
				sprintf '%s, %s: notices within %.1f s (%s)', $name, $state, $promised,
				defined $of->{$state} ? sprintf('%.1f s', $of->{$state}) : 'never')
			  or diag($kind->{programs}{$state}->output);
		}
		# The program that was idle learns of it when it uses its connection.
		unless ($kind->{proxies})
		{
			my $program = $kind->{programs}{idle};
			my $asked = time;
			$program->send("$kind->{sql}{one};");
			my $told = KeepaliveGuard::Program::wait_until(
				sub { defined _error($program, 0) },
				$kind->{reconnects} ? $kind->{promised}{connecting} : 10,
				$program);
			ok($told, "$name: the idle program gets the error with its next query at the latest")
			  or diag($program->output);
		}
		push @rows, {
			name => $name,
			row => $kind->{row},
			seconds => $of,
			promised => { map { ($_ => $kind->{promised}{ $promise{$_} }) } @STATES } };
	}
	$_->stop foreach @programs, map { values %{ $_->{proxies} // {} } } @kinds;
	$_->restore foreach $self->{plain}, $self->{tuned};
	return @rows;
}

1;
