# A thousand policies, and ten thousand with keepalive_guard.max_policies raised, are
# loaded and matched, the last of them too, and cost a connection next to nothing.
use strict;
use warnings;

use KeepaliveGuard::Agreement qw(governed_by kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;
use Time::HiRes 'time';

my $node = KeepaliveGuard::Cluster->start_new('primary');
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE ROLE app_last LOGIN');

my $canary = $node->session;

# Fills the table with that many policies.  All but three are for others, by role,
# database or network, and of the three two come last.
sub fill
{
	my ($count) = @_;
	$node->safe_psql('postgres', <<"END");
BEGIN;
TRUNCATE keepalive_policy;
INSERT INTO keepalive_policy (name, role, database, client, tcp_keepalives_idle)
	SELECT 'p' || i, CASE WHEN i % 3 > 0 THEN 'role_' || i END,
		CASE WHEN i % 3 < 2 THEN 'database_' || i END,
		CASE WHEN i % 2 = 0 THEN set_masklen('10.0.0.0'::cidr + i, 32) END, interval '1 s'
	FROM generate_series(1, $count - 3) i;
INSERT INTO keepalive_policy (name, priority, role, tcp_keepalives_idle) VALUES
	('first', -1, 'postgres', '$count s'),
	('second to last', 1000, 'app', '21 s'),
	('last', 1001, '/_last\$', '22 s');
COMMIT
END
	return wait_for_kernel($canary, { idle => $count }, 10);
}

sub is_loaded
{
	my ($count) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $seconds = fill($count);
	ok(defined $seconds, "$count policies are loaded");
	cmp_ok($seconds // 99, '<', 1, sprintf 'within a second: in %.0f ms', 1000 * ($seconds // 99));
	is($node->log_count(qr/keepalive_guard: .* skipping/), 0, 'none of them is skipped');

	kernel_has($node->session, { idle => $count }, 'the first is matched');
	kernel_has($node->session(user => 'app'), { idle => 21 }, 'the second to last too');
	my $last = $node->session(user => 'app_last');
	kernel_has($last, { idle => 22 }, 'and the last');
	is(governed_by($node, $last), 'last', 'by its name');
	return;
}

# The fastest of a few connections, which all policies are tried for, in ms.
sub connection_time
{
	my $fastest;
	foreach (1 .. 20)
	{
		my $start = time;
		my $session = $node->session(user => 'app_last');
		my $seconds = time - $start;
		$fastest = $seconds if !defined $fastest || $seconds < $fastest;
		$session->terminate;
	}
	return $fastest * 1000;
}

is_loaded(1000);
$node->append_conf('postgresql.conf', 'keepalive_guard.max_policies = 10000');
$node->restart;
$canary = $node->session;
is_loaded(10_000);

my $with_many = connection_time();
$node->safe_psql('postgres', "DELETE FROM keepalive_policy WHERE name <> 'last'");
$node->wait_for_policies;
my $with_one = connection_time();
cmp_ok($with_many - $with_one, '<', 1,
	sprintf 'a connection takes %.2f ms with 10,000 policies, %.2f ms with one', $with_many, $with_one);

done_testing();
