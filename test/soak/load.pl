# A server with mixed load, while hosts, clients, poolers and the worker fail, and policies,
# roles and settings change.  Records, in a line of JSON each, what it does (deeds), which
# events the server reports, and how much memory and time that takes.
#
#   perl test/soak/load.pl MINUTES FILE
use strict;
use warnings;

# PostgreSQL::Test::Utils redirects STDOUT.
my $out;
BEGIN { open $out, '>&', \*STDOUT or die "STDOUT: $!" }

use JSON::PP ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Pooler;
use KeepaliveGuard::Program;
use KeepaliveGuard::Router;
use POSIX 'WNOHANG';
use PostgreSQL::Test::Utils 'slurp_file';
use Time::HiRes qw(sleep time);

my ($minutes, $file) = @ARGV;
my $duration = 60 * $minutes;
open my $records, '>', $file or die "$file: $!";
$records->autoflush;
$out->autoflush;

# --- records ----------------------------------------------------------------------------

my $json = JSON::PP->new->canonical;

sub record
{
	my ($kind, %values) = @_;
	print $records $json->encode({ kind => $kind, at => time, %values }), "\n";
	return;
}

# A session will end with this cause (a pattern), at most this many seconds from now.
# A session is { pid, port }; port is -1 for a Unix socket.
my $deeds = 0;

sub deed
{
	my ($session, $what, $cause, $promise) = @_;
	record('deed', key => "$session->{pid}:$session->{port}", what => $what, cause => "$cause", promise => 0 + $promise);
	$deeds++;
	return;
}

# --- a plan -----------------------------------------------------------------------------

my ($start, $last_round);
my @plan;

# Runs code in this many seconds.
sub later
{
	my ($seconds, $code) = @_;
	push @plan, { when => time + $seconds, code => $code };
	return;
}

# Runs code again and again, until the end.  The code returns the seconds until the next
# time.
sub repeatedly
{
	my ($seconds, $code) = @_;
	later($seconds, sub { repeatedly($code->(), $code) unless time > $last_round });
	return;
}

sub run_plan
{
	while (@plan)
	{
		@plan = sort { $a->{when} <=> $b->{when} } @plan;
		my $step = shift @plan;
		my $left = $step->{when} - time;
		sleep $left if $left > 0;
		$step->{code}->();
	}
	return;
}

# --- servers and hosts ------------------------------------------------------------------

my $network = KeepaliveGuard::Network->new;
my ($steady, $clients, $silent, $flaky, $restarted, $unreachable, $wal, $slow, $pool) =
  map { $network->add_host } 1 .. 9;
my $nat = KeepaliveGuard::Router->new(20, forgets_after => 6);

my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1, conf => <<'END');
max_connections = 300
max_wal_senders = 20
shared_buffers = 64MB
log_statement = none
log_replication_commands = off
max_wal_size = 128MB
log_checkpoints = off
END
$node->backup('base');
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

my $admin = $node->unix_session(application_name => 'admin');
my @roles = qw(steady planned kept dead observed stalled patient churn app);
$admin->query(join ';', map { "CREATE ROLE $_ LOGIN" } @roles);
$admin->query('CREATE ROLE team; CREATE ROLE monitor LOGIN IN ROLE pg_monitor; GRANT SELECT ON keepalive_policy TO monitor');
system('pgbench', '-iq', '-h', $node->host, '-p', $node->port, '-U', 'postgres', 'postgres') == 0 or die 'pgbench -i';
$admin->query('GRANT ALL ON ALL TABLES IN SCHEMA public TO steady, churn, app');

# What these roles are promised does not depend on what the other policies say.
my $within = 15;
$admin->query($admin->value("SELECT policy FROM keepalive_plan('$within s', NULL, true)"));
$admin->query("UPDATE keepalive_policy SET name = 'planned', priority = 10, role = 'planned'");
my %keepalive = (tcp_keepalives_interval => '1s', tcp_keepalives_count => 3, tcp_user_timeout => '6s',
	client_connection_check_interval => '2s', priority => 10);
$node->policy(name => 'kept', role => 'kept', %keepalive, tcp_keepalives_idle => '3s');
$node->policy(name => 'dead', role => 'dead', %keepalive, tcp_keepalives_idle => '2s',
	tcp_keepalives_count => 30, tcp_user_timeout => '60s', dead_after => '6s');
