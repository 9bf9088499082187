# Many connections to a server that end in every way (KeepaliveGuard::StormClients), with
# edits of policies, role changes and processes that are killed meanwhile, and tests of
# what is there afterwards.
#
#   my $storm = KeepaliveGuard::Storm->new($node, processes => 4, first_port => 10_000,
#       hosts => [ $network->add_host ]);
#   KeepaliveGuard::Storm->create_roles($node->unix_session);
#   $storm->open_sessions;
#   $storm->edit_policies;
#   $storm->run_part('first', 5000);     # connections; many tests
package KeepaliveGuard::Storm;

use strict;
use warnings;
use parent 'KeepaliveGuard::StormClients';

use KeepaliveGuard::KernelSockets 'socket_lines';
use KeepaliveGuard::Settings qw(kernel_values seconds_until);
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(sleep time);
use Time::Local 'timegm';

use constant MAX_CONNECTIONS => 200;

# The policies that the sessions of a role can have.
my %policies = (
	app => qr/^app,everybody$/,
	strict => qr/^strict,everybody$/,
	member => qr/^(?:crew,)?everybody$/,
	map { ($_ => qr/^$_,everybody$/) } qw(dead probed unanswered));

# A server that is started from now on returns memory that it frees to the kernel at once,
# so that its processes' RssAnon is what they use.  By default, malloc keeps as much as the
# largest result needed.
sub return_freed_memory
{
	@ENV{qw(MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_)} = (65_536) x 2;
	return;
}

# Creates the roles, and the policies that are not changed by policy_edit().
sub create_roles
{
	my ($class, $session) = @_;
	$session->query(<<'END');
CREATE ROLE everybody;
CREATE ROLE crew;
CREATE ROLE app LOGIN IN ROLE everybody;
CREATE ROLE strict LOGIN IN ROLE everybody;
CREATE ROLE member LOGIN IN ROLE everybody;
CREATE ROLE dead LOGIN IN ROLE everybody;
CREATE ROLE probed LOGIN IN ROLE everybody;
CREATE ROLE unanswered LOGIN IN ROLE everybody
END
	# Short times give warnings.
	$session->query(<<'END');
INSERT INTO keepalive_policy (name, priority, role, keepalive, tcp_keepalives_idle,
	tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout, dead_after) VALUES
('everybody', 1000, '+everybody', true, NULL, NULL, NULL, NULL, NULL),
('app', 100, 'app', NULL, '60s', '60s', 61, '60s', NULL),
('strict', 100, 'strict', NULL, '60s', '60s', 61, '60s', NULL),
('crew', 100, '+crew', NULL, '60s', '60s', 61, '60s', NULL),
('dead', 100, 'dead', NULL, '1s', '1s', 100, '0', '2s'),
('probed', 100, 'probed', NULL, '1s', '1s', 2, '0', NULL),
('unanswered', 100, 'unanswered', NULL, '100s', '100s', 9, '1500ms', NULL)
END
	return;
}

# --- the sessions that stay, and the policies ----------------------------------------------

# Opens a session of the superuser over the Unix socket, and the sessions that stay.
sub open_sessions
{
	my ($self) = @_;
	$self->{admin} = $self->{node}->unix_session;
	$self->{staying} = [
		map { { user => $_, session => $self->{node}->session(user => $_, application_name => 'stays') } }
		  qw(app app app strict strict strict member member) ];
	$self->{staying}[0]{session}->query('BEGIN');
	$self->{staying}[1]{session}->send('SELECT pg_sleep(3600)');
	$self->{staying}[3]{session}->query('BEGIN');
	$self->{staying}[4]{session}->send('SELECT pg_sleep(3600)');
	return;
}

sub staying { return map { $_->{session} } @{ $_[0]{staying} } }

