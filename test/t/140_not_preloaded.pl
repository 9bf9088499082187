# Without shared_preload_libraries: the table says that its policies are not in
# force, keepalive_status() says what it can, and nothing breaks.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('plain', preload => 0);
my $session = $node->session;
my $preload_hint = 'Add keepalive_guard to shared_preload_libraries and restart the server.';

# A command that must warn, once, with this many rows to edit.
sub warns
{
	my ($command, $what) = @_;
	my $result = $session->try($command);
	is($result->{error}, undef, "$what goes through");
	is_deeply(
		[ map { [ @$_{qw(severity sqlstate message hint)} ] } @{ $result->{notices} } ],
		[
			[
				'WARNING', '55000',
				'keepalive policies are not in force: keepalive_guard is not preloaded',
				$preload_hint ] ],
		'with one warning');
	return;
}

is($session->try('CREATE EXTENSION keepalive_guard')->{error}, undef, 'the extension can be created');
warns(
	q{INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle)
		SELECT 'p' || i, i, '61s' FROM generate_series(1, 10) i}, 'INSERT of ten rows');
warns('UPDATE keepalive_policy SET priority = 7', 'UPDATE');
warns(q{DELETE FROM keepalive_policy WHERE name <> 'p1'}, 'DELETE');
is($session->value('SELECT count(*) FROM keepalive_policy'), 1, 'the edits are there');

my $result = $session->try(q{INSERT INTO keepalive_policy (name, tcp_keepalives_count) VALUES ('bad', 128)});
is($result->{error}{sqlstate}, '22023', 'a bad value is refused here too');

my $other = $node->session;
is($other->value('SHOW tcp_keepalives_idle'), $session->value('SHOW tcp_keepalives_idle'),
	'a new session is as PostgreSQL has it');
my $status = $node->status($other->pid);
is_deeply(
	{ map { $_ => $status->{$_} } qw(datname usename backend_type policy policy_state) },
	{
		datname => 'postgres', usename => 'postgres', backend_type => 'client backend',
		policy => undef, policy_state => undef },
	'keepalive_status() has its row');
is($node->status(0), undef, 'and none for nobody');

foreach my $call ('keepalive_apply()', q{keepalive_explain('postgres', 'postgres')})
{
	my $error = $session->try("SELECT * FROM $call")->{error};
	is_deeply(
		[ @$error{qw(sqlstate message hint)} ],
		[
			'55000', 'keepalive_guard must be loaded via shared_preload_libraries',
			$preload_hint ],
		"$call says what is missing");
}

$session->query('TRUNCATE keepalive_policy');
is($session->try('LOAD \'keepalive_guard\'')->{error}, undef, 'LOAD does no harm');
is($session->try('SHOW keepalive_guard.enabled')->{error}{sqlstate}, '42704', 'there are no settings');
is($session->value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'keepalive%'}),
	0, 'nor a worker');
is($session->try('DROP EXTENSION keepalive_guard')->{error}, undef, 'the extension can be dropped');

done_testing();
