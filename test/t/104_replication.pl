# Physical and logical walsenders get the policies for replication and not those for
# clients: raw connections, pg_receivewal and pg_recvlogical over the network.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(policy_of kernel_has numbered_settings);
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes 'usleep';

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 'logical');
$node->safe_psql('postgres', <<'END');
CREATE ROLE copier LOGIN REPLICATION;
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE DATABASE shop;
END

my %expected;
sub policy
{
	my ($name, $number, %columns) = @_;
	my ($values, %settings) = numbered_settings($number);
	$node->policy(name => $name, %settings, %columns);
	delete $values->{client_check};
	$expected{$name} = { %$values, keepalive => 1 };
	return;
}
policy('clients', 1, priority => 1, backend => 'client', role => 'copier');
policy('in_database', 2, database => 'postgres');
policy('replication', 3, backend => 'replication');
policy('any_database', 4, priority => 2, role => '/copier', database => '/.*');
policy('of_role', 5, backend => 'replication', priority => 3, role => 'receiver');
$node->safe_psql('postgres', 'CREATE ROLE receiver LOGIN REPLICATION SUPERUSER');
$node->wait_for_policies;

# Waits for the walsender of the client with this application_name.  Returns its pid.
sub walsender
{
	my ($name) = @_;
	my $query = "SELECT max(pid) FROM pg_stat_replication WHERE application_name = '$name'";
	$node->poll_query_until('postgres', "SELECT ($query) IS NOT NULL")
	  or die "$name has not connected\n";
	return $node->safe_psql('postgres', $query);
}

sub has_policy
{
	my ($pid, $policy, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	kernel_has($pid, $expected{$policy}, "$name has the policy's settings in the kernel");
	my $status = $node->status($pid);
	is_deeply(
		[ @$status{qw(policy policy_state backend_type)} ],
		[ $policy, 'applied', 'walsender' ],
		"keepalive_status() shows the policy of $name");
	return;
}

my @database = (host => $host, user => 'copier', application_name => 'raw');

# --- before the first command -----------------------------------------------------

my $session = $node->session(@database, replication => 'true');
has_policy($session->pid, 'replication', 'a physical walsender');
like($session->value('IDENTIFY_SYSTEM'), qr/^\d+$/, 'a physical walsender answers IDENTIFY_SYSTEM');
$session = $node->session(@database, replication => 'database');
has_policy($session->pid, 'any_database', 'a logical walsender');
is($session->value('SHOW tcp_keepalives_idle'), 1004, 'SHOW in a logical walsender shows the policy\'s value');
$session = $node->session(@database);
is(policy_of($node, $session), 'clients', 'a client backend of the same role gets the policy for clients');

# --- pg_receivewal and pg_recvlogical ---------------------------------------------

my $target = PostgreSQL::Test::Utils::tempdir;
my $connection = "host=@{[$host->server]} port=@{[$node->port]} user=receiver";
my $receivewal = $host->start('pg_receivewal', '-n', '-D', $target,
	'-d', "$connection application_name=receivewal");
my $recvlogical = $host->start('pg_recvlogical', '-n', '-d',
	"$connection dbname=postgres application_name=recvlogical",
	'--slot=tap', '--create-slot', '--start', '-f', "$target/changes", '-P', 'pgoutput',
	'-o', 'proto_version=1', '-o', 'publication_names=everything');
my $physical = walsender('receivewal');
has_policy($physical, 'of_role', 'pg_receivewal');
my $logical = walsender('recvlogical');
has_policy($logical, 'of_role', 'pg_recvlogical');

# --- a change while they stream -----------------------------------------------------

$node->safe_psql('postgres',
	"UPDATE keepalive_policy SET tcp_keepalives_idle = '77s' WHERE name = 'of_role'");
$node->wait_for_policies;
$expected{of_role}{idle} = 77;
has_policy($physical, 'of_role', 'pg_receivewal, after a change of its policy,');
has_policy($logical, 'of_role', 'pg_recvlogical, after a change of its policy,');

my $file = $node->safe_psql('postgres',
	'CREATE TABLE t (); SELECT pg_walfile_name(pg_switch_wal())');
my $left = 500;
usleep(20_000) until -e "$target/$file" || !$left--;
ok(-e "$target/$file", 'pg_receivewal receives WAL after the change');
my $size = -s "$target/changes" // 0;
$node->safe_psql('postgres', 'CREATE TABLE u (i integer); INSERT INTO u VALUES (1)');
$left = 500;
usleep(20_000) until (-s "$target/changes" // 0) > $size || !$left--;
cmp_ok(-s "$target/changes", '>', $size, 'pg_recvlogical receives changes after the change');
$_->kill_kill foreach $receivewal, $recvlogical;

done_testing();
