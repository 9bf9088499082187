# Invalid rows that were written while the table's trigger was disabled are skipped, with
# a log line for each.  The other policies are in force.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(policy_of kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $session = $node->session;

# The invalid column and value of each policy.
my @invalid = (
	[ tcp_keepalives_idle => "'40000 s'", ],
	[ tcp_keepalives_interval => "'-1 s'", ],
	[ tcp_keepalives_interval => "'1.5 s'", ],
	[ tcp_keepalives_count => '128', ],
	[ tcp_keepalives_count => '-1', ],
	[ tcp_user_timeout => "'1 month'", ],
	[ client_connection_check_interval => "'30 days'", ],
	[ dead_after => "'-1 ms'", ],
	[ stall_timeout => "'0.5 ms'", ],
	[ role => "'/('", ],
	[ role => "'+'", ],
	[ database => "repeat('x', 64)", ],
	[ database => "''", ],
	[ backend => "'walsender'", ],
	[ enforcement => "'sometimes'", ]);

my $log = $node->log_end;
my $editor = $node->session;
$editor->query('BEGIN; ALTER TABLE keepalive_policy DISABLE TRIGGER ALL');
foreach my $i (0 .. $#invalid)
{
	my ($column, $value) = @{ $invalid[$i] };
	$editor->query(
		"INSERT INTO keepalive_policy (name, priority, $column) VALUES ('bad $i', -1, $value)");
}
my $long = 'n' x 64;
$editor->query(
	"INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle) VALUES ('$long', -1, '1 s')");
$editor->query(<<'END');
ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard;
ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard_count;
ALTER TABLE keepalive_policy ENABLE ALWAYS TRIGGER keepalive_policy_guard_truncate;
INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('good', '21 s');
COMMIT
END
$editor->query(q{UPDATE keepalive_policy SET priority = 99 WHERE name = 'good'});
$node->wait_for_policies;

ok(defined wait_for_kernel($session, { idle => 21 }, 10), 'a valid policy is in force beside invalid rows');
kernel_has($node->session, { idle => 21 }, 'a valid policy is in force in new sessions');
is(policy_of($node, $session), 'good', 'keepalive_status() shows the valid policy');

foreach my $i (0 .. $#invalid)
{
	my ($column, $value) = @{ $invalid[$i] };
	is($node->log_count(
			qr/LOG:  keepalive_guard: skipping keepalive policy "bad $i": invalid value for column "$column"/,
			$log),
		1, "a policy with $column = $value is skipped");
}
is($node->log_count(
		qr/LOG:  keepalive_guard: skipping keepalive policy "n{63}": invalid value for column "name"/, $log),
	1, 'a policy with a name that is too long is skipped');

$node->safe_psql('postgres', "DELETE FROM keepalive_policy WHERE name LIKE 'bad%'");
ok($node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '22 s' WHERE name = 'good'; SELECT 1"),
	'invalid rows can be deleted, and a valid one updated');
ok(defined wait_for_kernel($session, { idle => 22 }, 10), 'the updated policy is in force');

# --- code of users on the table ----------------------------------------------------------

# The policy reader reads the heap: nothing that a query on the table would call.
$log = $node->log_end;
$node->safe_psql('postgres', <<'END');
CREATE FUNCTION noisy(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
	$$BEGIN RAISE LOG 'user code as % in %', current_user, current_setting('application_name'); RETURN false; END$$;
CREATE INDEX noisy ON keepalive_policy (noisy(name)) WHERE noisy(comment);
ALTER TABLE keepalive_policy ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY noisy ON keepalive_policy USING (noisy(name));
END
my $planted = $node->log_count(qr/user code as/, $log);
$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '23 s' WHERE name = 'good'");
ok(defined wait_for_kernel($session, { idle => 23 }, 10), 'row security does not hide policies from the policy reader');
$log = $node->log_end;
$node->safe_psql('postgres', 'SELECT * FROM keepalive_apply()');
is($node->log_count(qr/user code as/, $log), 0, 'the policy reader runs no code of a user');
cmp_ok($planted, '>', 0, 'the code is there');

done_testing();
