# The causes of ended walsender connections.  A walsender exits with status 0 in every
# case, so the cause is taken from its messages and its socket.  Also the counters after a
# shutdown of each mode, and after a crash.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::ExpectedEvents;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets 'wait_until_acknowledged';
use KeepaliveGuard::Settings 'seconds_until';
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $network = KeepaliveGuard::Network->new;
my ($living, $silent) = map { $network->add_host } 1 .. 2;
my $node = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 'logical', conf => "autovacuum = off\nmax_wal_senders = 40\nmax_replication_slots = 40\n");
my $admin = $node->unix_session;
$admin->query('CREATE PUBLICATION everything FOR ALL TABLES; CREATE TABLE t (i int)');
$admin->query('VACUUM'); # otherwise later queries write WAL when they set hint bits

my $events = KeepaliveGuard::ExpectedEvents->new($node);
my $slots = 0;

# Opens a walsender that streams, except for kind "idle", and is expected to end with this
# cause.  Options: settings; host; columns of the event, as a hash.
sub walsender
{
	my ($kind, $name, $cause, %options) = @_;
	my $session = $node->session(
		host => $options{host} // $living,
		application_name => $name,
		options => join(' ', '-c wal_sender_timeout=0', map { "-c $_" } @{ $options{settings} // [] }),
		replication => $kind eq 'logical' ? 'database' : 'true');
	if ($kind eq 'physical')
	{
		$session->query('START_REPLICATION PHYSICAL ' . $admin->value('SELECT pg_current_wal_flush_lsn()'));
	}
	elsif ($kind eq 'logical')
	{
		my $slot = 'slot_' . $slots++;
		$session->query("CREATE_REPLICATION_SLOT $slot TEMPORARY LOGICAL pgoutput");
		$session->query("START_REPLICATION SLOT $slot LOGICAL 0/0 (proto_version '1', publication_names 'everything')");
	}
	$events->expect($session, "$kind: $name", $cause,
		application_name => $name, backend_type => 'walsender', %{ $options{columns} // {} });
	return $session;
}

my @keepalive = qw(tcp_keepalives_idle=1 tcp_keepalives_interval=1 tcp_keepalives_count=2);
my (@silent_sessions, @terminated);
foreach my $kind (qw(physical logical idle))
{
	walsender($kind, 'Terminate', 'client_closed', columns => { detail => undef })->terminate;
	# Not vanish: the kernel resets a connection that is closed with unread WAL.
	walsender($kind, 'FIN', 'client_vanished', columns => { detail => qr/CLOSE_WAIT/ })->half_close;
	walsender($kind, 'RST', 'reset', columns => { detail => qr/ECONNRESET in state CLOSE/ })->reset;
	push @terminated, walsender($kind, 'terminated', 'terminated',
		columns => { detail => 'SIGTERM from process ' . $admin->pid });
	push @silent_sessions, walsender($kind, 'silent', 'keepalive_timeout', host => $silent, settings => \@keepalive,
		columns => { unanswered_probes => 2 });
	next if $kind eq 'idle';
	walsender($kind, 'wal_sender_timeout', 'terminated', settings => ['wal_sender_timeout=1s'],
		columns => { detail => 'wal_sender_timeout' });
	walsender($kind, 'an unknown message', 'terminated',
		columns => { detail => qr/^unexpected message type/ })->_message('d', 'z');
}
$admin->query('SELECT pg_terminate_backend(' . $_->pid . ')') foreach @terminated;
# No WAL may be sent now.  The WAL writer flushes that of the slots within 0.2 s.  The
# background writer writes some every 15 s, so it is stopped.
my $bgwriter = $admin->value(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'});
kill 'STOP', $bgwriter;
sleep 0.7;
my $sent = seconds_until(20, sub { $admin->value(<<'END') eq 't' });
SELECT pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn() < 100 -- the header of a page
	AND (SELECT min(sent_lsn) FROM pg_stat_replication WHERE state = 'streaming') >= pg_current_wal_flush_lsn()
END
die "WAL is still to be sent\n" unless defined $sent;
wait_until_acknowledged($_->port) foreach @silent_sessions;
$silent->drop;
$events->check(20);
kill 'CONT', $bgwriter;
$silent->restore;

# The same with data in flight: WAL that is not acknowledged.
walsender($_, 'silent, WAL in flight', 'user_timeout', host => $silent, settings => ['tcp_user_timeout=1000'],
	columns => { detail => qr/data in flight/ })
  foreach qw(physical logical);
$silent->drop;
$admin->query('INSERT INTO t VALUES (1)');
$events->check(20);
$silent->restore;

# --- shutdown -------------------------------------------------------------------------

# Counters of sessions without policy.
sub counters
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', "SELECT $sql FROM keepalive_stats() WHERE policy IS NULL");
}

# Waits until all earlier sessions have ended, and resets the counters.  The session that
# resets them is then counted as client_closed.
sub reset_counters
{
	my $session = $node->unix_session;
	sleep 0.05 while $session->value('SELECT sum(sessions) FROM keepalive_stats()') > 1;
	$session->query('SELECT keepalive_stats_reset()');
	$session->terminate;
	$node->wait_for_exit($session->pid, 20);
	return;
}

$admin->terminate;
reset_counters();
my $target = PostgreSQL::Test::Utils::tempdir;
my @connection = ('-n', '-d', "host=@{[$living->server]} port=@{[$node->port]} user=postgres");
my $receivewal = $living->start('pg_receivewal', '-D', $target, @connection);
$connection[-1] .= ' dbname=postgres';
my $recvlogical = $living->start('pg_recvlogical', @connection, '--slot=real', '--create-slot',
	'--start', '-f', "$target/changes", '-P', 'pgoutput',
	'-o', 'proto_version=1', '-o', 'publication_names=everything');
$node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming'})
  or die "no replication\n";
my @open = ($node->session, $node->session(host => $living), $node->unix_session);
push @open, $node->session(host => $living, replication => 'true'); # that does not stream
push @open, $node->session(host => $living, replication => 'database');
$open[0]->query('BEGIN');
$open[1]->send('SELECT pg_sleep(60)');
my $counter = $node->unix_session;
defined seconds_until(20, sub { $counter->value('SELECT sum(sessions) FROM keepalive_stats()') == 8 }) or die "not eight sessions\n";
$counter->terminate;
$node->wait_for_exit($counter->pid, 20);
my $log = $node->log_end;
$node->stop('fast');
$_->kill_kill foreach $receivewal, $recvlogical;
$node->start;
is(counters('server_shutdown'), 7, 'a fast shutdown is counted as server_shutdown for all clients and walsenders')
  or diag($node->safe_psql('postgres', "SELECT * FROM keepalive_stats()"));
is(counters('client_vanished + reset + unknown + terminated'), 0, 'a fast shutdown is not counted with other causes');
is($node->log_count(qr/lost connection/, $log), 0, 'a fast shutdown logs no lost connection');

reset_counters();
my $last = $node->session;
system 'uncapped', 'pg_ctl', '-D', $node->data_dir, '-m', 'smart', '-W', 'stop', '-s';
sleep 0.5;
is($last->value('SELECT 1'), 1, 'a session works during a smart shutdown');
$last->terminate;
ok(defined $node->wait_for_exit($node->{_pid}, 20), 'the server stops once the last session has ended');
$node->_update_pid(0);
$node->start;
is(counters('server_shutdown, client_closed, sessions_total - sessions'), '0|2|2',
	'a smart shutdown counts sessions that ended by themselves as client_closed');

# A backend runs no code of the guard at SIGQUIT, so those sessions are not counted.
reset_counters();
@open = map { $node->session } 1 .. 3;
$node->stop('immediate');
$node->start;
is(counters('sessions_total - sessions, client_closed'), '1|1',
	'an immediate shutdown does not count the sessions that it ends, and keeps earlier counts');
is($node->safe_psql('postgres', 'SELECT count(*) > 10 FROM keepalive_events() WHERE ended_at < pg_postmaster_start_time()'),
	't', 'and keeps earlier events');

# --- a crash --------------------------------------------------------------------------

$node->append_conf('postgresql.conf', "restart_after_crash = on\n");
$node->reload;
my $victim = $node->session;
$victim->vanish;
$node->poll_query_until('postgres', 'SELECT count(*) > 0 FROM keepalive_events() WHERE cause = \'client_vanished\'');
$victim = $node->session;
$log = $node->log_end;
kill 'KILL', $victim->pid;
$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM keepalive_events() WHERE cause = \'client_vanished\'')
  or die "no restart\n";
is(counters('client_vanished + unknown'), 0, 'counters start at zero after a crash');
is($node->log_count(qr/ignoring invalid data|PANIC/, $log), 0, 'the crash does not log invalid data');

done_testing();
