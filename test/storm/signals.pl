# The update signal arrives in sessions of every kind, thousands of times a second, while
# they work, start and end.  No session gets an error or a wrong result, each has the last
# policy, and no other process is signalled.  STORM_SECONDS in the environment is the
# duration in seconds of each of the two storms (default 120):
#
# edits: policies are edited without a pause, and the worker signals every session;
# signals: a process sends the same signal to all sessions, and policies are edited.
#
# After that, sessions end while the worker is about to signal them.
# alone
use strict;
use warnings;

use File::Compare 'compare';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets 'client_socket';
use KeepaliveGuard::Settings qw(kernel_values_of seconds_until);
use KeepaliveGuard::Signals qw(caught_signals fork_with_pid);
use KeepaliveGuard::SlotMemory;
use KeepaliveGuard::Tls;
use KeepaliveGuard::Workloads;
use List::Util qw(max min sum0);
use POSIX ();
use PostgreSQL::Test::Utils 'slurp_file';
use Test::More;
use Time::HiRes qw(sleep time);

use constant {
	SYS_pidfd_open => 434,
	SYS_pidfd_send_signal => 424,
	BURST_SECONDS => 8, # edits between two looks at all sessions
	IN_FORCE_SECONDS => 1, # what doc promises
	SENT_PER_SECOND => 8000,
};

my $seconds = $ENV{STORM_SECONDS} || 120;

# --- the server ------------------------------------------------------------------------

my $archive = PostgreSQL::Test::Utils::tempdir();
my $received = PostgreSQL::Test::Utils::tempdir();
my $node = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 'logical',
	conf => KeepaliveGuard::Tls::conf($archive) . <<"END");
fsync = on
max_connections = 150
max_worker_processes = 20
max_parallel_workers = 4
max_wal_size = 256MB
autovacuum_naptime = 1s
archive_mode = on
archive_command = 'cp %p $archive/%f'
log_min_messages = warning
log_statement = none
log_connections = off
log_disconnections = off
keepalive_guard.log_lost_connections = off
END
my $admin = $node->unix_session;
KeepaliveGuard::Workloads->prepare($node);
$admin->query('CREATE ROLE target LOGIN');

# Replication of both kinds.  The subscriber's own sessions are no part of the test.
my $subscriber = KeepaliveGuard::Cluster->start_new('subscriber', allows_streaming => 'logical');
foreach my $server ($node, $subscriber)
{
	$server->safe_psql('postgres', 'CREATE TABLE replicated (i int PRIMARY KEY, t text)');
}
$admin->query('CREATE PUBLICATION storm FOR TABLE replicated');
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION storm CONNECTION"
	  . " 'host=127.0.0.1 port=@{[$node->port]} dbname=postgres user=worker' PUBLICATION storm");
$admin->query(q{SELECT pg_create_physical_replication_slot('receivewal', true)});
my @receivewal = ('pg_receivewal', '-D', $received, '--slot', 'receivewal', '--no-loop',
	'-d', "host=127.0.0.1 port=@{[$node->port]} user=worker");
my $receivewal_output = '';
my $receivewal = IPC::Run::start(\@receivewal, '<', \undef, '>&', \$receivewal_output);

# --- edits ---------------------------------------------------------------------------------

my $edits = 0;

# All values of the policy derive from one number.  A loop in the server makes more edits a
# second than one here would.
$admin->query(<<'END');
CREATE PROCEDURE edit(first int, last int) LANGUAGE plpgsql AS $$
DECLARE
	n int;
	seconds interval;
BEGIN
	FOR edit IN first .. last LOOP
		n := 10 + edit % 30000;
		seconds := make_interval(secs => n);
		IF edit % 1000 = 1 THEN
			TRUNCATE keepalive_policy;
			INSERT INTO keepalive_policy (name, keepalive) VALUES ('all', true);
		END IF;
		UPDATE keepalive_policy SET tcp_keepalives_idle = seconds, tcp_keepalives_interval = seconds,
			tcp_keepalives_count = n % 100 + 1, tcp_user_timeout = seconds, client_connection_check_interval = seconds;
		COMMIT;
	END LOOP;
END $$
END

# Returns the values of the last edit, as kernel_values_of() does.
sub edit
{
	my ($times) = @_;
	my $first = $edits + 1;
	$edits += $times;
	$admin->query("CALL edit($first, $edits)");
	my $n = 10 + $edits % 30000;
	return "$n/$n/" . ($n % 100 + 1) . '/' . $n * 1000;
}

