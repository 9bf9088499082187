# A thousand policies, and ten thousand with keepalive_guard.max_policies raised, are
# loaded and matched, the last of them too.  What they cost: test/bench.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(policy_of kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;

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
	return wait_for_kernel($canary, { idle => $count }, 60);
}

sub is_loaded
{
	my ($count) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(defined fill($count), "$count policies are loaded");
	is($node->log_count(qr/keepalive_guard: .* skipping/), 0, 'none of them is skipped');

	kernel_has($node->session, { idle => $count }, 'the first is matched');
	kernel_has($node->session(user => 'app'), { idle => 21 }, 'the second to last too');
	my $last = $node->session(user => 'app_last');
	kernel_has($last, { idle => 22 }, 'and the last');
	is(policy_of($node, $last), 'last', 'by its name');
	return;
}

is_loaded(1000);
$node->append_conf('postgresql.conf', 'keepalive_guard.max_policies = 10000');
$node->restart;
$canary = $node->session;
is_loaded(10_000);

done_testing();
