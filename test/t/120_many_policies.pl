# A thousand policies, and ten thousand with a higher keepalive_guard.max_policies, are
# loaded and matched, including the last one.  test/bench measures their cost.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(policy_of kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary');
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE ROLE app_last LOGIN');

my $observed = $node->session;

# Fills the table with this many policies.  Only three of them match a session of this
# test: one is the first in match order, and two are the last.
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
	return wait_for_kernel($observed, { idle => $count }, 60);
}

sub is_loaded
{
	my ($count) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(defined fill($count), "$count policies are loaded");
	is($node->log_count(qr/keepalive_guard: .* skipping/), 0, "none of $count policies is skipped");

	kernel_has($node->session, { idle => $count }, "the first of $count policies matches");
	kernel_has($node->session(user => 'app'), { idle => 21 }, "the second to last of $count policies matches");
	my $last = $node->session(user => 'app_last');
	kernel_has($last, { idle => 22 }, "the last of $count policies matches");
	is(policy_of($node, $last), 'last', "keepalive_status() names the last of $count policies");
	return;
}

is_loaded(1000);
$node->append_conf('postgresql.conf', 'keepalive_guard.max_policies = 10000');
$node->restart;
$observed = $node->session;
is_loaded(10_000);

done_testing();