# Changes the policies of the living clients: all their values derive from a number.  In
# turn: UPDATE, DELETE and INSERT, TRUNCATE and INSERT.
sub edit_policies
{
	my ($self) = @_;
	my $number = ++$self->{edits};
	my $n = $self->{value} = $number % 30_000 + 10;
	my $count = $n % 100 + 1;
	my $set = "tcp_keepalives_idle = '$n s', tcp_keepalives_interval = '$n s', tcp_keepalives_count = $count, tcp_user_timeout = '$n s'";
	my $where = q{name IN ('app', 'strict', 'crew')};
	my $insert = "INSERT INTO keepalive_policy SELECT * FROM saved; UPDATE keepalive_policy SET $set WHERE $where";
	$self->{admin}->query(
		$number % 10 == 1 ? "BEGIN; CREATE TEMP TABLE saved ON COMMIT DROP AS SELECT * FROM keepalive_policy; TRUNCATE keepalive_policy; $insert; COMMIT"
		: $number % 10 == 5 ? "BEGIN; CREATE TEMP TABLE saved ON COMMIT DROP AS SELECT * FROM keepalive_policy WHERE $where;"
		  . " DELETE FROM keepalive_policy WHERE $where; $insert; COMMIT"
		: "UPDATE keepalive_policy SET $set WHERE $where");
	return;
}

# Changes memberships, roles and their settings.
sub change_roles
{
	my ($self) = @_;
	my $number = $self->{role_changes}++;
	my $what = $number % 6;
	if ($what % 3 == 0)
	{
		$self->{crew} = !$self->{crew};
		$self->{admin}->query($self->{crew} ? 'GRANT crew TO member' : 'REVOKE crew FROM member');
	}
	elsif ($what == 1) { $self->{admin}->query("CREATE ROLE temporary_$number LOGIN IN ROLE everybody, crew") }
	elsif ($what == 2) { $self->{admin}->query(q{ALTER ROLE app SET application_name = 'app'}) }
	elsif ($what == 4)
	{
		my $name = 'temporary_' . ($number - 3);
		$self->{admin}->query("ALTER ROLE $name RENAME TO renamed; DROP ROLE renamed");
	}
	else { $self->{admin}->query('ALTER ROLE app RESET application_name') }
	return;
}

# The policies here are those of another server, from which they are replicated.
sub follow
{
	my ($self, $other) = @_;
	@$self{qw(value crew edits role_changes)} = @$other{qw(value crew edits role_changes)};
	return;
}

# The sessions that stay, or others of the same form, which do not have the last policy in
# the kernel: "role: values instead of values" for each.
sub late_sessions
{
	my ($self, @sessions) = @_;
	my $n = $self->{value};
	my $values = "$n/$n/" . ($n % 100 + 1) . '/' . $n * 1000;
	my @late;
	foreach my $staying (@sessions ? @sessions : @{ $self->{staying} })
	{
		my $expected = $staying->{user} eq 'member' && !$self->{crew} ? '7200/75/9/0' : $values;
		my $kernel = eval { kernel_values($staying->{session}) } // 'no socket';
		push @late, "$staying->{user}: $kernel instead of $expected" if $kernel ne $expected;
	}
	return @late;
}

# Waits until nobody is connected but the superuser and the sessions that stay.  Returns
# the number of sessions.
sub wait_until_quiet
{
	my ($self) = @_;
	my $expected = 1 + @{ $self->{staying} };
	my $count;
	seconds_until(60, sub { ($count = $self->{admin}->value(q{SELECT count(*) FROM keepalive_status() WHERE backend_type = 'client backend'})) == $expected });
	return $count;
}

# --- the ledger ------------------------------------------------------------------------------

# The number of queries of the reader, and by how many kB its backend has grown.
sub _reads
{
	my ($self) = @_;
	my ($reads, $growth) = (0, 0);
	foreach my $reading (@{ $self->{readings} })
	{
		next unless $reading->{deed} =~ /^reads: (\d+), (-?\d+) kB/;
		$reads += $1;
		$growth = $2 if $2 > $growth;
	}
	return ($reads, $growth);
}

# What the reader and the clients have found.  Connections may be lost by a crash, and
# refused until the server accepts connections again.
sub _problems
{
	my ($self) = @_;
	my ($crashed_at, $accepts_at) = @{ $self->{part} }{qw(since accepts_at)};
	my @problems;
	foreach my $entry (@{ $self->{readings} }, @{ $self->{entries} })
	{
		my $deed = $entry->{deed};
		next if $self->cause_of_deed($deed) || $deed =~ /^reads/;
		next if $deed =~ /^(?:lost|not ended)/ && $entry->{asked} <= $crashed_at;
		next if $deed =~ /^refused/ && $entry->{asked} <= $accepts_at;
		push @problems, "$entry->{user} $entry->{port} $entry->{pid}: $deed";
	}
	return @problems;
}

