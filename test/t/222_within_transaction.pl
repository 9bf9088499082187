# A policy is created, changed, made stricter or deleted while a session has values that
# end with its transaction, subtransaction or function.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Settings qw(kernel_values seconds_until);
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->session;

sub apply
{
	die "policies are pending\n" if $admin->value('SELECT pending FROM keepalive_apply()');
	return;
}

my $watcher = $node->session;
$admin->query(<<'END');
CREATE ROLE app LOGIN;
CREATE FUNCTION inner_call(fails bool) RETURNS void LANGUAGE plpgsql SET tcp_user_timeout = 90001 AS $$
BEGIN
	PERFORM pg_advisory_lock_shared(1);
	PERFORM pg_advisory_unlock_shared(1);
	IF fails THEN RAISE 'as told'; END IF;
END $$;
CREATE FUNCTION outer_call(fails bool) RETURNS void LANGUAGE plpgsql
	SET tcp_keepalives_idle = 90 SET tcp_user_timeout = 90000
	AS 'BEGIN PERFORM inner_call(fails); END';
CREATE FUNCTION caught_call(fails bool) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL tcp_keepalives_idle = 90;
	PERFORM inner_call(fails);
EXCEPTION WHEN raise_exception THEN
END $$;
END

# How a session gets the temporary values 90/75/9/90001, and how these end.
my %ways = (
	'SET LOCAL, COMMIT' =>
	  [ [ 'BEGIN', 'SET LOCAL tcp_keepalives_idle = 90; SET LOCAL tcp_user_timeout = 90001' ], ['COMMIT'] ],
	'SET LOCAL, ROLLBACK' =>
	  [ [ 'BEGIN', 'SET LOCAL tcp_keepalives_idle = 90; SET LOCAL tcp_user_timeout = 90001' ], ['ROLLBACK'] ],
	'SET, ROLLBACK' =>
	  [ [ 'BEGIN', 'SET tcp_keepalives_idle = 90; SET tcp_user_timeout = 90001' ], ['ROLLBACK'] ],
	'SET LOCAL, an error' => [
		[ 'BEGIN', 'SET LOCAL tcp_keepalives_idle = 90; SET LOCAL tcp_user_timeout = 90001' ], ['SELECT 1/0'] ],
	'a subtransaction, ROLLBACK TO' => [
		[
			'BEGIN', 'SAVEPOINT s',
			'SET tcp_keepalives_idle = 90; SET LOCAL tcp_user_timeout = 90001' ],
		['ROLLBACK TO s'] ],
	'a subtransaction, RELEASE, COMMIT' => [
		[
			'BEGIN', 'SET LOCAL tcp_keepalives_idle = 90', 'SAVEPOINT s',
			'SET LOCAL tcp_user_timeout = 90001' ],
		[ 'RELEASE s', 'COMMIT' ] ],
	'a function' => [ ['waits: SELECT outer_call(false)'], [] ],
	'a function that fails' => [ ['waits: SELECT outer_call(true)'], [] ],
	'a function in an exception handler' => [ ['waits: SELECT caught_call(true)'], [] ],
	'a function in a transaction' => [ [ 'BEGIN', 'waits: SELECT outer_call(false)' ], [] ],
	'a cancelled query' => [
		[
			'BEGIN', 'SET LOCAL tcp_keepalives_idle = 90; SET LOCAL tcp_user_timeout = 90001',
			'waits: SELECT pg_sleep(60)' ], ['cancel'] ],
);

# SQL to run before and during the temporary values; the values expected before the
# change, after the change, and after the temporary values.
my $app = q{INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle, tcp_user_timeout, enforcement)
	VALUES ('app', 'app', '60s', '30s', '%s')};
my $temporary = '90/75/9/90001';
my %changes = (
	'no change' => [ sprintf($app, 'default'), 'SELECT 1', $temporary, $temporary, '60/75/9/30000' ],
	'a new policy' => [ 'SELECT 1', sprintf($app, 'default'), $temporary, $temporary, '60/75/9/30000' ],
	'a new ceiling' => [ 'SELECT 1', sprintf($app, 'ceiling'), $temporary, '60/75/9/30000', '60/75/9/30000' ],
	'a new lock' => [ 'SELECT 1', sprintf($app, 'locked'), $temporary, '60/75/9/30000', '60/75/9/30000' ],
	'other values' => [
		sprintf($app, 'default'),
		q{UPDATE keepalive_policy SET tcp_keepalives_idle = '50s', tcp_user_timeout = '20s'},
		$temporary, $temporary, '50/75/9/20000' ],
	'other settings' => [
		sprintf($app, 'default'),
		q{UPDATE keepalive_policy SET tcp_keepalives_idle = NULL, tcp_keepalives_count = 5},
		$temporary, '90/75/5/90001', '7200/75/5/30000' ],
	'a default that becomes a lock' => [
		sprintf($app, 'default'), q{UPDATE keepalive_policy SET enforcement = 'locked'},
		$temporary, '60/75/9/30000', '60/75/9/30000' ],
	'no more policy' => [
		sprintf($app, 'default'), 'DELETE FROM keepalive_policy', $temporary, $temporary, '7200/75/9/0' ],
);

foreach my $way (sort keys %ways)
{
	my ($enter, $leave) = @{ $ways{$way} };
	foreach my $change (sort keys %changes)
	{
		my ($first, $middle, @expected) = @{ $changes{$change} };
		$admin->query('TRUNCATE keepalive_policy');
		$admin->query($first);
		apply();
		my $s = $node->session(user => 'app');
		my $waiting = 0;
		$admin->query('SELECT pg_advisory_lock(1)');
		foreach my $sql (@$enter)
		{
			if ($sql =~ /^waits: (.*)/)
			{
				$s->send($1);
				$waiting = 1;
				1 until $watcher->value("SELECT coalesce(wait_event IN ('advisory', 'PgSleep'), false)"
					  . " FROM pg_stat_activity WHERE pid = @{[$s->pid]}") eq 't';
			}
			else { $s->query($sql) }
		}
		my @seen = kernel_values($s);
		$admin->query($middle);
		seconds_until(5, sub { kernel_values($s) eq $expected[1] });
		apply();
		push @seen, kernel_values($s);
		$admin->query('SELECT pg_advisory_unlock(1)');
		foreach my $sql (@$leave)
		{
			if ($sql eq 'cancel') { $watcher->query("SELECT pg_cancel_backend(@{[$s->pid]})") }
			else { $s->try($sql) }
		}
		$s->result if $waiting;
		# The session runs no further command.
		seconds_until(5, sub { kernel_values($s) eq $expected[2] });
		push @seen, kernel_values($s);
		is_deeply(\@seen, \@expected, "$way: $change: values in the kernel");

		$s->try('COMMIT');
		is(join('/', map { $s->value("SHOW $_") =~ s/s$//r } qw(tcp_keepalives_idle tcp_keepalives_count)),
			join('/', (split m{/}, $expected[2])[ 0, 2 ]), "$way: $change: SHOW shows the final values");
		is(kernel_values($s), $expected[2], "$way: $change: the next command does not change the values");
	}
}

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash');

done_testing();
