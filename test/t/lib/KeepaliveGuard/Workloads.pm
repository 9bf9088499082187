# Sessions of many kinds that check their own results again and again, each kind in a
# process of its own.
#
#   KeepaliveGuard::Workloads->prepare($node);            # tables, functions, files
#   my $work = KeepaliveGuard::Workloads->start($node, $until);
#   my $results = $work->finish;    # { kind => { rounds, checks, errors => [...], ... } }
package KeepaliveGuard::Workloads;

use strict;
use warnings;

use Digest::SHA 'sha256_hex';
use IPC::Run ();
use JSON::PP qw(decode_json encode_json);
use KeepaliveGuard::Session;
use List::Util 'min';
use POSIX ();
use Time::HiRes qw(sleep time);

# Seconds by which a busy machine may be late.  A timeout that never fires is much later.
use constant SLACK => 5;

use constant MOST_ERRORS => 5;

# { name => { needs => extension, round => function } }
my %kinds;

sub _kind
{
	my ($name, $round, %options) = @_;
	$kinds{$name} = { %options, round => $round };
	return;
}

# --- what the functions below use ---------------------------------------------------

# A session of this name, which stays until it ends by itself.
sub session
{
	my ($self, $name, %options) = @_;
	return $self->{sessions}{ $name // '' } //= $self->{node}->session(user => 'worker', %options);
}

sub forget { delete $_[0]{sessions}{ $_[1] // '' } }

# Each call is a result that was checked.
sub check
{
	my ($self, $got, $expected, $what) = @_;
	$self->{checks}++;
	die "$what: " . ($got // 'NULL') . " instead of $expected\n" if ($got // '') ne $expected;
	return;
}

# What happens at its time: not before, and not much later.
sub check_time
{
	my ($self, $started, $due, $what) = @_;
	my $seconds = time - $started;
	$self->{checks}++;
	die sprintf "%s: after %.3f s instead of %.3f s\n", $what, $seconds, $due
	  if $seconds < $due || $seconds > $due + SLACK;
	my $late = $seconds - $due;
	$self->{late} = $late if $late > ($self->{late} // 0);
	return;
}

# The SQLSTATE of the error that a session has got; "" if none.
sub sqlstate
{
	my ($result) = @_;
	return $result->{error} ? $result->{error}{sqlstate} : '';
}

# Runs a program, which must succeed and print no error.
sub program
{
	my ($self, @command) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err) or die "@command: $err\n";
	die "@command: $err\n" if $err ne '';
	return $out;
}

sub file
{
	my ($self, $name) = @_;
	return "$self->{directory}/$name";
}

sub sha256_of
{
	my ($name) = @_;
	open my $file, '<:raw', $name or die "$name: $!\n";
	return Digest::SHA->new(256)->addfile($file)->hexdigest;
}

sub wait_for
{
	my ($session, $pid, $event) = @_;
	my $until = time + SLACK;
	until (($session->value("SELECT wait_event FROM pg_stat_activity WHERE pid = $pid") // '') eq $event)
	{
		die "backend $pid does not wait for $event\n" if time > $until;
		sleep 0.01;
	}
	return;
}

# --- SQL ----------------------------------------------------------------------------

_kind 'PL/pgSQL with exceptions' => sub {
	my ($self) = @_;
	$self->check($self->session->value('SELECT caught_errors(1000)'), '467 caught, 533 kept', 'caught_errors()');
};

_kind 'pg_sleep' => sub {
	my ($self) = @_;
	my $seconds = 0.05 + rand 1.5;
	my $s = $self->session;
	my $started = time;
	$self->check($s->value("SELECT pg_sleep($seconds)::text || 42"), 42, 'pg_sleep()');
	$self->check_time($started, $seconds, 'pg_sleep()');
};

_kind 'sort in files' => sub {
	my ($self) = @_;
	$self->check($self->session->value(<<'END'), '2000 1-50000', 'sort');
SET work_mem = '64kB';
SELECT count(DISTINCT i % 2000) || ' ' || min(i) || '-' || max(i) FROM (SELECT i FROM big ORDER BY md5(i::text) OFFSET 0) AS sorted
END
};

_kind 'cursors' => sub {
	my ($self) = @_;
	my $s = $self->session;
	$s->query('BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT i FROM generate_series(1, 20000) AS i');
	$s->query('DECLARE other SCROLL CURSOR FOR SELECT i FROM big ORDER BY i');
	$self->check($s->value('MOVE 100 IN other; FETCH PRIOR FROM other'), 99, 'a scrolled cursor');
	$self->check($s->value('FETCH 1 FROM held'), 1, 'a cursor');
	$s->query('COMMIT');
	my $next = 2;
	while ($next < 20_000)
	{
		my @rows = map { $_->[0] } @{ $s->query('FETCH 1999 FROM held') };
		my $last = $next + 1998 > 20_000 ? 20_000 : $next + 1998;
		$self->check("@rows", join(' ', $next .. $last), 'a held cursor');
		$next = $last + 1;
	}
	$s->query('CLOSE held');
};

_kind 'large objects' => sub {
	my ($self) = @_;
	my $s = $self->session;
	my $oid = $s->value(q{SELECT lo_from_bytea(0, decode(repeat('00', 300000), 'hex'))});
	$s->query("SELECT lo_put($oid, 100000, decode(repeat('ab', 100000), 'hex'))");
	$self->check($s->value("SELECT encode(sha256(lo_get($oid)), 'hex')"),
		sha256_hex("\0" x 100_000 . "\xab" x 100_000 . "\0" x 100_000), 'lo_get()');
	my $file = $self->file('lo');
	$self->check($s->value("SELECT lo_export($oid, '$file')"), 1, 'lo_export()');
	my $copy = $s->value("SELECT lo_import('$file')");
	$self->check($s->value("SELECT lo_get($copy) = lo_get($oid)"), 't', 'lo_import()');
	$s->query("SELECT lo_unlink($oid), lo_unlink($copy)");
	unlink $file;
};

_kind 'LISTEN' => sub {
	my ($self) = @_;
	my $listener = $self->session('listener');
	my $notifier = $self->session('notifier');
	$listener->query('LISTEN storm') unless $self->{listens}++;
	my @sent;
	foreach (1 .. 5)
	{
		my @payloads = map { 'message ' . ++$self->{message} } 1 .. 20;
		$notifier->query(join '; ', map { "NOTIFY storm, '$_'" } @payloads);
		push @sent, @payloads;
	}
	my @got = map { $_->[1] } $listener->notifications(scalar @sent, SLACK);
	$self->check("@got", "@sent", 'notifications');
};

_kind 'parallel queries' => sub {
	my ($self) = @_;
	my $s = $self->session;
	$s->query(<<'END') unless $self->{is_set}++;
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2; SET enable_mergejoin = off; SET enable_nestloop = off; SET work_mem = '16MB'
END
	my $sql = 'SELECT count(*), sum(a.i) FROM big AS a JOIN big AS b USING (i)';
	my $plan = join "\n", map { $_->[0] } @{ $s->query("EXPLAIN (ANALYZE, COSTS off, TIMING off) $sql") };
	die "not a parallel plan: $plan\n" unless $plan =~ /Parallel Hash Join/;
	$self->{workers} += $plan =~ /Workers Launched: (\d)/ ? $1 : 0;
	$self->check(join(' ', @{ $s->query($sql)->[0] }), '50000 1250025000', 'a parallel query');
	$s->query('SET min_parallel_index_scan_size = 0; DROP INDEX IF EXISTS big_hash; CREATE INDEX big_hash ON big (md5(i::text))');
};

# --- COPY ----------------------------------------------------------------------------

# psql is the client: COPY in both directions in one session.
sub _copy
{
	my ($self, $table, $ssl) = @_;
	my $in = $self->file('copied');
	my $out = $self->file("$table.out");
	my $answer = $self->program('env', "PGSSLMODE=$ssl", 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
		'-d', "host=127.0.0.1 port=@{[$self->{node}->port]} dbname=postgres user=worker",
		'-c', 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()',
		map { ('-c', "TRUNCATE $table", '-c', "\\copy $table from $in", '-c', "\\copy (SELECT * FROM $table ORDER BY i) to $out") } 1 .. 3);
	$self->check($answer, $ssl eq 'require' ? "t\n" : "f\n", 'pg_stat_ssl');
	$self->{sum} //= sha256_of($in);
	$self->check(sha256_of($out), $self->{sum}, 'COPY in both directions');
	$self->{megabytes} += 6 * (-s $in) / 1e6;
	return;
}

_kind 'COPY' => sub { $_[0]->_copy('copy_plain', 'disable') };
_kind 'COPY over TLS' => sub { $_[0]->_copy('copy_tls', 'require') };

_kind 'a large result over TLS' => sub {
	my ($self) = @_;
	my $out = $self->program('env', 'PGSSLMODE=require', 'psql', '-XAtq',
		'-d', "host=127.0.0.1 port=@{[$self->{node}->port]} dbname=postgres user=worker",
		'-c', q{SELECT repeat(i::text, 200) FROM generate_series(1, 5000) AS i});
	$self->{sum} //= sha256_hex(join '', map { $_ x 200 . "\n" } 1 .. 5000);
	$self->check(sha256_hex($out), $self->{sum}, 'a result');
};

_kind 'COPY PROGRAM' => sub {
	my ($self) = @_;
	my $s = $self->session;
	my $file = $self->file('program');
	$s->query(q{TRUNCATE numbers; COPY numbers FROM PROGRAM 'sleep 0.2; seq 1 20000'});
	$self->check($s->value('SELECT sum(i) FROM numbers'), 200_010_000, 'COPY FROM PROGRAM');
	$s->query("COPY (SELECT i FROM numbers ORDER BY i) TO PROGRAM 'sleep 0.1; cat >$file'");
	my $expected = join '', map { "$_\n" } 1 .. 20_000;
	$self->check($s->value("SELECT encode(sha256(pg_read_binary_file('$file')), 'hex')"), sha256_hex($expected), 'COPY TO PROGRAM');
	$s->query("COPY (SELECT i FROM numbers ORDER BY i) TO '$file'");
	$self->check(sha256_hex($s->value("SELECT pg_read_file('$file')")), sha256_hex($expected), 'pg_read_file()');
};

# Looks at errno after a system call that fails.
_kind 'missing files' => sub {
	my ($self) = @_;
	$self->check($self->session->value(q{SELECT count(pg_read_file('missing', 0, 1, true)) FROM generate_series(1, 20000)}),
		0, 'pg_read_file()');
};

# --- timeouts, locks, cancelling --------------------------------------------------------

# These sessions end after each round.  One whose only interrupts are cancelled statements
# never comes to ProcessProcSignalBarrier() (ProcessInterrupts() raises the error before
# that), and DROP DATABASE waits for it.

_kind 'statement_timeout' => sub {
	my ($self) = @_;
	my $s = $self->{node}->session(user => 'worker');
	$s->query(q{SET statement_timeout = '400ms'});
	foreach my $sql ('SELECT pg_sleep(60)', 'DO $$BEGIN LOOP END LOOP; END$$')
	{
		my $started = time;
		$self->check(sqlstate($s->try($sql)), 57014, 'statement_timeout');
		$self->check_time($started, 0.4, 'statement_timeout');
	}
};

_kind 'lock_timeout, deadlock_timeout' => sub {
	my ($self) = @_;
	my ($first, $second) = map { $self->{node}->session(user => 'worker') } 1, 2;
	$first->query('BEGIN; LOCK TABLE lock_a');
	$second->query(q{BEGIN; SET LOCAL lock_timeout = '300ms'; LOCK TABLE lock_b});
	my $started = time;
	$self->check(sqlstate($second->try('LOCK TABLE lock_a')), '55P03', 'lock_timeout');
	$self->check_time($started, 0.3, 'lock_timeout');
	$_->query('ROLLBACK') foreach $first, $second;

	$_->query(q{BEGIN; SET LOCAL deadlock_timeout = '300ms'}) foreach $first, $second;
	$first->query('LOCK TABLE lock_a');
	$second->query('LOCK TABLE lock_b');
	$started = time;
	$first->send('LOCK TABLE lock_b');
	$second->send('LOCK TABLE lock_a');
	my @states = sort map { sqlstate($_->result) } $first, $second;
	$self->check("@states", ' 40P01', 'a deadlock');
	$self->check_time($started, 0.3, 'deadlock_timeout');
	$_->query('ROLLBACK') foreach $first, $second;
};

_kind 'timeouts of idle sessions' => sub {
	my ($self) = @_;
	my @timeouts = ([ '25P03', q{SET idle_in_transaction_session_timeout = '400ms'; BEGIN; SELECT 1} ],
		[ '57P05', q{SET idle_session_timeout = '400ms'} ]);
	push @timeouts, [ '25P04', q{SET transaction_timeout = '400ms'; BEGIN; SELECT 1} ] if $self->{version} >= 17;
	foreach my $timeout (@timeouts)
	{
		my ($state, $sql) = @$timeout;
		my $s = $self->{node}->session(user => 'worker');
		my $started = time;
		$s->query($sql);
		$self->check(sqlstate($s->result), $state, 'the timeout of an idle session');
		$self->check_time($started, 0.4, 'the timeout of an idle session');
	}
};

_kind 'pg_cancel_backend, pg_terminate_backend' => sub {
	my ($self) = @_;
	my $s = $self->session;
	foreach my $case ([ 'pg_cancel_backend', 57014 ], [ 'pg_terminate_backend', '57P01' ])
	{
		my ($function, $state) = @$case;
		my $other = $self->{node}->session(user => 'worker');
		$other->send('SELECT pg_sleep(60)');
		wait_for($s, $other->pid, 'PgSleep');
		my $started = time;
		$s->query("SELECT $function(@{[$other->pid]})");
		$self->check(sqlstate($other->result), $state, $function);
		$self->check_time($started, 0, $function);
	}
};

_kind 'advisory locks' => sub {
	my ($self) = @_;
	my ($holder, $waiter) = map { $self->session($_) } 1, 2;
	$holder->query('SELECT pg_advisory_lock(7)');
	my $started = time;
	$waiter->send('SELECT pg_advisory_lock(7), 42');
	sleep 0.3;
	$holder->query('SELECT pg_advisory_unlock(7)');
	$self->check($waiter->result->{rows}[0][1], 42, 'pg_advisory_lock()');
	$self->check_time($started, 0.3, 'pg_advisory_lock()');
	$self->check($waiter->value('SELECT pg_advisory_unlock(7)'), 't', 'pg_advisory_unlock()');
};

# --- files, connections to servers -------------------------------------------------------

_kind 'CREATE DATABASE, CHECKPOINT' => sub {
	my ($self) = @_;
	my $s = $self->session;
	$s->query('CREATE DATABASE copied STRATEGY file_copy');
	my $other = $self->{node}->session(user => 'worker', dbname => 'copied');
	$self->check($other->value('SELECT count(*) > 300 FROM pg_class'), 't', 'a copied database');
	$other->terminate;
	$s->query('CHECKPOINT');
	$s->query('DROP DATABASE copied');
	sleep 0.5;
};

_kind 'VACUUM, REINDEX' => sub {
	my ($self) = @_;
	my $s = $self->session;
	$s->query('INSERT INTO dead SELECT generate_series(1, 2000); DELETE FROM dead');
	$s->query('REINDEX INDEX CONCURRENTLY dead_index');
	$s->query('VACUUM FULL dead');
	$s->query('INSERT INTO autovacuumed SELECT generate_series(1, 1000); DELETE FROM autovacuumed');
	$self->check($s->value('SELECT count(*) FROM dead'), 0, 'a table');
	sleep 0.5;
};

_kind 'postgres_fdw' => sub {
	my ($self) = @_;
	my $s = $self->session;
	$self->check($s->value('SELECT sum(i) FROM far_big WHERE i <= 1000'), 500_500, 'a foreign table');
	$self->check($s->value('SELECT sum(i) FROM far_slow'), 55, 'a slow foreign table');
	$s->query('BEGIN; INSERT INTO far_numbers VALUES (1); ROLLBACK');
	$self->check($s->value('SELECT count(*) FROM far_numbers'), 0, 'a foreign table after ROLLBACK');
	$s->query('SELECT postgres_fdw_disconnect_all()');
};

_kind 'dblink' => sub {
	my ($self) = @_;
	my $s = $self->session;
	my $connection = "host=127.0.0.1 port=@{[$self->{node}->port]} dbname=postgres user=worker";
	my $started = time;
	$self->check($s->value("SELECT i FROM dblink('$connection', 'SELECT 42 FROM pg_sleep(0.3)') AS t (i int)"), 42, 'dblink()');
	$self->check_time($started, 0.3, 'dblink()');
	$s->query("SELECT dblink_connect('a', '$connection')");
	$s->query(q{SELECT dblink_send_query('a', 'SELECT i FROM generate_series(1, 5000) AS i')});
	$self->check($s->value(q{SELECT sum(i) FROM dblink_get_result('a') AS t (i int)}), 12_502_500, 'dblink_get_result()');
	$s->query(q{SELECT dblink_disconnect('a')});
};

_kind 'PL/Python' => sub {
	my ($self) = @_;
	my $started = time;
	$self->check($self->session->value('SELECT python_waits()'), 'slept 0, read 1000000', 'PL/Python');
	$self->check_time($started, 0.6, 'PL/Python');
}, needs => 'plpython3u';

_kind 'pg_basebackup' => sub {
	my ($self) = @_;
	my $directory = $self->file('base');
	system 'rm', '-rf', $directory;
	$self->program('pg_basebackup', '-d', "host=127.0.0.1 port=@{[$self->{node}->port]} user=worker",
		'-D', $directory, '--checkpoint', 'fast', '--wal-method', 'stream');
	$self->check($self->program('pg_verifybackup', '-q', $directory), '', 'pg_verifybackup');
	sleep 2;
};

# --- short sessions -----------------------------------------------------------------------

_kind 'short sessions' => sub {
	my ($self) = @_;
	my $node = $self->{node};
	foreach my $way (0 .. 6)
	{
		my $s = eval {
			$node->session(
				user => $way == 5 ? 'missing' : 'worker',
				dbname => $way == 6 ? 'missing' : 'postgres',
				$way == 3 ? (replication => 'true') : ());
		};
		if ($way >= 5)
		{
			$self->check($@ =~ /^FATAL: (\w+)/ ? $1 : 'a session', $way == 5 ? 28000 : '3D000', 'a refused connection');
			next;
		}
		die $@ unless $s;
		$self->check($s->value($way == 3 ? 'SHOW port' : 'SELECT inet_server_port()'), $node->port, 'a short session') if $way;
		if ($way == 1) { $s->vanish }
		elsif ($way == 2)
		{
			$s->send('SELECT pg_sleep(0.1)');
			$s->reset;
		}
		elsif ($way == 4)
		{
			my $result = $s->try('SELECT pg_terminate_backend(pg_backend_pid())');
			$self->check(sqlstate($result), '57P01', 'a session that terminates itself');
		}
		else { $s->terminate }
	}
};

# --- running them ---------------------------------------------------------------------------

# Creates what the kinds use.
sub prepare
{
	my ($class, $node) = @_;
	my $directory = $node->basedir;
	open my $file, '>', "$directory/copied" or die "copied: $!";
	print $file "$_\t" . sha256_hex($_) . "\n" foreach 1 .. 30_000;
	close $file;

	my $s = $node->unix_session;
	$s->query('CREATE ROLE worker SUPERUSER LOGIN');
	$s->query('CREATE TABLE big AS SELECT i FROM generate_series(1, 50000) AS i');
	$s->query('ANALYZE big');
	$s->query("CREATE UNLOGGED TABLE $_ (i int, t text)") foreach qw(copy_plain copy_tls);
	$s->query("CREATE UNLOGGED TABLE $_ (i int)") foreach qw(lock_a lock_b numbers dead);
	$s->query('CREATE INDEX dead_index ON dead (i)');
	$s->query('CREATE TABLE autovacuumed (i int) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0)');
	$s->query(<<'END');
CREATE FUNCTION caught_errors(n int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	caught int := 0;
	kept int[];
BEGIN
	FOR i IN 1 .. n LOOP
		BEGIN
			kept := kept || i;
			IF i % 3 = 0 THEN PERFORM 1 / 0; ELSIF i % 5 = 0 THEN RAISE 'as told'; END IF;
		EXCEPTION WHEN division_by_zero OR raise_exception THEN
			caught := caught + 1;
			kept := trim_array(kept, 1);
		END;
	END LOOP;
	RETURN format('%s caught, %s kept', caught, cardinality(kept));
END $$
END
	$s->query('CREATE EXTENSION postgres_fdw');
	$s->query('CREATE EXTENSION dblink');
	my $port = $node->port;
	$s->query(<<"END");
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR worker SERVER far OPTIONS (user 'worker');
CREATE VIEW slow AS SELECT i FROM generate_series(1, 10) AS i, pg_sleep(0.03);
CREATE TABLE plain_numbers (i int);
CREATE FOREIGN TABLE far_big (i int) SERVER far OPTIONS (table_name 'big');
CREATE FOREIGN TABLE far_slow (i int) SERVER far OPTIONS (table_name 'slow');
CREATE FOREIGN TABLE far_numbers (i int) SERVER far OPTIONS (table_name 'plain_numbers')
END
	if ($s->value(q{SELECT count(*) FROM pg_available_extensions WHERE name = 'plpython3u'}))
	{
		$s->query('CREATE EXTENSION plpython3u');
		$s->query(<<'END');
CREATE FUNCTION python_waits() RETURNS text LANGUAGE plpython3u AS $$
import socket, subprocess, time
time.sleep(0.3)
status = subprocess.run(['sleep', '0.3']).returncode
a, b = socket.socketpair()
sender = subprocess.Popen(['head', '-c', '1000000', '/dev/zero'], stdout=b)
b.close()
read = 0
while True:
    part = a.recv(65536)
    if not part:
        break
    read += len(part)
sender.wait()
return 'slept %d, read %d' % (status, read)
$$
END
	}
	$s->terminate;
	return;
}

# Starts all kinds, or those that are named, until this time.
sub start
{
	my ($class, $node, $until, @names) = @_;
	my $s = $node->unix_session;
	my %extension = map { ($_->[0] => 1) } @{ $s->query('SELECT extname FROM pg_extension') };
	$s->terminate;
	@names = sort keys %kinds unless @names;
	my $self = bless { directory => $node->basedir, processes => {} }, $class;
	foreach my $name (@names)
	{
		next if $kinds{$name}{needs} && !$extension{ $kinds{$name}{needs} };
		my $pid = fork // die "fork: $!";
		if (!$pid)
		{
			eval { _run($class, $node, $name, $until); 1 } or warn "$name: $@";
			POSIX::_exit(0); # skips the END blocks of the test
		}
		$self->{processes}{$name} = $pid;
	}
	return $self;
}

sub _result_file
{
	my ($directory, $name) = @_;
	return "$directory/result_" . $name =~ s/\W+/_/gr;
}

sub _run
{
	my ($class, $node, $name, $until) = @_;
	srand;
	my $self = bless {
		node => $node,
		directory => $node->basedir,
		version => $node->pg_version =~ /^(\d+)/ ? $1 : 0,
		sessions => {}, rounds => 0, checks => 0, errors => [] }, $class;
	while (time < $until && @{ $self->{errors} } < MOST_ERRORS)
	{
		my $started = time;
		if (eval { $kinds{$name}{round}->($self); 1 }) { $self->{rounds}++ }
		else
		{
			push @{ $self->{errors} }, $@ =~ s/\n$//r;
			delete @$self{qw(sessions listens is_set)};
		}
		# All kinds together need more than the machine has.
		sleep(min(2, 0.02 + 2 * (time - $started)));
	}
	my %result = map { ($_ => $self->{$_}) } grep { !/^(?:node|directory|version|sessions|sum|message|listens|is_set)$/ } keys %$self;
	open my $file, '>', _result_file($self->{directory}, $name) or die $!;
	print $file encode_json(\%result);
	close $file;
	return;
}

# Waits until all have ended.  A kind that has crashed has no rounds.
sub finish
{
	my ($self) = @_;
	my %results;
	foreach my $name (sort keys %{ $self->{processes} })
	{
		waitpid $self->{processes}{$name}, 0;
		my $file = _result_file($self->{directory}, $name);
		my $text = '';
		if (open my $from, '<', $file)
		{
			local $/ = undef;
			$text = <$from>;
			unlink $file;
		}
		$results{$name} = $text ? decode_json($text) : { rounds => 0, checks => 0, errors => ['no result'] };
	}
	$self->{processes} = {};
	return \%results;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	kill 'KILL', $_ foreach values %{ $self->{processes} // {} };
	return;
}

1;