# Edits once, and waits until each session over TCP that was there before has the values
# in the kernel.  Returns the seconds that took and the number of sessions, or what those
# have that have other values.
my @missing;

sub look
{
	my %waiting = map { ($_->[0] => $_->[1]) } @{ $admin->query(
			'SELECT pid, client_port FROM pg_stat_activity WHERE client_port > 0'
			  . " AND backend_type IN ('client backend', 'walsender') AND usesysid IS NOT NULL") };
	my $sessions = keys %waiting;
	my $expected = edit(1);
	my %has;
	my $took = seconds_until(
		IN_FORCE_SECONDS,
		sub {
			foreach my $pid (keys %waiting)
			{
				my $socket = client_socket($pid, $waiting{$pid});
				$has{$pid} = $socket && kernel_values_of($socket);
				delete $waiting{$pid} if !$socket || $has{$pid} eq $expected;
			}
			return !%waiting;
		});
	push @missing, map { "edit $edits, backend $_: $has{$_} instead of $expected" } keys %waiting unless defined $took;
	return ($took // IN_FORCE_SECONDS, $sessions);
}

# --- sessions that do nothing else ------------------------------------------------------------

edit(1);
my @targets = map { $node->session(user => 'target') } 1 .. 60;
$_->query('BEGIN') foreach @targets[ 0 .. 9 ];
my @slots = map { KeepaliveGuard::SlotMemory->new($_->pid, 'target') } @targets;

# The kernel has no room in their signal queues: signals get there without one
# (__send_signal_locked in the kernel).
system('prlimit', '--sigpending=0', '--pid', $_->pid) == 0 or die 'prlimit' foreach @targets[ 0 .. 19 ];

# How many signals these sessions have handled: each writes the slot once.
sub handled { return map { $_->sequence / 2 } @slots }

my $signal = caught_signals($targets[0]->pid);
my ($postmaster) = $admin->value(q{SELECT pg_read_file('postmaster.pid')}) =~ /^(\d+)/;
like($signal, qr/^\d+$/, "the update signal is real-time signal $signal");

# --- processes that take over the pids of sessions --------------------------------------------

# Runs code in a process of its own, which writes to a pipe.
sub start_process
{
	my ($code) = @_;
	pipe my $from, my $to or die "pipe: $!";
	my $pid = fork // die "fork: $!";
	return { pid => $pid, from => $from } if $pid;
	close $from;
	eval { $code->($to); 1 } or syswrite $to, "error: $@";
	POSIX::_exit(0); # skips the END blocks of the test
}

sub output_of
{
	my ($process) = @_;
	local $/ = undef;
	my $text = readline($process->{from}) // '';
	waitpid $process->{pid}, 0;
	return $text;
}

# Sessions start and end, and a process that counts signals takes over the pid of each.
# Writes a line for each signal that such a process gets, and at the end the number of
# processes.  If the worker's pid is given, the worker is stopped meanwhile, wherever it is.
sub take_pids
{
	my ($to, $until, $worker) = @_;
	my $canary = sub {
		my ($number, $info) = @_;
		syswrite $to, "signal $number from process $info->{pid}\n";
	};
	POSIX::sigaction($_, POSIX::SigAction->new($canary, POSIX::SigSet->new, POSIX::SA_SIGINFO()))
	  foreach POSIX::SIGTERM, POSIX::SIGRTMIN .. POSIX::SIGRTMAX;
	my ($taken, $lost, @living) = (0, 0);
	while (time < $until)
	{
		my @sessions = eval { map { $node->session(user => 'worker') } 1 .. ($worker ? 20 : 3) } or last;
		my @pids = map { $_->pid } @sessions;
		kill 'STOP', $worker if $worker;
		$_->vanish foreach @sessions;
		foreach my $ended (@pids)
		{
			$node->wait_for_exit($ended, 5);
			if (fork_with_pid($ended, 5, sub { sleep 1 while 1 }))
			{
				$taken++;
				push @living, $ended;
			}
			else { $lost++ }
		}
		kill 'CONT', $worker if $worker;
		sleep 0.02;
		end_process(shift @living) while @living > 40;
	}
	# The last one shows that signals are seen.
	kill $signal, $living[-1] if @living;
	sleep 0.3;
	end_process($_) foreach @living;
	syswrite $to, "own process $$\n$taken taken, $lost not taken\n$@";
	return;
}

sub end_process
{
	my ($pid) = @_;
	kill 'KILL', $pid;
	waitpid $pid, 0;
	return;
}

# --- the signal without an edit ------------------------------------------------------------------

# Whether this pid is that of a session that catches the signal.
sub is_session
{
	my ($pid) = @_;
	open my $status, '<', "/proc/$pid/status" or return 0;
	return 0 unless grep { /^PPid:\s+$postmaster$/ } <$status>;
	return (caught_signals($pid) // '') eq $signal;
}

# Sends the signal to all sessions, and very often to one after another.  A session ends
# while it gets them.  Writes how many were sent.
sub send_signals
{
	my ($to, $until) = @_;
	my $session = $node->unix_session;
	my ($began, $tries, $sent, $next_look, %process, @all) = (time, 0, 0, 0);
	while (time < $until)
	{
		if (time > $next_look)
		{
			my %seen = map { ($_->[0] => 1) } @{ $session->query('SELECT pid FROM keepalive_status()') };
			delete @process{ grep { !$seen{$_} } keys %process };
			foreach my $backend (grep { !$process{$_} } keys %seen)
			{
				# Its pid cannot be used again while the descriptor is there.
				my $fd = syscall(SYS_pidfd_open, $backend + 0, 0);
				next if $fd < 0;
				open $process{$backend}, '<&=', $fd or die "fdopen: $!";
				delete $process{$backend} unless is_session($backend);
			}
			@all = values %process;
			$next_look = time + 0.5;
		}
		my $often = $all[ rand @all ];
		my $due = SENT_PER_SECOND * (time - $began) - $tries;
		foreach (1 .. min($due, 3000))
		{
			my $to_whom = $tries++ % 2 ? $often : $all[ $tries / 2 % @all ];
			$sent++ if syscall(SYS_pidfd_send_signal, fileno $to_whom, $signal + 0, 0, 0) == 0;
		}
		sleep 0.002;
	}
	syswrite $to, "$sent\n";
	return;
}

# No process got a signal except the one that the test sent to itself.
sub only_own_signal
{
	my ($name, $text) = @_;
	my ($own) = $text =~ /^own process (\d+)$/m;
	my ($numbers, $taken) = $text =~ /^((\d+) taken, \d+ not taken)$/m;
	is_deeply([ $text =~ /^(signal.*)$/mg ], ['signal RTMAX from process ' . ($own // 'unknown')],
		"$name: a process with the pid of an ended session gets no signal except the test's");
	cmp_ok($taken // 0, '>', 10, "$name: processes take over pids (" . ($numbers // $text) . ')');
	return;
}

# --- the storms ---------------------------------------------------------------------------------

my $replicated = 0;

sub storm
{
	my ($name, $sends) = @_;
	my ($first_edit, $began, $until) = ($edits, time, time + $seconds);
	my $from = $node->log_end;
	my $work = KeepaliveGuard::Workloads->start($node, $until);
	my $canaries = start_process(sub { take_pids($_[0], $until) });
	my $sender = $sends && start_process(sub { send_signals($_[0], $until) });
	my @before = handled();
	@missing = ();
	my ($looks, $longest, $most_sessions, $sessions) = (0, 0, 0, 0);
	while (time < $until)
	{
		my $burst = time + BURST_SECONDS;
		while (time < $burst && time < $until)
		{
			edit($sends ? 1 : 20);
			$admin->query("INSERT INTO replicated SELECT i, md5(i::text) FROM generate_series("
				  . ($replicated + 1) . ', ' . ($replicated += 10) . ') AS i');
			sleep 0.1 if $sends;
		}
		(my $took, $sessions) = look();
		$looks++;
		$longest = max($longest, $took);
		$most_sessions = max($most_sessions, $sessions);
	}
	my @after = handled();
	my $took = time - $began;
	my $results = $work->finish;
	my $sent = $sender ? output_of($sender) =~ s/\n$//r : 0;
	my $canary = output_of($canaries);

	foreach my $kind (sort keys %$results)
	{
		my %result = %{ $results->{$kind} };
		is_deeply($result{errors}, [], "$name: no error, all results right: $kind ($result{rounds} rounds)");
		cmp_ok($result{rounds}, '>=', 1, "$name: has results: $kind");
	}
	my @handled = map { $after[$_] - $before[$_] } 0 .. $#slots;
	my $rate = sum0(@handled) / @handled / $took;
	my $checks = sum0(map { $_->{checks} } values %$results);
	note sprintf '%s: %.0f s, %d edits, %.0f signals a second to each idle session (at least %d, at most %d in all), '
	  . '%d sessions at most, %d signals sent by the test, %d results checked, %d rounds, %d parallel workers, %.0f MB copied, latest %.2f s',
	  $name, $took, $edits - $first_edit, $rate, (sort { $a <=> $b } @handled)[ 0, -1 ], $most_sessions, $sent,
	  $checks, sum0(map { $_->{rounds} } values %$results),
	  $results->{'parallel queries'}{workers} // 0,
	  sum0(map { $_->{megabytes} // 0 } values %$results), max(map { $_->{late} // 0 } values %$results);
	my $signals = $sends ? $sent / $took : $rate * $most_sessions;
	cmp_ok($signals, '>', $sends ? 1000 : 300, sprintf "$name: sessions get many signals a second (%.0f in %d sessions)", $signals, $most_sessions);
	is_deeply(\@missing, [], sprintf "$name: all sessions have the last of %d edits within %d s, %d times (longest %.2f s)",
		$edits - $first_edit, IN_FORCE_SECONDS, $looks, $longest);

	only_own_signal($name, $canary);
	is($targets[$_]->value('SHOW tcp_keepalives_idle'), 10 + $edits % 30000, "$name: SHOW agrees in session $_") foreach 0, 15, 40;
	return;
}

my $worker = $node->worker_pid;
storm('edits', 0);
storm('signals', 1);

# The worker is stopped between its look at a slot and the signal, among other places.
my $until = time + $seconds / 4;
my $canaries = start_process(sub { take_pids($_[0], $until, $worker) });
edit(20) while time < $until;
only_own_signal('a stopped worker', output_of($canaries));
@missing = ();
look();
is_deeply(\@missing, [], 'a stopped worker: all sessions have the last edit within a second after it goes on');

# --- what was replicated and archived --------------------------------------------------------------

my $sum = 'SELECT count(*), md5(string_agg(i || t, \',\' ORDER BY i)) FROM replicated';
my $expected = join ' ', @{ $admin->query($sum)->[0] };
my $there = $subscriber->unix_session;
my ($got, $rows, $progress) = ('', -1, time);
until ($got eq $expected || time > $progress + 30)
{
	$got = join ' ', map { $_ // '' } @{ $there->query($sum)->[0] };
	my ($now) = $got =~ /^(\d+)/;
	$progress = time if $now > $rows;
	$rows = $now;
	sleep 0.2;
}
is($got, $expected, "logical replication: all of $replicated rows are there");

my $last = $admin->value('SELECT pg_walfile_name(pg_current_wal_lsn())');
$admin->query('SELECT pg_switch_wal()');
seconds_until(30, sub { -e "$archive/$last" && -e "$received/$last" });
my @segments = map { m{/(\w{24})$} } glob "$archive/*";
is_deeply([ grep { compare("$archive/$_", "$received/$_") != 0 } @segments ], [],
	sprintf 'pg_receivewal and archive_command: all %d segments are the same', scalar @segments);
is($admin->value('SELECT failed_count FROM pg_stat_archiver'), 0, 'archive_command did not fail');
cmp_ok($admin->value(q{SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'autovacuumed'}), '>', 0, 'autovacuum workers processed the table');

# --- the end ---------------------------------------------------------------------------------------

my ($applied) = @{ $admin->query('SELECT sessions, applied, overridden, failed, pending, without_policy FROM keepalive_apply()') };
is(join(' ', @$applied[ 2 .. 5 ]), '0 0 0 0', "in the end all $applied->[0] sessions have the policy");
cmp_ok($applied->[1], '>', 60, 'there are sessions in the end');
is($node->worker_pid, $worker, 'the worker was not restarted');
$receivewal->signal('INT');
$receivewal->finish;
unlike($receivewal_output, qr/error|Interrupted/, 'pg_receivewal: no error');

# What the sessions cause on purpose.
my $expected_lines = join '|',
  'canceling statement due to (?:user request|statement timeout|lock timeout)', 'deadlock detected',
  'terminating connection due to (?:administrator command|idle-\S+ timeout|idle\S* timeout|transaction timeout)',
  'role "missing" does not exist', 'database (?:"missing"|\d+) does not exist',
  'LOG:  could not (?:send data to|receive data from) client|FATAL:  connection to client lost',
  'canceling autovacuum task|terminating autovacuum process|WARNING:  keepalive policy "all": \w+ is \S+, most likely a number of milliseconds';
foreach my $server ($node, $subscriber)
{
	my @lines = grep { !/$expected_lines/ }
	  grep { /WARNING|ERROR|FATAL|PANIC|TRAP|was terminated|Interrupted system call|could not/ } split /\n/, slurp_file($server->logfile);
	is_deeply(\@lines, [], "@{[$server->name]}: the server log has no unexpected message");
}

done_testing();
