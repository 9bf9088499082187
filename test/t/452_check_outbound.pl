# keepalive_check() about the server's own connections to other hosts: each finding appears
# when its problem exists, and its hint solves the problem.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets 'socket_options';
use KeepaliveGuard::Network;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = KeepaliveGuard::Cluster->start_new('node', allows_streaming => 'logical');
my $admin = $node->unix_session;
# An address of this server that is not a loopback address.
my $host = KeepaliveGuard::Network->new->add_host;
my $address = $host->server;
my $conninfo = "host=$address port=@{[$node->port]} user=postgres dbname=postgres";
$admin->query('CREATE ROLE monitor LOGIN IN ROLE pg_monitor');
# The baseline of the README, so that there are no other findings.
$admin->query($admin->value(q{SELECT policy FROM keepalive_plan('1 min', '240 s')}));
$node->wait_for_policies;

# Waits until the findings are as expected.
sub wait_for
{
	my ($expected) = @_;
	my $until = time + 20;
	my @findings;
	do { sleep 0.1; @findings = $admin->findings } until $expected->(@findings) || time > $until;
	return @findings;
}

sub is_well
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(join("\n", wait_for(sub { !@_ })), '', $name);
}

# One finding that matches.
sub finds
{
	my ($pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $one = qr/\A$pattern[^\n]*\z/;
	return like(join("\n", wait_for(sub { join("\n", @_) =~ $one })), $one, $name);
}

sub set_timeout
{
	my ($on, $value) = @_;
	my $session = $on->unix_session;
	$session->query("ALTER SYSTEM SET wal_receiver_timeout = $value");
	$session->query('SELECT pg_reload_conf()');
	return;
}

is_well('a server without connections to others has no findings');

# --- postgres_fdw --------------------------------------------------------------------------

$admin->query('CREATE EXTENSION postgres_fdw');
$admin->query('CREATE VIEW one AS SELECT 1 AS i');
$admin->query("CREATE SERVER local FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1')");
$admin->query('CREATE SERVER socket FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host \'/tmp\')');
is_well('foreign servers on the same host have no findings');

$admin->query("CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$address', port '@{[$node->port]}', dbname 'postgres', keepalives_idle '0')");
$admin->query("CREATE USER MAPPING FOR PUBLIC SERVER remote OPTIONS (user 'postgres')");
$admin->query("CREATE FOREIGN TABLE remote_one (i integer) SERVER remote OPTIONS (table_name 'one')");
finds(qr/warning \| server "remote" \| its connection is given up 02:11:15 after the other host is gone, or later \| ALTER SERVER remote OPTIONS \(ADD keepalives '1', SET keepalives_idle '18', /,
	'a foreign server with the times of the system is found');
$node->follow_hint($admin->value('SELECT hint FROM keepalive_check()'));
is_well('the hint sets its options');
my $session = $node->unix_session;
is($session->value('SELECT i FROM remote_one'), 1, 'the foreign server works with them');
is(join('/', @{ socket_options($session->pid, $node->port) }{qw(idle interval count user_timeout)}),
	join('/', $admin->value(q{SELECT settings FROM keepalive_plan_clients('1 min') WHERE client = 'postgres_fdw'}) =~
		/keepalives_idle '(\d+)', keepalives_interval '(\d+)', keepalives_count '(\d+)', tcp_user_timeout '(\d+)'/),
	'its connection has the options of keepalive_plan_clients()');
$session->terminate;

$admin->query("ALTER SERVER remote OPTIONS (SET keepalives '0')");
finds(qr/warning \| server "remote" \| keepalive is off: .* \| ALTER SERVER remote OPTIONS \(SET keepalives '1', SET keepalives_idle/,
	'a foreign server without keepalive is found');
$session = $node->unix_session;
$session->value('SELECT i FROM remote_one');
my ($process) = grep { / \| process / } $admin->findings;
like($process, qr/^warning \| process @{[$session->pid]} \| keepalive is off on its connection to \Q$address\E, port @{[$node->port]}: .* \| SELECT settings FROM keepalive_plan_clients\('1 min'\)/,
	'its connection without keepalive is found');
$session->terminate;
sleep 0.1 while -d "/proc/@{[$session->pid]}";
$node->follow_hint($admin->value('SELECT hint FROM keepalive_check()'));
is_well('the hint switches keepalive on');

# --- subscriptions ---------------------------------------------------------------------------

sub subscribe
{
	my ($name, $connection) = @_;
	$admin->query("CREATE SUBSCRIPTION $name CONNECTION '$connection' PUBLICATION p WITH (connect = false, slot_name = '$name', create_slot = false)");
	$admin->query("ALTER SUBSCRIPTION $name ENABLE");
	return;
}
subscribe('slow', "$conninfo password=secret");
subscribe('uri', "postgresql://postgres\@$address:@{[$node->port]}/postgres?keepalives_idle=60&keepalives_interval=10&keepalives_count=3");
subscribe('local', 'host=localhost dbname=postgres');
is_well('wal_receiver_timeout covers subscriptions');
set_timeout($node, 0);
finds(qr/warning \| subscription "slow" \| its connection is given up 02:11:15 after the other host is gone, or later; wal_receiver_timeout is 0 \| ALTER SYSTEM RESET wal_receiver_timeout/,
	'without it, a subscription with the times of the system is found, one with times of its own is not');
my $monitor = $node->unix_session(user => 'monitor');
my @others;
is_deeply([ wait_for(sub { @others = $monitor->findings; "@_" eq "@others" }) ], \@others, 'pg_monitor sees the same');
unlike($monitor->value('SELECT json_agg(o) FROM keepalive_outbound() AS o'), qr/secret/, 'nobody sees passwords');
$node->follow_hint($admin->value('SELECT hint FROM keepalive_check()'));
is_well('the hint sets wal_receiver_timeout');
$admin->query("ALTER SUBSCRIPTION slow CONNECTION '$conninfo keepalives=0'");
set_timeout($node, q{'2h'});
finds(qr/warning \| subscription "slow" \| keepalive is off: .*; wal_receiver_timeout is 2h \|/, 'a late wal_receiver_timeout is found');
$admin->query("ALTER SUBSCRIPTION slow DISABLE");
is_well('a disabled subscription has no findings');
$admin->query("ALTER SUBSCRIPTION $_ DISABLE"), $admin->query("ALTER SUBSCRIPTION $_ SET (slot_name = NONE)"), $admin->query("DROP SUBSCRIPTION $_")
  foreach qw(slow uri local);
$admin->query('ALTER SYSTEM RESET wal_receiver_timeout');
$admin->query('SELECT pg_reload_conf()');

# --- a standby -------------------------------------------------------------------------------

$node->backup('b');
my $standby = KeepaliveGuard::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->append_conf('postgresql.conf', "primary_conninfo = '$conninfo'\n");
$standby->start;
$admin = $standby->unix_session;
is_well('wal_receiver_timeout covers the WAL receiver');
set_timeout($standby, 0);
finds(qr/warning \| primary_conninfo \| its connection is given up 02:11:15 after the other host is gone, or later; wal_receiver_timeout is 0 \| ALTER SYSTEM RESET/,
	'without it, a primary_conninfo with the times of the system is found');
$standby->follow_hint($admin->value('SELECT hint FROM keepalive_check()'));
is_well('the hint sets wal_receiver_timeout on the standby');
set_timeout($standby, 0);
my $text = $admin->value(q{SELECT settings FROM keepalive_plan_clients('1 min') WHERE client = 'primary_conninfo'});
$admin->query("ALTER SYSTEM SET primary_conninfo = '$conninfo $text'");
$admin->query('SELECT pg_reload_conf()');
is_well('a primary_conninfo with the settings of keepalive_plan_clients() has no findings');
ok($standby->poll_query_until('postgres', q{SELECT status = 'streaming' FROM pg_stat_wal_receiver}), 'it works');

done_testing();