# Compares the ledger with keepalive_events(): each session that asked after the crash, if
# there was one, has one event with its cause and policies (none, if these had not been read
# again), and there is no other event of these roles.  Returns what is wrong.
sub _wrong_events
{
	my ($self) = @_;
	my ($since, $in_force_at) = @{ $self->{part} }{qw(since in_force_at)};
	my (%event, @wrong);
	my $rows = $self->{admin}->query(sprintf <<'END', $since);
SELECT pid, client_port, cause, usename, array_to_string(policies, ',')
FROM keepalive_events()
WHERE ended_at > to_timestamp(%.3f) AND usename <> 'postgres'
END
	foreach my $row (@$rows)
	{
		my ($pid, $port, $cause, $user, $policies) = @$row;
		push @{ $event{ _key($user, $port, $pid) } }, { cause => $cause, policies => $policies // '' };
	}
	foreach my $entry (grep { $_->{asked} > $since && $self->cause_of_deed($_->{deed}) } @{ $self->{entries} })
	{
		my ($deed, $user) = @$entry{qw(deed user)};
		my $key = _key($user, $entry->{port}, $entry->{pid});
		my $event = shift @{ $event{$key} // [] };
		my $problem = !$event ? 'there is no event'
		  : $event->{cause} ne $self->cause_of_deed($deed) ? "cause is $event->{cause}"
		  : $user ne 'nobody' && $event->{policies} !~ $policies{$user}
		  && !($event->{policies} eq '' && $entry->{asked} < $in_force_at) ? "policies are $event->{policies}"
		  : next;
		push @wrong, "$key: $deed: $problem";
	}
	foreach my $key (sort keys %event)
	{
		push @wrong, "$key: unexpected event: $_->{cause}" foreach @{ $event{$key} };
	}
	return @wrong;
}

# A client that could not log in does not know the backend's pid.
sub _key
{
	my ($user, $port, $pid) = @_;
	return $user eq 'nobody' ? "$user $port" : "$user $port $pid";
}

# Compares keepalive_stats() with keepalive_events(), by policy and cause, for all sessions
# that ended since the counters were zero.  Returns what is wrong.
sub _wrong_counters
{
	my ($self) = @_;
	my @causes = qw(client_closed client_vanished reset keepalive_timeout user_timeout
	  retransmit_timeout unreachable dead_after stall_timeout terminated server_shutdown unknown);
	my $counters = join ', ', map { "('$_', $_)" } @causes, qw(authentication_failed would_end);
	my $rows = $self->{admin}->query(sprintf <<'END', $counters, $self->{part}{since}, join ' + ', @causes);
WITH counted AS (SELECT coalesce(policy, 'no policy') AS policy, cause, count
	FROM keepalive_stats(), LATERAL (VALUES %s) AS x (cause, count)),
events AS (SELECT unnest(coalesce(policies, '{no policy}')) AS policy, cause, count(*)
	FROM keepalive_events() WHERE ended_at > to_timestamp(%.3f) GROUP BY 1, 2)
SELECT format('%%s, %%s: %%s counted, %%s events', policy, cause, coalesce(c.count, 0), coalesce(e.count, 0))
FROM counted c FULL JOIN events e USING (policy, cause)
WHERE coalesce(c.count, 0) <> coalesce(e.count, 0)
UNION ALL
SELECT format('%%s: sessions_total is %%s', policy, sessions_total)
FROM keepalive_stats() WHERE sessions_total - sessions <> %s
END
	return map { $_->[0] } @$rows;
}

# --- parts of a storm, with their tests -----------------------------------------------------

# Settings of the server, with room for the events of this many connections.
sub conf
{
	my ($connections) = @_;
	return <<"END";
max_connections = ${\MAX_CONNECTIONS}
restart_after_crash = on
log_timezone = 'UTC'
log_connections = off
log_disconnections = off
log_statement = none
keepalive_guard.log_lost_connections = off
keepalive_guard.max_events = ${\($connections + 10_000)}
END
}

# Runs clients that make this many connections, edits policies and changes roles meanwhile,
# and tests what is there afterwards.  Options: as for begin_part().
sub run_part
{
	my ($self, $name, $connections, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$self->begin_part($name, $connections, %options);
	$self->step until $self->is_over;
	$self->end_part;
	return;
}

# Options: terminate_workers => 1: each second, one of the two workers gets SIGTERM; crash:
# the backend_type of a process that gets SIGKILL after half of the connections; follows:
# the storm that edits the policies, which are replicated.
sub begin_part
{
	my ($self, $name, $connections, %options) = @_;
	$connections = 300 if $connections < 300;
	$self->wait_until_quiet;
	$self->{admin}->query('SELECT keepalive_stats_reset()');
	my $now = time;
	$self->{part} = {
		%options, name => $name, connections => $connections, start => $now, since => $now,
		accepts_at => 0, in_force_at => 0, next_worker => $now + 1 };
	$self->begin($connections, failed_logins => !$options{crash});
	return;
}

# From now on, policies are edited here.
sub stop_following
{
	my ($self) = @_;
	$self->follow(delete $self->{part}{follows});
	seconds_until(10, sub { !$self->late_sessions });
	return;
}

# One edit, and what is due.
sub step
{
	my ($self) = @_;
	my $part = $self->{part};
	if ($part->{follows}) { $self->follow($part->{follows}) }
	else
	{
		$self->edit_policies;
		$self->change_roles if $self->{edits} % 5 == 0;
	}
	$self->_check_last_edit if $self->{edits} % 50 == 0;
	if ($part->{terminate_workers} && time > $part->{next_worker})
	{
		my $worker = $self->{admin}->value(q{SELECT pid FROM pg_stat_activity
			WHERE backend_type LIKE 'keepalive_guard%' ORDER BY random() LIMIT 1});
		$self->{done}{'SIGTERM of workers'} += kill 'TERM', $worker if $worker;
		$part->{next_worker} = time + 1;
	}
	$self->_crash if $part->{crash} && !$part->{accepts_at} && $self->connections > $part->{connections} / 2;
	sleep 0.05;
	return;
}

# Waits for the end of the clients, and tests what they leave.
sub end_part
{
	my ($self) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $part = $self->{part};
	my $name = $part->{name};
	$self->_crash if $part->{crash} && !$part->{accepts_at};
	$self->follow($part->{follows}) if $part->{follows};
	my $made = $self->end->connections;
	my $seconds = time - $part->{start};
	my $since = $part->{since};

	is($self->wait_until_quiet, 1 + $self->staying, "$name: keepalive_status() has only the sessions that stay");
	seconds_until(10, sub { !$self->late_sessions });
	is_deeply([ $self->late_sessions ], [], "$name: every session has the last policy");
	is($self->{admin}->value(q{SELECT sessions FROM keepalive_apply('30s')}),
		$self->{admin}->value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender')}),
		"$name: no slot is in use without session");
	is_deeply([ $self->_problems ], [], "$name: no client and no reader has a problem");
	is_deeply([ $self->_wrong_events ], [], "$name: each session has its event");
	is_deeply([ $self->_wrong_counters ], [], "$name: the counters are those of the events");
	is_deeply([ $self->_wrong_rows ], [], "$name: the rows are those of the kernel and of pg_stat_activity");
	my ($reads, $growth) = $self->_reads;
	cmp_ok($growth, '<=', 300, "$name: the backend of the reader has not grown ($growth kB, $reads queries)");
	if ($part->{crash})
	{
		my $before = sprintf 'to_timestamp(%.3f)', $since;
		is($self->{admin}->value("SELECT count(*) FROM keepalive_events() WHERE ended_at < $before"), 0,
			"$name: no event is older than the crash");
		is($self->{admin}->value("SELECT count(*) FROM keepalive_stats() WHERE stats_reset < $before"), 0,
			"$name: the counters began at zero after the crash");
	}

	my $compared = grep { $_->{asked} > $since && $self->cause_of_deed($_->{deed}) } @{ $self->{entries} };
	cmp_ok($compared, '>', 0, "$name: connections are compared");
	$self->{done}{ $_->{deed} =~ s/:.*//r }++ foreach @{ $self->{entries} };
	$self->{done}{seconds} += $seconds;
	$self->{done}{reads} += $reads;
	$self->{done}{compared} += $compared;
	note sprintf '%s: %d connections in %.0f s, %d of them compared, %d queries (%d kB more)',
	  $name, $made, $seconds, $compared, $reads, $growth;
	return;
}

# Kills a process of the part's type, waits until the server accepts connections again, and
# opens the sessions that stay again.
sub _crash
{
	my ($self) = @_;
	my $type = $self->{part}{crash};
	my $log = $self->{node}->log_end;
	# Not one that has exited since: the postmaster may not have noticed that yet.
	seconds_until(30, sub {
		my $pid = $self->{admin}->value("SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND application_name <> 'stays' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1")
		  or $self->edit_policies; # which starts a policy reader
		return $pid && kill('KILL', $pid)
		  && defined seconds_until(5, sub { $self->{node}->log_count(qr/\(PID $pid\) was terminated by signal 9/, $log) });
	}) // die "there is no $type\n";
	# The log has whole milliseconds.  Recovery takes longer.
	$self->{part}{since} = 0.005 + $self->_logged_at($log, 'all server processes terminated; reinitializing');
	seconds_until(60, sub { eval { $self->{node}->unix_session->terminate; 1 } }) // die "the server does not accept connections\n";
	$self->{part}{accepts_at} = time;
	$self->{part}{in_force_at} = 0.005 + $self->_logged_at($log, 'keepalive policies of database "postgres" are in force');
	$self->{done}{"SIGKILL of $type"}++;
	$self->open_sessions;
	$self->start_reader;
	return;
}

# When a line was logged, from this place of the log on.
sub _logged_at
{
	my ($self, $log, $text) = @_;
	my @time;
	seconds_until(60, sub {
		@time = PostgreSQL::Test::Utils::slurp_file($self->{node}->logfile, $log) =~
		  /^(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+)(\.\d+) .*\Q$text\E/m;
	}) // die "the server does not log: $text\n";
	return timegm(@time[ 5, 4, 3, 2 ], $time[1] - 1, $time[0]) + $time[6];
}

# The last edit reaches the sessions that stay: how long that takes.
sub _check_last_edit
{
	my ($self) = @_;
	my $took = seconds_until(10, sub { !$self->late_sessions }) // 10;
	$self->{done}{'slowest edit'} = $took if $took > ($self->{done}{'slowest edit'} // 0);
	return;
}

# Compares the rows of the sessions that stay with the kernel and with pg_stat_activity.
# Returns what is wrong.
sub _wrong_rows
{
	my ($self) = @_;
	my $rows = $self->{admin}->query(<<'END');
SELECT a.pid, a.usename = s.usename AND a.datname = s.datname AND a.application_name = s.application_name
		AND a.client_addr = s.client_addr AND a.client_port = s.client_port,
	concat_ws('/', extract(epoch FROM tcp_keepalives_idle)::int, extract(epoch FROM tcp_keepalives_interval)::int,
		tcp_keepalives_count, (1000 * extract(epoch FROM tcp_user_timeout))::int),
	s.tcp_state, s.policy_state, array_to_string(s.policies, ',')
FROM pg_stat_activity a LEFT JOIN keepalive_status() s USING (pid)
WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
END
	my %row = map { (shift @$_ => [ map { $_ // 'NULL' } @$_ ]) } @$rows;
	my %line = map { ($_->{peer_port} => $_) } socket_lines();
	my @wrong;
	foreach my $staying (@{ $self->{staying} })
	{
		my ($user, $session) = @$staying{qw(user session)};
		my $expected = join ' ', 't', kernel_values($session), $line{ $session->port }{state} =~ s/^ESTAB$/ESTABLISHED/r, 'applied';
		my ($same, $values, $state, $policy_state, $policies) = @{ delete $row{ $session->pid } // [ ('no row') x 5 ] };
		my $shown = join ' ', $same, $values, $state, $policy_state;
		push @wrong, "$user: $shown instead of $expected" if $shown ne $expected;
		push @wrong, "$user: policies are $policies" if $policies !~ $policies{$user};
	}
	push @wrong, map { "a row more: pid $_" } sort keys %row;
	return @wrong;
}

# --- what stays as it is ----------------------------------------------------------------------

# The same of the postmaster, the worker and the sessions that stay.
sub memory
{
	my ($self) = @_;
	$self->wait_until_quiet;
	return {
		postmaster => KeepaliveGuard::StormClients::private_memory($self->{node}{_pid}),
		worker => KeepaliveGuard::StormClients::private_memory($self->{node}->worker_pid),
		map { ("session $_" => KeepaliveGuard::StormClients::private_memory($self->{staying}[$_]{session}->pid)) } 0 .. $#{ $self->{staying} } };
}

# Tests that no process has grown since: a leak of 20 bytes for each of ten thousand
# connections is more than malloc and PostgreSQL's caches vary.
sub check_memory
{
	my ($self, $name, $before) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $now = $self->memory;
	foreach my $process (sort keys %$before)
	{
		my ($from, $to) = ($before->{$process}, $now->{$process});
		my $memory = "$from->{kilobytes} kB, then $to->{kilobytes} kB";
		is($to->{pid}, $from->{pid}, "$name: the $process is the same");
		cmp_ok($to->{kilobytes} - $from->{kilobytes}, '<=', 200, "$name: the $process has not grown ($memory)");
		cmp_ok($to->{files}, '<=', $from->{files}, "$name: the $process has no more files open");
		note "$name: $process: $memory" if $process !~ /[1-9]/;
	}
	return;
}

# Tests that sessions fill all free connections, and that each has its policy and gets a
# change of it.
sub check_room
{
	my ($self) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$self->wait_until_quiet;
	my @all = @{ $self->{staying} };
	eval { push @all, { user => 'strict', session => $self->{node}->session(user => 'strict') } while @all < 2 * MAX_CONNECTIONS };
	like($@, qr/^FATAL: 53300/, 'connections are refused only at max_connections');
	is(@all + 1, MAX_CONNECTIONS - $self->{admin}->value('SHOW superuser_reserved_connections'), 'sessions fill all free connections');
	is_deeply([ $self->late_sessions(@all) ], [], 'every session has its policy with all connections in use');
	$self->edit_policies;
	seconds_until(5, sub { !$self->late_sessions(@all) });
	is_deeply([ $self->late_sessions(@all) ], [], 'every session gets a change with all connections in use');
	$_->{session}->terminate foreach @all[ @{ $self->{staying} } .. $#all ];
	is($self->wait_until_quiet, 1 + $self->staying, 'their slots are free again');
	return;
}

# Tests that the server log has no unexpected message.
sub check_log
{
	my ($self) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $killed = 0;
	$killed += $self->{done}{$_} foreach grep { /^SIGKILL/ } keys %{ $self->{done} };
	my $expected = qr/due\ to\ administrator\ command|terminating\ connection\ because\ of\ crash
		|connection\ to\ client\ lost
		|WARNING:\ \ keepalive\ policy\ "|the\ database\ system\ is\ (?:in\ recovery\ mode|starting\ up|not\ yet\ accepting\ connections)
		|role\ "nobody"\ does\ not\ exist|invalid\ frontend\ message\ type\ 1|too\ many\ clients|remaining\ connection\ slots
		|was\ terminated\ by\ signal\ 9/x;
	my @lines = grep { /WARNING|ERROR|FATAL|PANIC|TRAP|failed|was terminated/ } split /\n/,
	  PostgreSQL::Test::Utils::slurp_file($self->{node}->logfile);
	is_deeply([ grep { !/$expected/ } @lines ], [], 'the server log has no unexpected message');
	is(scalar(grep { /was terminated by signal/ } @lines), $killed, 'only the killed processes crashed');
	return;
}

# All that was done, in one line.
sub summary
{
	my ($self) = @_;
	my %done = (%{ $self->{done} }, edits => $self->{edits}, 'role changes' => $self->{role_changes});
	return join ', ', map { sprintf '%s: %.6g', $_, $done{$_} } sort keys %done;
}

1;
