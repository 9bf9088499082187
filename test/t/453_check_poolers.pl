# keepalive_check() recognises PgBouncer by its ways, tells that its clients are out of
# reach, and has a hint that ends the finding; it does not take other clients for a pooler.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Pooler;
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;

my $network = KeepaliveGuard::Network->new;
my ($pooler, $client, $application) = map { $network->add_host } 1 .. 3;
KeepaliveGuard::Pooler::route($pooler, $client);
my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->unix_session;
$admin->query('CREATE ROLE app LOGIN; CREATE ROLE checked LOGIN');

# The findings about poolers: [ subject, hint ].
sub findings
{
	return $admin->query(q{SELECT subject, hint FROM keepalive_check() WHERE problem LIKE '%pooler%' ORDER BY 1});
}

# Waits for these findings.
sub finds
{
	my ($name, @expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $findings;
	seconds_until(10, sub { $findings = findings(); join('|', map { @$_ } @$findings) eq join '|', map { @$_ } @expected });
	return is_deeply($findings, \@expected, $name);
}

# --- clients that are no poolers ---------------------------------------------------------------

# An application server with a pool of its own, a gateway with several programs behind it,
# and a program that names itself by SET, once.
my @direct = (
	(map { $node->session(host => $application, user => 'app', application_name => 'web') } 1 .. 4),
	(map { $node->session(host => $application, user => $_, application_name => "job $_") } 'app', 'checked'),
	(map { $node->session(host => $application, user => 'app') } 1 .. 4),
	$node->session(host => $application, user => 'app'));
$direct[-1]->query(q{SET application_name = 'worker'});
$_->query('SELECT 1') foreach @direct;
$direct[0]->query('DISCARD ALL');
is_deeply(findings(), [], 'an application server and a gateway are not taken for a pooler');

# --- PgBouncer -----------------------------------------------------------------------------------

my $bouncer = KeepaliveGuard::Pooler::pgbouncer($node, $pooler, 6432);

sub clients
{
	my ($mode, $count) = @_;
	my @clients = map {
		$node->session(
			host => $client, address => $pooler->address, port => 6432, user => 'app', dbname => $mode, application_name => 'web')
	} 1 .. $count;
	# At the same time, each on a connection of its own.
	$admin->query('SELECT pg_advisory_lock(1)');
	$_->send('SELECT pg_advisory_xact_lock_shared(1)') foreach @clients;
	seconds_until(20, sub { $admin->value('SELECT count(*) FROM pg_locks WHERE NOT granted') == $count }) // die "they do not wait\n";
	$admin->query('SELECT pg_advisory_unlock(1)');
	$_->result foreach @clients;
	return @clients;
}

my $hint = sprintf q{INSERT INTO keepalive_policy (name, client, client_connection_check_interval) VALUES ('pooler at %s', '%s', '10s');},
  ($pooler->address) x 2;
foreach my $mode (qw(transaction session statement))
{
	my @clients = clients($mode, 3);
	finds("$mode pooling is recognised", [ 'clients at ' . $pooler->address, $hint ]);
	$_->terminate foreach @clients;
	if ($mode eq 'session')
	{
		finds('session pooling is recognised while the connections wait for their next client',
			[ 'clients at ' . $pooler->address, $hint ]);
	}
	$admin->query("SELECT pg_terminate_backend(pid, 5000) FROM keepalive_status() WHERE client_addr = '@{[$pooler->address]}'");
}
finds('without its connections there is no finding');

my @clients = clients('transaction', 3);
$admin->query($hint);
is_deeply(findings(), [], 'a policy for the address of the pooler ends the finding');
$node->wait_for_policies;
is_deeply(
	$admin->query("SELECT DISTINCT policies::text, client_connection_check_interval FROM keepalive_status() WHERE client_addr = '@{[$pooler->address]}'"),
	[ [ "{\"pooler at @{[$pooler->address]}\"}", '00:00:10' ] ], 'and is in force in its connections');

# --- over a Unix socket ----------------------------------------------------------------------------

my @local = map { $node->unix_session(user => 'app') } 1 .. 3;
$_->query(q{SET application_name = 'web'}) foreach @local; # as PgBouncer does
$hint = q{INSERT INTO keepalive_policy (name, role, client_connection_check_interval) VALUES ('pooler for app', 'app', '10s');};
my ($finding) = @{ findings() };
is_deeply($finding, [ 'clients on this host', $hint ], 'a pooler on the same host is recognised');
$admin->query($hint);
$node->wait_for_policies;
is_deeply(findings(), [], 'a client check ends the finding');

$bouncer->kill_kill(grace => 0);
done_testing();
