# Readers in a loop, of ordinary roles, keep nobody from ending or starting a session, nor
# the worker from publishing policies.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = KeepaliveGuard::Cluster->start_new('primary',
	conf => "autovacuum = off\nkeepalive_guard.max_policies = 20000\nkeepalive_guard.max_events = 1000\n");
$node->safe_psql('postgres', <<'END');
CREATE ROLE app LOGIN;
CREATE ROLE reader LOGIN;
INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle)
SELECT 'p' || i, 'role' || i, '60s' FROM generate_series(1, 10000) AS i;
END
$node->wait_for_policies;

# Events to read.
my $script = PostgreSQL::Test::Utils::tempdir . '/script';
PostgreSQL::Test::Utils::append_to_file($script, "SELECT 1;\n");
my ($out, $err) = ('', '');
IPC::Run::run([ 'pgbench', '-n', '-C', '-c', 8, '-t', 150, '-f', $script, '-U', 'app',
		'-h', '127.0.0.1', '-p', $node->port, 'postgres' ], '<', \undef, '>', \$out, '2>', \$err)
  or die $err;

sub loops
{
	my ($count, $statement) = @_;
	my @sessions = map { $node->unix_session(user => 'reader') } 1 .. $count;
	$_->send("DO \$\$BEGIN LOOP PERFORM $statement; END LOOP; END\$\$") foreach @sessions;
	sleep 1;
	return @sessions;
}

foreach my $statement ('count(*) FROM keepalive_events()', 'count(*) FROM keepalive_stats()',
	'count(*) FROM keepalive_explain(pg_backend_pid())')
{
	my @ending = map { $node->session(user => 'app') } 1 .. 20;
	my @readers = loops(16, $statement);
	my $start = time;
	$_->vanish foreach @ending;
	sleep 0.1 while time - $start < 15 && grep { -d '/proc/' . $_->pid } @ending;
	is(scalar(grep { -d '/proc/' . $_->pid } @ending), 0, "sessions end while 16 others run $statement");
	note sprintf 'after %.1f s', time - $start;

	$start = time;
	ok($node->session(user => 'app')->pid, 'a session starts');
	note sprintf 'after %.1f s', time - $start;
	$start = time;
	my $pending = $node->safe_psql('postgres', <<'END');
UPDATE keepalive_policy SET tcp_keepalives_idle = tcp_keepalives_idle + '1s' WHERE name = 'p1';
SELECT pending FROM keepalive_apply('30s');
END
	is($pending, 0, 'policies are published');
	note sprintf 'after %.1f s', time - $start;
	$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . $_->pid . ')') foreach @readers;
	$node->wait_for_exit($_->pid, 20) foreach @readers;
}

done_testing();
