# Values of a policy that are valid and most likely a mistake: they are stored, with a
# WARNING and a hint that names the likely intent.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use List::Util 'min';
use Test::More;
use Time::HiRes 'time';

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->unix_session;
$admin->query($_) foreach
  'CREATE ROLE app LOGIN',
  'CREATE ROLE reporting LOGIN',
  'CREATE ROLE staff',
  'CREATE ROLE nobody_is_in_it',
  'CREATE ROLE "Zürcher" LOGIN',
  'GRANT staff TO app',
  'CREATE DATABASE shop';

# The warnings of a command, "message | hint" each.  Dies if it fails.
sub warnings_of
{
	my ($sql, $session) = @_;
	my $result = ($session // $admin)->try($sql);
	die "$sql: $result->{error}{message}\n" if $result->{error};
	return map { join ' | ', $_->{message}, $_->{hint} // () } grep { $_->{severity} eq 'WARNING' } @{ $result->{notices} };
}

# Tests the warnings for a policy "p" with these columns, and that it is stored.
sub warns
{
	my ($columns, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %columns = %$columns;
	my $names = join ', ', 'name', sort keys %columns;
	my $values = join ', ', "'p'", map { defined $columns{$_} ? "'$columns{$_}'" : 'NULL' } sort keys %columns;
	$admin->query('DELETE FROM keepalive_policy');
	my @warnings = warnings_of("INSERT INTO keepalive_policy ($names) VALUES ($values)");
	$name //= join ', ', map { "$_ = " . ($columns{$_} // 'NULL') } sort keys %columns;
	is_deeply(\@warnings, [ map { "keepalive policy \"p\": $_" } @$expected ], "$name: " . (@$expected ? 'warning' : 'no warning'));
	return is($admin->value('SELECT count(*) FROM keepalive_policy'), 1, "$name: the policy is stored");
}

# A policy for these connections without any other mistake.
sub warns_of_name
{
	my ($column, $value, @expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return warns({ $column => $value, tcp_keepalives_idle => '60s' }, \@expected, "$column = " . ($value // 'NULL'));
}

# --- names ------------------------------------------------------------------------

warns_of_name(role => $_) foreach undef, 'app', '+staff', '+app', 'Zürcher', '/^App', 'nobody_is_in_it';
warns_of_name(role => 'App', 'role "App" does not exist | Did you mean "app"?');
warns_of_name(role => 'repotring', 'role "repotring" does not exist | Did you mean "reporting"?');
warns_of_name(role => 'Reportin', 'role "Reportin" does not exist | Did you mean "reporting"?');
warns_of_name(role => 'nothing like it', 'role "nothing like it" does not exist');
warns_of_name(role => 'Zurcher', 'role "Zurcher" does not exist | Did you mean "Zürcher"?');
warns_of_name(role => '+Staff', 'group "Staff" does not exist | Did you mean "+staff"?');
warns_of_name(role => '+stuf', 'group "stuf" does not exist');
warns_of_name(role => 'staff', 'role "staff" cannot log in, but has members | Did you mean "+staff"?');
warns_of_name(role => 'all', 'role "all" does not exist | Leave "role" NULL to match all of them.');
warns_of_name(role => q{o''hara}, q{role "o'hara" does not exist});
warns_of_name(database => $_) foreach undef, 'shop', '/^Shop';
warns_of_name(database => 'SHOP', 'database "SHOP" does not exist | Did you mean "shop"?');
warns_of_name(database => 'shops', 'database "shops" does not exist | Did you mean "shop"?');
warns_of_name(database => 'replication', 'database "replication" does not exist | To match replication connections, set "backend" to "replication".');
warns_of_name(database => 'warehouse', 'database "warehouse" does not exist');
warns({ database => 'shops', role => 'App', tcp_keepalives_idle => '60s' },
	[ 'database "shops" does not exist | Did you mean "shop"?', 'role "App" does not exist | Did you mean "app"?' ]);

# --- times ------------------------------------------------------------------------

my $lossy = 'is so short that living clients on a lossy network are ended | Set it to 5s or more.';
warns({ $_ => '4999ms' }, ["$_ of 4999ms $lossy"]) foreach qw(dead_after tcp_user_timeout);
warns({ stall_timeout => '1s' }, ['stall_timeout of 1s is so short that living clients are ended that pause for a moment | Set it to 5s or more.']);
foreach my $column (qw(dead_after stall_timeout tcp_user_timeout))
{
	warns({ $column => $_ }, []) foreach '0', '5s', '1 min', '999 s', '1 h', '5 h', '1 day', '2 days';
}
warns({ dead_after => '1s', stall_timeout => '1s', log_only => 'true' }, []);
warns({ client_connection_check_interval => '999ms' },
	['client_connection_check_interval of 999ms interrupts each query more often than once a second | Set it to 1s or more.']);
warns({ client_connection_check_interval => $_ }, []) foreach '0', '1s';

my $ms = 'most likely a number of milliseconds without its unit';
my $unit = 'A number without a unit is in seconds; did you mean';
foreach my $column (qw(dead_after stall_timeout tcp_user_timeout client_connection_check_interval))
{
	warns({ $column => '30000' }, ["$column is 8:20:00, $ms | $unit 30s?"]);
}
warns({ tcp_user_timeout => '1000' }, ["tcp_user_timeout is 0:16:40, $ms | $unit 1s?"]);
warns({ tcp_user_timeout => '90000' }, ["tcp_user_timeout is 25:00:00, $ms | $unit 90s?"]);
warns({ dead_after => '2000000' }, ["dead_after is 555:33:20, $ms | $unit 2000s?"]);
warns({ tcp_keepalives_idle => '30000' }, ["tcp_keepalives_idle is 8:20:00, $ms | $unit 30s?"]);
warns({ tcp_keepalives_interval => '5000' }, ["tcp_keepalives_interval is 1:23:20, $ms | $unit 5s?"]);
warns({ tcp_keepalives_idle => $_ }, []) foreach '0', '1', '1000', '2 h', '5 h';

my %probes = (tcp_keepalives_idle => '60s', tcp_keepalives_interval => '1s');
my $lossy_probes = 'Living clients on a lossy network are ended. Set tcp_keepalives_count so that it takes 5s or more.';
warns({ %probes, tcp_keepalives_count => 4 },
	["a client that leaves probes unanswered for 4s (tcp_keepalives_count * tcp_keepalives_interval) is given up | $lossy_probes"]);
warns({ %probes, tcp_keepalives_count => 5 }, []);
warns({ %probes, tcp_keepalives_count => 4, keepalive => 'false' }, []);
warns({ %probes, tcp_keepalives_count => 4, tcp_user_timeout => 0 },
	["a client that leaves probes unanswered for 4s (tcp_keepalives_count * tcp_keepalives_interval) is given up | $lossy_probes"]);
warns({ %probes, tcp_keepalives_count => 4, tcp_user_timeout => '65s' }, []);
warns({ %probes, tcp_keepalives_count => 9, tcp_user_timeout => '64s' },
	['with a tcp_user_timeout of 64s, a client that leaves probes unanswered for 4s is given up'
	  . ' | Living clients on a lossy network are ended. Set tcp_user_timeout to at least tcp_keepalives_idle plus 5s.']);
warns({ tcp_keepalives_interval => '1s' }, []);
warns({ tcp_keepalives_count => 1 }, []);

# --- policies without effect ----------------------------------------------------------

warns({}, ['the policy sets nothing | To exempt its connections from later policies, set "final".'], 'no setting');
warns({ final => 'true' }, [], 'an exemption');
warns({ keepalive => 'true' }, []);
warns({ final => 'true', enabled => 'false' },
	['"final" has no effect while the policy is disabled | Later policies are in force for its connections.']);
warns({ role => 'App', dead_after => '1s', enabled => 'false' }, [], 'a disabled policy');

# --- commands -------------------------------------------------------------------------

is_deeply([ warnings_of(q{UPDATE keepalive_policy SET enabled = true}) ],
	[ 'keepalive policy "p": role "App" does not exist | Did you mean "app"?', "keepalive policy \"p\": dead_after of 1s $lossy" ],
	'UPDATE warns as well');
is_deeply([ warnings_of(q{INSERT INTO keepalive_policy (name, role, keepalive) VALUES ('p', 'App', true)
		ON CONFLICT (name) DO UPDATE SET role = 'App', keepalive = true, dead_after = NULL}) ],
	[ 'keepalive policy "p": role "App" does not exist | Did you mean "app"?' ], 'INSERT ... ON CONFLICT warns once');
is_deeply([ warnings_of(q{INSERT INTO keepalive_policy (name) VALUES ('p') ON CONFLICT DO NOTHING}) ], [],
	'a row that is not inserted does not give a warning');
is_deeply([ warnings_of(q{DELETE FROM keepalive_policy}) ], [], 'DELETE does not warn');
is_deeply([ warnings_of(q{INSERT INTO keepalive_policy (name, role, keepalive) SELECT 'p' || n, 'App', true FROM generate_series(1, 5) AS n}) ],
	[ map { qq{keepalive policy "p$_": role "App" does not exist} . ($_ <= 3 ? ' | Did you mean "app"?' : '') } 1 .. 5 ],
	'one warning for each row, and a near name for the first three');
is_deeply([ warnings_of(q{UPDATE keepalive_policy SET priority = 1 WHERE name = 'p5'}) ],
	[ 'keepalive policy "p5": role "App" does not exist | Did you mean "app"?' ],
	'the next command looks for near names again');
my $error = $admin->try(q{UPDATE keepalive_policy SET dead_after = '-1s' WHERE name = 'p5'});
is($error->{error}{sqlstate}, '22023', 'an invalid value is an error');
is_deeply($error->{notices}, [], 'an invalid value does not warn in addition');
is_deeply($admin->try(q{INSERT INTO keepalive_policy (name, role) VALUES ('p5', 'App')})->{notices}, [],
	'a row that violates the primary key does not give a warning');
$admin->query('DELETE FROM keepalive_policy');

# --- cost -----------------------------------------------------------------------------

$node->safe_psql('postgres', <<'END');
DO $$
BEGIN
	FOR n IN 1 .. 20000 LOOP
		EXECUTE format('CREATE ROLE many_%s', n);
		IF n % 500 = 0 THEN
			COMMIT; -- each role takes locks until then
		END IF;
	END LOOP;
END $$;
END
my $one = 99; # the shortest of three times
foreach my $n (1 .. 3)
{
	my $start = time;
	is_deeply([ warnings_of(qq{INSERT INTO keepalive_policy (name, role, keepalive) VALUES ('p$n', 'Many_19999', true)}) ],
		[ qq{keepalive policy "p$n": role "Many_19999" does not exist | Did you mean "many_19999"?} ], 'a near name is found among 20,000 roles');
	$one = min($one, time - $start);
}
$admin->query('DELETE FROM keepalive_policy');
note sprintf '%.3f s', $one;
cmp_ok($one, '<', 2, 'one near name among 20,000 roles takes less than two seconds');

# Compared with rows that have no mistake, in the same transaction and rolled back.
sub seconds_for
{
	my ($role) = @_;
	$admin->query('BEGIN');
	my $begin = time;
	my @warnings = warnings_of(<<"END");
INSERT INTO keepalive_policy (name, role, keepalive) SELECT 'p' || n, '$role' || n, true FROM generate_series(1, 10000) AS n
END
	my $seconds = time - $begin;
	$admin->query('ROLLBACK');
	return ($seconds, scalar @warnings);
}
my ($good, $no_warnings) = seconds_for('many_');
my ($bad, $many_warnings) = seconds_for('Many_');
is($no_warnings, 0, '10,000 rows without a mistake give no warning');
is($many_warnings, 21, '10,000 rows with a mistake give 20 warnings, and one that there are no more');
note sprintf '%.2f s without, %.2f s with a mistake in each of 10,000 rows', $good, $bad;
cmp_ok($bad, '<', 10 * $good + 5, '10,000 mistakes do not make a bulk load slow');

done_testing();
