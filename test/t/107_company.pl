# The policies of a company with four roles, three networks, three databases, replication
# and an exception for a vendor: eight rows.  Every combination gets what it should have,
# in the kernel, in keepalive_status() and in keepalive_explain().
use strict;
use warnings;

use JSON::PP 'decode_json';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Settings qw(kernel_values);
use Test::More;

my $network = KeepaliveGuard::Network->new;
my %host = (
	office => $network->add_host(network => 1),
	cloud => $network->add_host(network => 2),
	vpn => $network->add_host(network => 3));
my @roles = qw(app batch reports vendor);
my @databases = qw(shop warehouse archive);

my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 'logical');
$node->safe_psql('postgres', join "\n",
	(map { "CREATE ROLE $_ LOGIN REPLICATION;" } @roles),
	(map { "CREATE DATABASE $_;" } @databases));

my $policies = <<'END';
-- What holds for everybody: a dead client is found within two minutes.
INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count, dead_after, enforcement)
VALUES ('baseline', 1000, '60s', '10s', 3, '45s', 'ceiling');
-- The cloud's NAT forgets connections after 30 s; the VPN loses packets.
INSERT INTO keepalive_policy (name, client, tcp_keepalives_idle) VALUES ('cloud', '10.77.2.0/24', '20s');
INSERT INTO keepalive_policy (name, client, tcp_keepalives_count, dead_after) VALUES ('vpn', '10.77.3.0/24', 6, '90s');
-- Queries of the reports, and all others in the warehouse, are long.
INSERT INTO keepalive_policy (name, role, client_connection_check_interval) VALUES ('reports', 'reports', '5s');
INSERT INTO keepalive_policy (name, database, client_connection_check_interval) VALUES ('warehouse', 'warehouse', '30s');
-- Batch jobs fetch their results without a pause.
INSERT INTO keepalive_policy (name, role, tcp_user_timeout, enforcement) VALUES ('batch', 'batch', '2min', 'locked');
-- Replication fails over soon, whoever uses it.
INSERT INTO keepalive_policy (name, priority, backend, tcp_keepalives_idle, tcp_keepalives_interval) VALUES ('replication', 50, 'replication', '5s', '5s');
-- The vendor's program does not survive probes over the VPN.
INSERT INTO keepalive_policy (name, priority, role, database, client, backend, keepalive, final)
VALUES ('vendor', 10, 'vendor', 'shop', '10.77.3.0/24', 'client', false, true);
END
$node->safe_psql('postgres', $policies);
$node->wait_for_policies;
is($node->safe_psql('postgres', 'SELECT count(*) FROM keepalive_policy'), 8, 'eight policies are enough');
is($node->safe_psql('postgres', "SELECT string_agg(problem, ', ') FROM keepalive_policy_problems() WHERE problem IS NOT NULL"),
	'', 'none of them is without effect');

my @in_match_order = qw(vendor replication batch reports warehouse cloud vpn baseline);

# What a combination should have: { setting => [ policy, value ] }, undef for PostgreSQL's.
sub wanted
{
	my ($role, $place, $database, $replicates) = @_;
	return { keepalive => [ vendor => 0 ] }
	  if $role eq 'vendor' && $place eq 'vpn' && $database eq 'shop' && !$replicates;
	my %wanted = (
		idle => $replicates ? [ replication => 5 ] : $place eq 'cloud' ? [ cloud => 20 ] : [ baseline => 60 ],
		interval => $replicates ? [ replication => 5 ] : [ baseline => 10 ],
		count => $place eq 'vpn' ? [ vpn => 6 ] : [ baseline => 3 ],
		dead_after => $place eq 'vpn' ? [ vpn => '00:01:30' ] : [ baseline => '00:00:45' ]);
	$wanted{user_timeout} = [ batch => 120_000 ] if $role eq 'batch';
	$wanted{check} = $role eq 'reports' ? [ reports => '5s' ]
	  : $database eq 'warehouse' ? [ warehouse => '30s' ] : undef;
	return \%wanted;
}
my %column = (
	keepalive => 'keepalive', idle => 'tcp_keepalives_idle', interval => 'tcp_keepalives_interval',
	count => 'tcp_keepalives_count', user_timeout => 'tcp_user_timeout',
	check => 'client_connection_check_interval', dead_after => 'dead_after', stall_timeout => 'stall_timeout');
my @columns = map { $column{$_} } qw(keepalive idle interval count user_timeout check dead_after stall_timeout);

# What each policy gives, by the rows of keepalive_explain().
sub gives
{
	return { map { $_->{policy} => $_->{gives} }
		  grep { $_->{kind} eq 'policy' && $_->{gives} && @{ $_->{gives} } } @_ };
}

my $admin = $node->unix_session;
sub explain
{
	my ($arguments) = @_;
	return map { decode_json($_->[0]) }
	  @{ $admin->query("SELECT to_json(e) FROM keepalive_explain($arguments) AS e") };
}

sub check
{
	my ($role, $place, $database, $replicates) = @_;
	my $name = "$role from $place " . ($replicates ? 'replicates ' : 'in ') . ($database || 'all');
	my $wanted = wanted($role, $place, $database, $replicates);
	my $session = $node->session(
		host => $host{$place}, user => $role,
		$database ? (dbname => $database) : (),
		$replicates ? (replication => $database ? 'database' : 'true') : ());

	my $value = sub { $wanted->{ $_[0] } ? $wanted->{ $_[0] }[1] : $_[1] };
	is(kernel_values($session),
		join('/', $value->(idle => 7200), $value->(interval => 75), $value->(count => 9), $value->(user_timeout => 0)),
		"$name: the kernel has it");
	is($session->value('SHOW client_connection_check_interval'), $value->(check => 0), "$name: SHOW has the client check");

	my %gives;
	foreach my $setting (qw(keepalive idle interval count user_timeout check dead_after))
	{
		push @{ $gives{ $wanted->{$setting}[0] } }, $column{$setting} if $wanted->{$setting};
	}
	my $status = $node->status($session->pid);
	is_deeply($status->{policies}, [ grep { $gives{$_} } @in_match_order ], "$name: keepalive_status() names the policies");
	is($status->{keepalive}, $value->(keepalive => 1), "$name: keepalive_status() shows whether SO_KEEPALIVE is on");

	my @asked = explain(sprintf q{%s, '%s', '%s', '%s'}, $database ? "'$database'" : 'NULL', $role,
		$host{$place}->address, $replicates ? 'replication' : 'client');
	is_deeply(gives(@asked), \%gives, "$name: keepalive_explain() says what each policy gives");
	my ($outcome) = grep { $_->{kind} eq 'outcome' } @asked;
	is_deeply([ @$outcome{ @columns[ 0 .. 5 ] } ], [ @$status{ @columns[ 0 .. 5 ] } ],
		"$name: its outcome is what keepalive_status() shows");
	is($outcome->{dead_after}, $value->(dead_after => undef), "$name: and has dead_after");
	is_deeply([ explain($session->pid) ], \@asked, "$name: keepalive_explain() says the same of the session");
	$session->terminate;
	return;
}

foreach my $role (@roles)
{
	foreach my $place (sort keys %host)
	{
		check($role, $place, $_, 0) foreach @databases;
		check($role, $place, $_, 1) foreach @databases;
		check($role, $place, '', 1);
	}
}

done_testing();
