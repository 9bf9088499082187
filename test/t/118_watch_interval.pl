# keepalive_guard.watch_interval: a value that is too short is refused, and the hint names
# the unit.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use Test::More;
use Time::HiRes 'sleep';

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => "keepalive_guard.watch_interval = 5\n");
my $admin = $node->unix_session;
my $detail = '"keepalive_guard.watch_interval" must be 0 (off) or at least 100 ms.';
my $hint = 'A number without a unit is in milliseconds; did you mean "5s"?';

sub in_force { return $admin->value('SHOW keepalive_guard.watch_interval') }

is(in_force(), '1s', 'a server whose postgresql.conf has a watch_interval of 5 starts with the default');
is($node->log_count('invalid value for parameter "keepalive_guard.watch_interval": 5'), 1, 'the log names the value');
is($node->log_count("HINT:  \Q$hint\E"), 1, 'the log has the hint');

my $error = $admin->try('ALTER SYSTEM SET keepalive_guard.watch_interval = 5')->{error};
is_deeply([ @$error{qw(sqlstate message detail hint)} ],
	[ '22023', 'invalid value for parameter "keepalive_guard.watch_interval": 5', $detail, $hint ],
	'ALTER SYSTEM refuses 5');
is($admin->try("ALTER SYSTEM SET keepalive_guard.watch_interval = '$_'")->{error}{sqlstate}, '22023', "ALTER SYSTEM refuses $_")
  foreach '1', '99', '99ms', '-1', '1ms';
foreach my $value ('0', '100', '100ms', '5s', '1h')
{
	is($admin->try("ALTER SYSTEM SET keepalive_guard.watch_interval = '$value'")->{error}, undef, "ALTER SYSTEM accepts $value");
}

# A reload keeps the value that was valid.
sub reload_with
{
	my ($value, $expected, $name) = @_;
	my $offset = $node->log_end;
	$admin->query('ALTER SYSTEM RESET keepalive_guard.watch_interval');
	$node->append_conf('postgresql.conf', "keepalive_guard.watch_interval = $value\n");
	$node->reload;
	for (my $tries = 0; $tries < 100 && !$node->log_count('(?:parameter|configuration file).*(?:changed|errors)', $offset); $tries++)
	{
		sleep 0.1;
	}
	for (my $tries = 0; $tries < 100 && in_force() ne $expected; $tries++)
	{
		sleep 0.1;
	}
	is(in_force(), $expected, $name);
	return $offset;
}
reload_with("'5s'", '5s', 'a reload sets 5s');
my $offset = reload_with('5', '5s', 'a reload with 5 keeps the value before');
is($node->log_count('invalid value for parameter "keepalive_guard.watch_interval": 5', $offset), 1, 'the log names the value after the reload');
is($node->log_count("HINT:  \Q$hint\E", $offset), 1, 'the log has the hint after the reload');
ok($node->worker_pid, 'the worker still runs');

done_testing();
