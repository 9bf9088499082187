# What doc/comparison.md says of PostgreSQL without the guard, and of ss.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets qw(socket_options wait_until_acknowledged);
use KeepaliveGuard::Network;
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;
use Time::HiRes 'sleep';

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $dead = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary', preload => 0, allows_streaming => 1);
my $admin = $node->unix_session;
$admin->query('CREATE ROLE app LOGIN REPLICATION; CREATE TABLE wide AS SELECT repeat(\'x\', 1000) FROM generate_series(1, 100000)');

# Sends SQL outside a transaction block each.
sub admin
{
	$admin->query($_) foreach @_;
	return;
}

sub idle { return socket_options($_[0]->pid)->{idle} }

# --- the settings of a role -----------------------------------------------------------------

admin(q{ALTER ROLE app SET tcp_keepalives_idle = 77});
my $session = $node->session(host => $host, user => 'app');
my $standby = $node->session(host => $host, user => 'app', replication => 'true');
is(idle($session), 77, 'ALTER ROLE sets the keepalive of client backends');
is(idle($standby), 7200, 'ALTER ROLE does not set that of physical replication');
$session->query('SET tcp_keepalives_idle = 7000');
is(idle($session), 7000, 'a session overrides it with SET');
my $choosing = $node->session(host => $host, user => 'app', options => '-c tcp_keepalives_idle=6000');
is(idle($choosing), 6000, 'and with its connection options');

# --- a change of postgresql.conf -------------------------------------------------------------

my $resting = $node->session(host => $host);
admin(q{ALTER SYSTEM SET tcp_keepalives_idle = 55}, 'SELECT pg_reload_conf()');
my $new;
seconds_until(10, sub { $new = $node->session(host => $host); idle($new) == 55 });
sleep 1;
is_deeply([ idle($new), idle($resting) ], [ 55, 7200 ], 'a reload reaches new sessions and not the idle ones');
is($admin->value(q{SELECT setting FROM pg_settings WHERE name = 'tcp_keepalives_idle'}), 0,
	'pg_settings shows the own session, here one without TCP');
$resting->query('SELECT 1');
is(idle($resting), 55, 'a reload reaches an idle session with its next command');

# --- ss ---------------------------------------------------------------------------------------

like(`ss -tnoH state established dport = @{[$new->port]}`, qr/timer:\(keepalive/, 'ss shows the timer of a connection');

# --- timeouts of idle sessions ------------------------------------------------------------------

admin(q{ALTER ROLE app SET idle_session_timeout = '1s'});
my $living = $node->session(host => $host, user => 'app');
my $gone = $node->session(host => $dead, user => 'app');
$gone->send('SELECT pg_sleep(5)');
wait_until_acknowledged($gone->port);
$dead->drop;
ok(defined $living->wait_for_end(10), 'idle_session_timeout ends a client that is alive');
sleep 2;
ok(-d '/proc/' . $gone->pid, 'idle_session_timeout does not end a session whose client died during a query');

# --- tcp_user_timeout ------------------------------------------------------------------------------

my $patient = $node->session(host => $host, receive_buffer => 4096);
$patient->send('TABLE wide');
my $reader = $node->session(host => $host, receive_buffer => 4096, options => '-c tcp_user_timeout=2s');
$reader->send('TABLE wide');
ok(defined $node->wait_for_exit($reader->pid, 20), 'tcp_user_timeout ends a client that answers and does not read');
sleep 1;
ok(-d '/proc/' . $patient->pid, 'without it, this client keeps its session');

# --- triggers on login -------------------------------------------------------------------------------

SKIP:
{
	skip 'PostgreSQL 17 has triggers on login', 3 if $node->pg_version < 17;
	admin(<<'END', 'CREATE EVENT TRIGGER set_keepalive ON login EXECUTE FUNCTION set_keepalive()');
CREATE FUNCTION set_keepalive() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN SET tcp_keepalives_idle = 33; END $$
END
	my $login = $node->session(host => $host);
	is(idle($login), 33, 'a trigger on login sets values');
	$login->query('SET tcp_keepalives_idle = 7000');
	is(idle($login), 7000, 'the session undoes what it set');
	is(idle($node->session(host => $host, user => 'app', replication => 'true')), 55, 'it does not fire for physical replication');
}

done_testing();
