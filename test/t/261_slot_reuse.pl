# Slots are used by one session after another while the worker writes into them.  No
# session gets the policy of the previous one.
use strict;
use warnings;

use IPC::Run ();
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings 'kernel_values';
use PostgreSQL::Test::Utils 'append_to_file';
use Test::More;
use Time::HiRes qw(sleep time);

use constant { SECONDS => 8, ROLES => 4 };

my $node = KeepaliveGuard::Cluster->start_new('primary',
	conf => "max_connections = 40\nlog_statement = none\nlog_connections = off\nlog_disconnections = off\n");
my $admin = $node->session;
my @roles = map { "role$_" } 1 .. ROLES;
$admin->query("CREATE ROLE $_ LOGIN") foreach @roles;
$node->policy(name => $_, role => $_, tcp_keepalives_idle => '60s', enforcement => 'locked') foreach @roles;
$node->wait_for_policies;

# These policies take the worker some ms for each session.  Many sessions end meanwhile.
$admin->query(<<'END');
INSERT INTO keepalive_policy (name, priority, role) SELECT 'no ' || i, 1, '/^nobody' || i FROM generate_series(1, 200) AS i
END
$node->wait_for_policies;

my $directory = $node->basedir;
append_to_file("$directory/whose.sql",
	"SELECT 1 / (SELECT count(*) FROM keepalive_status() WHERE pid = pg_backend_pid() AND policies = ARRAY[session_user::text]);\n");
my (@clients, @outputs);
foreach my $role (@roles)
{
	push @outputs, '';
	push @clients, IPC::Run::start(
		[
			'pgbench', '--connect', '--no-vacuum', '--client', 2, '--time', SECONDS,
			'--file', "$directory/whose.sql", "host=127.0.0.1 port=@{[$node->port]} dbname=postgres user=$role" ],
		'<', \undef, '>&', \$outputs[-1]);
}
my $edits = 0;
my $until = time + SECONDS - 1;
while (time < $until)
{
	$admin->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '" . (60 + $edits++ % 100) . " s' WHERE priority > 1");
	sleep 0.05;
}
$_->finish foreach @clients;
unlike($_, qr/error|FATAL|aborted/i, 'every short session has its own policy') or diag $_ foreach @outputs;
cmp_ok($edits, '>', 30, "the policies change often meanwhile ($edits times)");

$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '50s' WHERE priority > 1});
$node->wait_for_policies;
my @all;
eval { push @all, $node->session(user => $roles[ @all % ROLES ]) while @all < 200 };
like($@, qr/^FATAL: 53300/, 'connections are refused only at max_connections');
is_deeply([ grep { $_ ne '50/75/9/0' } map { kernel_values($_) } @all ], [], 'the session in every slot has its policy');
$admin->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '51s' WHERE priority > 1});
$node->wait_for_policies;
is_deeply([ grep { $_ ne '51/75/9/0' } map { kernel_values($_) } @all ], [], 'the session in every slot gets a change of its policy');

done_testing();
