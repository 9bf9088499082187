# A PostgreSQL::Test::Cluster with the guard loaded, that listens on its Unix
# socket and on every address of its namespace, and trusts everybody.
#
#   my $node = KeepaliveGuard::Cluster->start_new('primary');
#   $node->policy(name => 'app', role => 'app', tcp_keepalives_idle => '60s');
#   $node->wait_for_policies;
#   my $session = $node->session(host => $host, user => 'app');
package KeepaliveGuard::Cluster;

use strict;
use warnings;
use parent 'PostgreSQL::Test::Cluster';

use JSON::PP 'decode_json';
use KeepaliveGuard::Session;
use PostgreSQL::Test::Utils 'slurp_file'; # its other functions would hide methods
use Time::HiRes qw(time usleep);

# From PostgreSQL 17 on, PostgreSQL::Test::Utils handles SIGCHLD, set in an INIT block.
# The end of any child would interrupt a select() or sleep() here.
INIT
{
	delete $SIG{CHLD};
}

# Creates and starts a cluster, and creates the extension in the database postgres.
# Options: preload => 0: do neither preload nor create the extension; conf: lines for
# postgresql.conf; others as for init(), such as allows_streaming => 1.
sub start_new
{
	my ($class, $name, %options) = @_;
	my $preload = delete $options{preload} // 1;
	my $conf = delete $options{conf} // '';

	my $self = $class->new($name);
	$self->init(%options);
	$self->append_conf('postgresql.conf', "listen_addresses = '*'\nmax_connections = 100\n");
	$self->append_conf('postgresql.conf', "shared_preload_libraries = 'keepalive_guard'\n")
	  if $preload;
	$self->append_conf('postgresql.conf', $conf);
	$self->append_conf('pg_hba.conf', <<'END');
host all all all trust
host replication all all trust
END
	$self->start;
	$self->safe_psql('postgres', 'CREATE EXTENSION keepalive_guard') if $preload;
	return $self;
}

# Starts the server in a process in which code has run first, such as a seccomp filter
# that the server inherits.  Returns the exit status of pg_ctl.
sub start_after
{
	my ($self, $code) = @_;
	my $child = fork // die "fork: $!";
	if (!$child)
	{
		$code->();
		open STDOUT, '>&', \*STDERR or die "dup: $!";
		exec 'pg_ctl', '--wait', '--pgdata', $self->data_dir, '--log', $self->logfile, 'start'
		  or die "pg_ctl: $!";
	}
	waitpid $child, 0;
	my $status = $?;
	$self->_update_pid(1);
	return $status;
}

# Runs SQL in a session of its own.  Returns the first value.  The session has ended then:
# psql does not wait for its backend, which tests would count.
sub _value
{
	my ($self, $sql) = @_;
	my $session = $self->unix_session;
	my $value = $session->value($sql);
	$session->terminate;
	$self->wait_for_exit($session->pid, 60);
	return $value;
}

# The pid of the keepalive_guard worker, empty if it is not running.
sub worker_pid
{
	my ($self) = @_;
	return $self->_value(q{SELECT max(pid) FROM pg_stat_activity WHERE backend_type = 'keepalive_guard worker'}) // '';
}

# Opens a KeepaliveGuard::Session with this cluster.  Options: as for its new().
sub session
{
	my ($self, %options) = @_;
	return KeepaliveGuard::Session->new(port => $self->port, %options);
}

# Opens a session over the Unix socket.
sub unix_session
{
	my ($self, %options) = @_;
	return $self->session(socket => $self->host, %options);
}

# Inserts a policy: columns of keepalive_policy and their values, undef for NULL.
sub policy
{
	my ($self, %columns) = @_;
	my @names = sort keys %columns;
	my @values = map { defined ? "'" . s/'/''/gr . "'" : 'NULL' } @columns{@names};
	$self->_value(sprintf 'INSERT INTO keepalive_policy (%s) VALUES (%s)',
		join(', ', @names), join(', ', @values));
	return;
}

# Waits until all committed policies are in force in every session.
sub wait_for_policies
{
	my ($self) = @_;
	my $pending = $self->_value(q{SELECT pending FROM keepalive_apply('30s')});
	die "policies are still pending in $pending sessions\n" if $pending;
	return;
}

# Does what a hint of keepalive_check() says, as a user of psql would: runs its statements,
# and restarts the server if it says so.  A hint that reads the server log is a shell
# command.  Returns what is printed; dies if a command fails.
sub follow_hint
{
	my ($self, $hint) = @_;
	if ($hint =~ /^grep /)
	{
		my $log = $self->logfile;
		my $output = `cd / && ${\($hint =~ s/server\.log/$log/r)}`;
		die "$hint: no such line\n" if $?;
		return $output;
	}
	my $output = $self->safe_psql('postgres', $hint);
	$self->restart if $hint =~ /-- then restart the server/;
	return $output;
}

# The row of keepalive_status() for a backend: { column => value }, undef for NULL, 1
# and 0 for booleans.  undef if there is no such row.
sub status
{
	my ($self, $pid) = @_;
	my $json = $self->_value("SELECT to_json(s) FROM keepalive_status() s WHERE s.pid = $pid") // return undef;
	my $status = decode_json($json);
	$status->{policy} = $status->{policies} && join(',', @{ $status->{policies} });
	return $status;
}

# The present end of the log, as an offset for log_count().
sub log_end
{
	my ($self) = @_;
	return -s $self->logfile // 0;
}

# The number of log lines that match, from this offset on.
sub log_count
{
	my ($self, $pattern, $from) = @_;
	return scalar grep { /$pattern/ } split /\n/, slurp_file($self->logfile, $from // 0);
}

# The times of the log lines that match, from this offset on.
sub log_times
{
	my ($self, $pattern, $from) = @_;
	my @lines = grep { /$pattern/ } split /\n/, slurp_file($self->logfile, $from // 0);
	return map {
		my ($time) = /^(\S+ \S+ \S+) [^\[]*\[/ or die "no time: $_\n"; # 19 has %b before [%p]
		$self->_value("SELECT extract(epoch FROM timestamptz '$time')");
	} @lines;
}

# When the connection of a backend that has exited ended, by its own clock: the test may
# see later that it has exited.  undef if keepalive_events() does not have it.
sub ended_at
{
	my ($self, $pid) = @_;
	return $self->_value("SELECT extract(epoch FROM max(ended_at)) FROM keepalive_events() WHERE pid = $pid AND cause <> 'would_end'");
}

# Waits until a backend waits for this event (wait_event in pg_stat_activity): it has read
# the query that was sent, and runs it.
sub wait_for_wait_event
{
	my ($self, $pid, $event) = @_;
	my $observer = $self->unix_session;
	my $until = time + 60;
	until (($observer->value("SELECT wait_event FROM pg_stat_activity WHERE pid = $pid") // '') eq $event)
	{
		die "backend $pid does not wait for $event\n" if time > $until;
		usleep(10_000);
	}
	$observer->terminate;
	$self->wait_for_exit($observer->pid, 60);
	return;
}

# Waits until a backend has exited.  Returns the seconds that took, undef after the
# timeout.
sub wait_for_exit
{
	my ($self, $pid, $timeout) = @_;
	my $start = time;
	while (1)
	{
		my $looked = time;
		last unless -d "/proc/$pid";
		return if $looked - $start > $timeout;
		usleep(20_000);
	}
	return time - $start;
}

1;