$node->policy(name => 'observed', role => 'observed', %keepalive, tcp_keepalives_idle => '2s',
	tcp_keepalives_count => 9, tcp_user_timeout => '12s');
$node->policy(name => 'log_only', role => 'observed', priority => 5, log_only => 1, dead_after => '5s');
$node->policy(name => 'stalled', role => 'stalled', %keepalive, tcp_user_timeout => 0, stall_timeout => '6s');
$node->policy(name => 'patient', role => 'patient', %keepalive, tcp_user_timeout => 0);
$node->policy(name => 'walsenders', backend => 'replication', client => $wal->address, %keepalive, tcp_keepalives_idle => '3s');
$node->policy(name => 'steady', role => 'steady', tcp_keepalives_idle => '60s');
$node->policy(name => 'team', role => '+team', tcp_keepalives_idle => '70s');
$node->policy(name => 'baseline', priority => 1000, tcp_keepalives_idle => '300s', tcp_keepalives_interval => '30s');
$node->policy(name => "noise $_", role => "/^noise_$_", database => 'nowhere', client => "192.0.2.$_/32",
	tcp_keepalives_idle => '90s')
  foreach 1 .. 40;
$node->wait_for_policies;

my $sampler = $node->unix_session(application_name => 'sampler');
my $monitor = $node->session(host => $steady, user => 'monitor', application_name => 'monitor');
$admin->query('SELECT keepalive_stats_reset()');
my $seen_until = $admin->value('SELECT extract(epoch FROM clock_timestamp())');
my $log_start = $node->log_end;
$start = time;
$last_round = $start + $duration;
record('start', minutes => 0 + $minutes, version => $admin->value('SHOW server_version'));
my $server_start = $admin->value('SELECT pg_postmaster_start_time()');

