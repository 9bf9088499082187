# There is at most one policy reader, even if the worker restarts often: a new worker finds
# the reader that the previous worker started.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(seconds_until wait_for_kernel);
use KeepaliveGuard::Cluster;
use PostgreSQL::Test::Utils 'slurp_file';
use Test::More;
use Time::HiRes 'sleep';

my $primary = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1, conf => <<'END');
keepalive_guard.database = 'guarded'
hot_standby_feedback = on
END
$primary->safe_psql('postgres', 'CREATE DATABASE guarded');
$primary->safe_psql('guarded', 'CREATE EXTENSION keepalive_guard');

# The node's processes with this name, including those that are still connecting, which
# pg_stat_activity does not show.
sub processes
{
	my ($node, $name) = @_;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	return grep {
		(eval { slurp_file("/proc/$_/stat") } // '') =~ /\) \w $postmaster /
		  && (eval { slurp_file("/proc/$_/cmdline") } // '') =~ /keepalive_guard \Q$name\E/
	} map { m{(\d+)$} } glob '/proc/[0-9]*';
}

# Terminates the worker three times, and tests that one policy reader runs meanwhile.
sub survives_restarts
{
	my ($node, $name) = @_;
	my $from = $node->log_end;
	ok(defined seconds_until(10, sub { processes($node, 'policy reader') == 1 }), "$name: a policy reader runs");
	my ($reader) = processes($node, 'policy reader');
	foreach my $round (1 .. 3)
	{
		my ($worker) = processes($node, 'worker');
		kill 'TERM', $worker;
		seconds_until(10, sub { grep { $_ != $worker } processes($node, 'worker') }) // die "the worker is gone\n";
		sleep 1.5; # time to start another reader
		# A reader that finds another one exits at once.
		my @readers;
		seconds_until(10, sub { @readers = processes($node, 'policy reader'); "@readers" eq $reader });
		is_deeply(\@readers, [$reader], "$name: restart $round of the worker leaves the same policy reader");
	}
	is($node->log_count(qr/could not start the policy reader/, $from), 0, "$name: the worker does not fail to start a policy reader");
	return;
}

sub reader_exits
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(defined seconds_until(10, sub { !processes($primary, 'policy reader') }), 'the policy reader exits');
}

my $session = $primary->session;
my $admin = $primary->unix_session(dbname => 'guarded');
$admin->query(q{INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('a', '21s')});
ok(defined wait_for_kernel($session, { idle => 21 }, 10), 'a policy is in force');
reader_exits();

# --- a reader that waits for the table ----------------------------------------------

my $locker = $primary->unix_session(dbname => 'guarded');
$locker->query(q{BEGIN; LOCK TABLE keepalive_policy});
$primary->safe_psql('postgres', 'CREATE DATABASE reason_to_read');
survives_restarts($primary, 'table locked');

my ($reader) = processes($primary, 'policy reader');
kill 'TERM', $reader;
ok(defined seconds_until(10, sub { grep { $_ != $reader } processes($primary, 'policy reader') }),
	'the worker replaces a terminated policy reader that it did not start');

$locker->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '22s'; COMMIT});
ok(defined wait_for_kernel($session, { idle => 22 }, 10), 'the change is in force once the table is unlocked');
reader_exits();

# --- a crash --------------------------------------------------------------------------

$locker->query(q{BEGIN; LOCK TABLE keepalive_policy});
$primary->safe_psql('postgres', 'CREATE DATABASE another_reason');
ok(defined seconds_until(10, sub { processes($primary, 'policy reader') == 1 }), 'a policy reader runs');
$primary->append_conf('postgresql.conf', 'restart_after_crash = on');
$primary->reload;
my ($worker) = processes($primary, 'worker');
kill 'KILL', $worker;
ok(defined $primary->wait_for_exit($worker, 20), 'the worker is killed');
ok(defined seconds_until(20, sub { $session = eval { $primary->session } }), 'the server restarts after a crash of the worker');
ok(defined wait_for_kernel($session, { idle => 22 }, 20), 'the policy is in force');
reader_exits();
is(scalar processes($primary, 'worker'), 1, 'one worker runs');

# --- a reader that waits for its connection -------------------------------------------

$locker = $primary->unix_session;
$locker->query('BEGIN; ALTER DATABASE guarded RENAME TO elsewhere');
$primary->safe_psql('postgres', 'CREATE DATABASE third_reason');
survives_restarts($primary, 'database locked');
$locker->query('ROLLBACK');
$primary->safe_psql('guarded', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '23s'});
ok(defined wait_for_kernel($session, { idle => 23 }, 10), 'the next change is in force once the database is unlocked');

# --- a standby, where the reader stays ---------------------------------------------------

$primary->backup('base');
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
survives_restarts($standby, 'standby');
$session = $standby->session;
$primary->safe_psql('guarded', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '24s'});
ok(defined wait_for_kernel($session, { idle => 24 }, 10), 'standby: a change is in force');

is($_->log_count(qr/PANIC|TRAP/), 0, 'the server log has no crash') foreach $primary, $standby;

done_testing();