# The sessions of a program, from pg_stat_activity.
sub sessions_where
{
	my ($condition) = @_;
	return map { { pid => $_->[0], port => $_->[1] // -1 } }
	  @{ $admin->query("SELECT pid, client_port FROM pg_stat_activity WHERE $condition") };
}

sub session_of
{
	my ($application) = @_;
	my $until = time + 10;
	while (time < $until)
	{
		my ($session) = sessions_where("application_name = '$application'");
		return $session if $session;
		sleep 0.02;
	}
	die "$application does not connect\n";
}

my $programs = 0;

# Starts psql in a host.  Returns the program and its session.
sub psql
{
	my ($host, $role, $sql) = @_;
	my $name = 'psql ' . ++$programs;
	my $program = KeepaliveGuard::Program->start(
		[ $host->command('psql', '-XAtqo', '/dev/null', '-d',
				"host=@{[$host->server]} port=@{[$node->port]} user=$role dbname=postgres application_name='$name'") ]);
	$program->send($sql) if $sql;
	return ($program, session_of($name));
}

sub session
{
	my ($host, $role, %options) = @_;
	return $node->session(host => $host, user => $role, %options);
}

# In how many seconds, at most, keepalive_status() promises to find that a client is gone.
sub promise
{
	my ($session) = @_;
	return $admin->value('SELECT extract(epoch FROM greatest(detects_idle, detects_busy)) FROM keepalive_status() '
		  . "WHERE pid = $session->{pid}");
}

# A session ends with a Terminate message.
sub terminate
{
	my (@sessions) = @_;
	foreach my $session (@sessions)
	{
		deed($session, 'Terminate message', '^client_closed$', 1);
		eval { $session->terminate; 1 } or record('problem', text => "terminate: $@");
	}
	return;
}

# The ways to be connected: { state => session }.
sub in_all_states
{
	my ($host, $role) = @_;
	my %session = map { ($_ => session($host, $role)) } 'idle', 'idle in transaction', 'sleeping', 'listening', 'COPY';
	$session{'idle in transaction'}->query('BEGIN; SELECT 1');
	$session{sleeping}->send('SELECT pg_sleep(600)');
	$session{listening}->query("LISTEN news_$role");
	$session{COPY}->query('CREATE TEMP TABLE copied (i int); COPY copied FROM STDIN');
	return \%session;
}

# The sessions of in_all_states() end with a Terminate message.
sub terminate_all
{
	my ($session) = @_;
	$admin->query("SELECT pg_cancel_backend($session->{sleeping}{pid})");
	foreach (@$session{qw(sleeping COPY)})
	{
		eval {
			$_->_message('c', '') if $_ == $session->{COPY}; # CopyDone
			$_->result;
		} or record('problem', text => "the end of a query: $@");
	}
	terminate(map { $session->{$_} } sort keys %$session);
	return;
}

# --- load that stays --------------------------------------------------------------------

my @steady = map { session($steady, 'steady') } 1 .. 55;
push @steady, map { session($steady, 'steady', ipv6 => 1) } 1 .. 10;
my @unix = map { $node->unix_session(user => 'steady') } 1 .. 5;
$_->{port} = -1 foreach @unix, $admin, $sampler;
my $idle = $steady[0];
$steady[$_]->query('LISTEN anything') foreach 1 .. 5;
$steady[$_]->query('BEGIN') foreach 6 .. 8;
$steady[9]->send('SELECT pg_sleep(100000)');
$steady[10]->query('CREATE TEMP TABLE copied (i int); COPY copied FROM STDIN');

sub pgbench
{
	my ($host, $name, $role, $address, $port, $dbname, @options) = @_;
	return KeepaliveGuard::Program->start(
		[ $host->command('pgbench', '-n', '-T', 100000, @options,
				"host=$address port=$port user=$role dbname=$dbname application_name=$name") ]);
}
my @server = ($steady->server, $node->port, 'postgres');
my %program = (
	select => pgbench($steady, 'select', 'steady', @server, '-S', '-c', 4, '-R', 10),
	tpcb => pgbench($steady, 'tpcb', 'steady', @server, '-c', 4, '-R', 2),
	churn => pgbench($clients, 'churn', 'churn', $clients->server, @server[ 1, 2 ], '-S', '-C', '-c', 2, '-R', 1),
	psycopg2 => KeepaliveGuard::Program->start(
		[ $steady->command('python3', '-c', <<'END', $server[0], $server[1]) ]));
import sys, time, psycopg2
connections = [psycopg2.connect(host=sys.argv[1], port=sys.argv[2], user="steady", dbname="postgres",
                                application_name="psycopg2", keepalives_idle=10) for _ in range(10)]
while True:
    for connection in connections:
        connection.cursor().execute("SELECT count(*) FROM pg_class")
        connection.rollback()
        time.sleep(0.3)
END
# pgbench has one other connection before these.
my $until = time + 30;
sleep 0.05 until time > $until || $admin->value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'select'") == 4;
my ($busy) = sessions_where("application_name = 'select'");
session_of($_) foreach qw(tpcb psycopg2);

sub start_pool
{
	$program{pgbouncer} = KeepaliveGuard::Pooler::pgbouncer($node, $pool, 6432 + $programs++,
		'default_pool_size = 8', 'server_lifetime = 40', 'server_idle_timeout = 20');
	$program{pooled} = pgbench($pool, 'pooled', 'app', '127.0.0.1', 6431 + $programs, 'transaction', '-S', '-c', 6, '-R', 3);
	return;
}
start_pool();

sub check_runs
{
	my ($name) = @_;
	record('problem', text => "$name has ended by itself") if waitpid($program{$name}->pid, WNOHANG) != 0;
	return;
}

# Kills a program whose sessions match the condition.  It is stopped first, so that it opens
# and closes no other connection.
sub kill_program
{
	my ($name, $condition) = @_;
	my $program = $program{$name};
	my $is_harness = $program->isa('IPC::Run');
	check_runs($name) unless $is_harness;
	$is_harness ? $program->signal('STOP') : kill 'STOP', $program->pid;
	sleep 0.3;
	deed($_, "killed $name", '^(?:client_vanished|reset)$', 10) foreach sessions_where($condition);
	if ($is_harness)
	{
		$program->signal('KILL');
		eval { $program->finish };
	}
	else { $program->stop }
	return;
}

sub start_receivewal
{
	my $directory = $node->basedir . '/received';
	mkdir $directory;
	my @old = sort glob "$directory/*";
	unlink @old[ 0 .. $#old - 2 ] if @old > 2;
	my $name = 'receivewal ' . ++$programs;
	$program{receivewal} = KeepaliveGuard::Program->start(
		[ $wal->command('pg_receivewal', '-n', '-s', 1, '-D', $directory, '-d',
				"host=@{[$wal->server]} port=@{[$node->port]} user=postgres application_name='$name'") ]);
	$program{receivewal}{session} = session_of($name);
	return;
}
start_receivewal();

# --- faults -----------------------------------------------------------------------------

my $faults = 0;

# A kind of fault is a round that repeats.  The code plans its steps.  It gets a function,
# which the last step calls with the seconds until the next round.
sub fault
{
	my ($code) = @_;
	my $round;
	$round = sub { $code->(sub { later($_[0], $round) }) unless time > $last_round };
	later(1 + 2 * $faults++, $round);
	return;
}

# What ends a session of this role on a silent host.
my %silent_cause = (
	planned => '^(?:keepalive_timeout|user_timeout|dead_after)$',
	kept => '^(?:keepalive_timeout|user_timeout)$',
	dead => '^dead_after$');

# A host goes silent, for long enough.
my $silences = 0;
fault(sub {
	my ($again) = @_;
	my @roles = sort keys %silent_cause;
	my $role = $roles[ $silences++ % @roles ];
	my $sessions = in_all_states($silent, $role);
	my @observed = map { session($silent, 'observed') } 1 .. 2;
	later(3, sub {
		my %promise = map { ($_ => $role eq 'planned' ? $within : promise($sessions->{$_})) } keys %$sessions;
		my $until_timeout = promise($observed[0]);
		$silent->drop;
		deed($sessions->{$_}, "silent host, $_, $role", $silent_cause{$role}, $promise{$_}) foreach sort keys %$sessions;
		foreach (@observed)
		{
			deed($_, 'silent host, log_only', '^would_end$', 5 + 2 + 2);
			deed($_, 'silent host, after would_end', '^keepalive_timeout$', $until_timeout);
		}
		$admin->query("NOTIFY news_$role");
		later(24, sub {
			$_->vanish foreach values %$sessions, @observed;
			$silent->restore;
			$again->(3);
		});
	});
});

# A host is silent for a short time: nothing ends.
fault(sub {
	my ($again) = @_;
	my $sessions = in_all_states($flaky, 'planned');
	later(1, sub {
		record('spared', what => 'short outage', count => scalar keys %$sessions);
		$flaky->drop;
		$admin->query('NOTIFY news_planned');
		later(3, sub { $flaky->restore });
		later(14, sub {
			terminate_all($sessions);
			$again->(3);
		});
	});
});

# Clients end in several ways.
my $refusals = 0;
fault(sub {
	my ($again) = @_;
	my @ways = (
		[ 'vanish', '^client_vanished$' ], [ 'reset', '^reset$' ], [ 'half_close', '^client_vanished$' ]);
	foreach my $way (@ways)
	{
		my ($how, $cause) = @$way;
		my ($waiting, $working) = map { session($clients, 'planned') } 1 .. 2;
		$working->send('SELECT pg_sleep(600)');
		later(0.5, sub {
			deed($waiting, "client closes or resets, idle: $how", $cause, 1);
			deed($working, "client closes or resets, working: $how", $cause, $within);
			$_->$how foreach $waiting, $working;
		});
	}
	terminate(session($clients, 'churn'));
	my ($psql, $session) = psql($clients, 'kept');
	later(1, sub {
		deed($session, 'killed psql', '^client_vanished$', 1);
		$psql->stop;
	});
	my $victim = session($clients, 'churn');
	later(1, sub {
		deed($victim, 'pg_terminate_backend()', '^terminated$', 1);
		$admin->query("SELECT pg_terminate_backend($victim->{pid})");
	});
	my $forgotten = session($clients, 'churn');
	deed($forgotten, 'idle_session_timeout', '^terminated$', 3);
	$forgotten->query('SET idle_session_timeout = 2000');
	# Nobody tells this client the pid of its backend.
	my $port = 20000 + $refusals++;
	deed({ pid => 'refused', port => $port }, 'unknown role', '^authentication_failed$', 1);
	eval { session($clients, 'nobody', client_port => $port) } and record('problem', text => 'nobody can connect');
	later(5, sub {
		$_->vanish foreach $victim, $forgotten;
		$again->(3);
	});
});

# A host is restarted: it answers with resets.
fault(sub {
	my ($again) = @_;
	my $sessions = in_all_states($restarted, 'kept');
	later(1, sub {
		my %promise = map { ($_ => promise($sessions->{$_})) } keys %$sessions;
		$restarted->refuse;
		deed($sessions->{$_}, "restarted host, $_", '^reset$', $promise{$_}) foreach sort keys %$sessions;
		$admin->query('NOTIFY news_kept');
		later(11, sub {
			$_->vanish foreach values %$sessions;
			$restarted->restore;
			$again->(3);
		});
	});
});

# A router reports that a host is unreachable, while data is in flight.
fault(sub {
	my ($again) = @_;
	my @sessions = map { session($unreachable, 'kept') } 1 .. 3;
	$_->query('LISTEN news_unreachable') foreach @sessions;
	later(1, sub {
		my @promises = map { promise($_) } @sessions;
		$unreachable->unreachable;
		deed($_, 'unreachable host, notified', '^unreachable$', shift @promises) foreach @sessions;
		$admin->query('NOTIFY news_unreachable');
		later(14, sub {
			$_->vanish foreach @sessions;
			$unreachable->restore;
			$again->(5);
		});
	});
});

# A router forgets connections after 6 s.  Some are probed often enough.
fault(sub {
	my ($again) = @_;
	my @kept = map { session($nat, 'kept') } 1 .. 3;
	my @lost = map { session($nat, 'kept', options => '-c tcp_keepalives_idle=9') } 1 .. 3;
	foreach (@lost)
	{
		deed($_, 'forgotten by a router', '^keepalive_timeout$', 6 + promise($_));
	}
	record('spared', what => 'router', count => scalar @kept);
	later(28, sub {
		terminate(@kept);
		$_->vanish foreach @lost;
		$again->(3);
	});
});

# Clients that stop reading: one for too long, the others not.
my $rows = q{SELECT repeat('x', 10000) FROM generate_series(1, %d)};
fault(sub {
	my ($again) = @_;
	my ($stalled, $patient) = map { session($slow, $_, receive_buffer => 4096) } qw(stalled patient);
	my $copy = "SELECT pg_sleep(0.5)\\; COPY ($rows) TO STDOUT;\n\\q";
	my ($stopped, $stopped_session) = psql($slow, 'stalled', sprintf $copy, 6000);
	my ($resumed, $resumed_session) = psql($slow, 'patient', sprintf $copy, 6000);
	kill 'STOP', $_->pid foreach $stopped, $resumed;
	deed($_, 'stopped client', '^stall_timeout$', 0.5 + 6 + 2 + 1) foreach $stalled, $stopped_session;
	$stalled->send(sprintf $rows, 100_000);
	$patient->send(sprintf $rows, 300);
	record('spared', what => 'slow client', count => 2);
	later(15, sub {
		$stopped->stop;
		$stalled->vanish;
		$patient->result;
		terminate($patient);
		deed($resumed_session, 'resumed client', '^client_closed$', 20);
		kill 'CONT', $resumed->pid;
		later(18, sub {
			$resumed->stop;
			$again->(2);
		});
	});
});

# A pooler, programs and WAL receivers are killed.
fault(sub {
	my ($again) = @_;
	check_runs('pooled');
	kill_program('pgbouncer', "usename = 'app'");
	$program{pooled}->stop;
	start_pool();
	$again->(45);
});
my $silenced = 0;
fault(sub {
	my ($again) = @_;
	my $session = $program{receivewal}{session};
	$silenced = !$silenced;
	unless ($silenced)
	{
		kill_program('receivewal', "pid = $session->{pid}");
		start_receivewal();
		$again->(40);
		return;
	}
	my $promise = promise($session);
	deed($session, 'silent pg_receivewal', '^(?:keepalive_timeout|user_timeout)$', $promise);
	$wal->drop;
	later(14, sub {
		$program{receivewal}->stop;
		$wal->restore;
		start_receivewal();
		$again->(26);
	});
});

# --- changes ----------------------------------------------------------------------------

my $edits = 0;

# Waits until the last value is in force in every steady session, and calls a function with
# the seconds that took; undef if it is not in time.
sub await_edit
{
	my ($idle, $since, $then) = @_;
	my $without = $admin->value("SELECT count(*) FROM keepalive_status() WHERE usename = 'steady' AND transport = 'tcp'"
		  . " AND application_name <> 'psycopg2' AND tcp_keepalives_idle <> '$idle s'");
	my $seconds = time - $since;
	return later(0.02, sub { await_edit($idle, $since, $then) }) if $without && $seconds < 20;
	return $then->($without ? undef : $seconds);
}

my @edits = (
	sub { return "UPDATE keepalive_policy SET tcp_keepalives_interval = '$_[0] s' WHERE name LIKE 'noise %'" },
	sub { return "UPDATE keepalive_policy SET enabled = NOT enabled WHERE name = 'noise " . ($edits % 40 + 1) . q(') },
	sub {
		return 'BEGIN; CREATE TEMP TABLE p ON COMMIT DROP AS SELECT * FROM keepalive_policy; TRUNCATE keepalive_policy;'
		  . ' INSERT INTO keepalive_policy SELECT * FROM p; COMMIT';
	},
	sub { return "INSERT INTO keepalive_policy (name, priority, role, final) VALUES ('extra $edits', 1, 'team', true)" },
	sub { return "DELETE FROM keepalive_policy WHERE name LIKE 'extra %'" });

sub edit
{
	return if time > $last_round;
	my $idle = 60 + ++$edits % 600;
	my $edit = $edits[ $edits % @edits ]->($idle);
	$admin->query($edit);
	my $refused = $admin->try("INSERT INTO keepalive_policy (name, tcp_keepalives_count) VALUES ('bad', 1000)")->{error};
	$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s' WHERE name = 'steady'");
	await_edit($idle, time, sub {
		record('edit', refused => $refused ? 1 : 0, seconds => $_[0]);
		later(4, \&edit);
	});
	return;
}
later(3, \&edit);

my $changes = 0;
my @changes = (
	sub { return "ALTER ROLE churn SET tcp_keepalives_idle = $_[0]" },
	sub { return 'GRANT team TO churn, steady' },
	sub { return "CREATE ROLE temporary_$changes LOGIN; GRANT team TO temporary_$changes" },
	sub { return "ALTER ROLE temporary_@{[ $changes - 1 ]} RENAME TO temporary" },
	sub { return 'DROP ROLE temporary' },
	sub { return 'REVOKE team FROM churn, steady' },
	sub { return 'ALTER ROLE churn IN DATABASE postgres SET tcp_keepalives_count = ' . ($_[0] % 10 + 1) },
	sub { return 'ALTER ROLE churn RESET ALL; ALTER ROLE churn IN DATABASE postgres RESET ALL' });
repeatedly(4, sub {
	$admin->query($changes[ $changes % @changes ]->(100 + $changes % 100));
	$changes++;
	record('change');
	return 7;
});
repeatedly(5, sub {
	# Queries of their own, because ALTER SYSTEM is refused in a transaction.
	$admin->query('ALTER SYSTEM SET tcp_keepalives_interval = ' . (50 + $changes % 50));
	$admin->query('SELECT pg_reload_conf()');
	record('reload');
	return 20;
});

# Early and late, so that the worker's memory can be compared in between.
repeatedly(20, sub {
	my $part = (time - $start) / $duration;
	if ($part < 0.2 || $part > 0.92)
	{
		record('worker_killed');
		$admin->query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'keepalive_guard worker'");
	}
	return 60;
});

# --- observation ------------------------------------------------------------------------

my %query = (
	status => 'SELECT * FROM keepalive_status()',
	check => 'SELECT * FROM keepalive_check()',
	metrics => 'SELECT * FROM keepalive_metrics',
	openmetrics => 'SELECT keepalive_openmetrics()');
repeatedly(1, sub {
	foreach my $name (sort keys %query)
	{
		my $since = time;
		my $result = $monitor->try($query{$name});
		record('query', name => $name, ms => 1000 * (time - $since), rows => scalar @{ $result->{rows} },
			$result->{error} ? (error => $result->{error}{message}) : ());
	}
	return 5;
});

my (%event_seen, $events);
my @event_columns = qw(pid cause application_name usename client_port policies state detail);

sub read_events
{
	my $rows = $sampler->query('SELECT extract(epoch FROM ended_at), ' . join(', ', @event_columns)
		  . " FROM keepalive_events() WHERE ended_at > to_timestamp($seen_until) - interval '20 s' ORDER BY ended_at");
	foreach my $row (@$rows)
	{
		my ($ended_at, @values) = @$row;
		next if $ended_at < $start || $event_seen{"$ended_at $values[0]"}++;
		my %event;
		@event{@event_columns} = @values;
		record('event', ended_at => 0 + $ended_at, %event);
		$events++;
		$seen_until = $ended_at;
	}
	return;
}
repeatedly(2, sub { read_events(); return 3 });

sub memory
{
	my ($pid) = @_;
	my $text = eval { slurp_file("/proc/$pid/status") . slurp_file("/proc/$pid/smaps_rollup") } // return;
	my %kb = map { /^(RssAnon|Pss|Private_Dirty):\s+(\d+) kB/ ? ($1 => 0 + $2) : () } split /\n/, $text;
	return \%kb;
}

$admin->query("CREATE FUNCTION malloc_in_use() RETURNS bigint LANGUAGE c AS '$ENV{TESTDIR}/malloc_in_use'");
my %process = (
	postmaster => slurp_file($node->data_dir . '/postmaster.pid') =~ s/\n.*//sr,
	idle => $idle->pid, busy => $busy->{pid}, monitoring => $monitor->pid,
	'standby worker' => $standby->worker_pid);
repeatedly(4, sub {
	my ($worker, $shown, $active) = @{ $sampler->query(<<'END')->[0] };
SELECT max(pid) FILTER (WHERE backend_type = 'keepalive_guard worker'), (SELECT count(*) FROM keepalive_status()),
	count(*) FILTER (WHERE backend_type IN ('client backend', 'walsender')) FROM pg_stat_activity
END
	my ($fds, $ticks);
	if ($worker)
	{
		$fds = () = glob "/proc/$worker/fd/*";
		my @stat = split ' ', (eval { slurp_file("/proc/$worker/stat") } // '') =~ s/.*\) //sr;
		$ticks = $stat[11] + $stat[12] if @stat;
	}
	my %kb = map { ($_ => scalar memory($process{$_})) } keys %process;
	$kb{worker} = memory($worker) if $worker;
	$kb{monitoring}{malloc} = int($monitor->value('SELECT malloc_in_use()') / 1024);
	record('sample', worker => $worker, sessions => 0 + $shown, activity => 0 + $active,
		fds => $fds, ticks => $ticks, memory => \%kb,
		load => 0 + (split ' ', slurp_file('/proc/loadavg'))[0],
		lines => $node->log_count(qr/lost connection to client/, $log_start));
	return 10;
});
repeatedly(60, sub {
	printf $out "%3d min: %d deeds, %d events, %d edits\n", (time - $start) / 60, $deeds, $events, $edits;
	return 60;
});

# What must not be in the server logs.
sub log_problems
{
	return map { substr $_, 0, 300 }
	  grep { !/"keepalive_guard worker" .* exited with exit code 1$/ }
	  grep { /PANIC|TRAP|terminated by signal|exited with exit code|(?:WARNING|ERROR):  keepalive_guard/ }
	  map { split /\n/, slurp_file($_->logfile, $_ == $node ? $log_start : 0) } $node, $standby;
}

# judge reports that there is no record of the end.
unless (eval { run_plan(); 1 })
{
	record('problem', text => $_) foreach $@ =~ s/\n+$//r, log_problems();
	exit 0;
}

# --- the end ----------------------------------------------------------------------------

check_runs('pooled');
$program{pooled}->stop;
kill_program('pgbouncer', "usename = 'app'");
kill_program('receivewal', "pid = $program{receivewal}{session}{pid}");
kill_program($_, "application_name = '$_'") foreach qw(select tpcb churn psycopg2);
record('steady', count => scalar(@steady) + @unix, connected => scalar grep { -d "/proc/$_->{pid}" } @steady, @unix);
terminate_all({ sleeping => $steady[9], COPY => $steady[10] });
terminate(@steady[ 0 .. 8, 11 .. $#steady ], @unix, $monitor);

# admin, sampler and the standby's walsender stay.
$until = time + 20;
my $left;
do
{
	sleep 0.2;
	$left = $admin->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender')");
} while ($left > 3 && time < $until);
sleep 1;
read_events();
record('end',
	left => 0 + $left,
	sessions => 0 + $admin->value('SELECT count(*) FROM keepalive_status()'),
	restarted => $admin->value('SELECT pg_postmaster_start_time()') eq $server_start ? 0 : 1,
	ended => $admin->query('SELECT cause, lost, connections FROM keepalive_ended()'),
	stats => [ map { JSON::PP::decode_json($_->[0]) } @{ $admin->query('SELECT to_jsonb(s) FROM keepalive_stats() s') } ],
	lines => $node->log_count(qr/lost connection to client/, $log_start),
	worker_exits => $node->log_count(qr/"keepalive_guard worker" .* exited with exit code 1$/, $log_start),
	problems => [ log_problems() ]);
printf $out "%d deeds, %d events, %d edits\n", $deeds, $events, $edits;
