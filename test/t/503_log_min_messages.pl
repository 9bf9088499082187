# log_min_messages can suppress the messages with PostgreSQL's reasons.  Then the cause is
# what the socket shows, or unknown if that is not enough.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::ExpectedEvents;
use KeepaliveGuard::Network;
use Test::More;

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1,
	conf => "log_min_messages = panic\nautovacuum = off\n");
my $admin = $node->unix_session;
my $events = KeepaliveGuard::ExpectedEvents->new($node);

sub session
{
	my ($name, $cause, %options) = @_;
	my $detail = delete $options{detail};
	my $session = $node->session($options{socket} ? () : (host => $host), application_name => $name, %options);
	$events->expect($session, $name, $cause, detail => $detail);
	return $session;
}
my $hidden = qr/^reason not logged because of log_min_messages$/;

session('Terminate', 'client_closed')->terminate;
session('FIN', 'client_vanished', detail => qr/CLOSE_WAIT/)->vanish;
session('RST', 'unknown', detail => qr/no error in state CLOSE,/)->reset;
session('FIN on a Unix socket', 'unknown', socket => $node->host, detail => 'no error')->vanish;
my $checked = session('client check', 'reset', detail => qr/ECONNRESET found while busy in state CLOSE/,
	options => '-c client_connection_check_interval=100 -c log_min_messages=fatal');
$checked->send('SELECT pg_sleep(60)');
my $terminated = session('terminated', 'terminated', detail => qr/^SIGTERM/);
$admin->query('SELECT pg_terminate_backend(' . $terminated->pid . ')');
session('idle_session_timeout', 'unknown', options => '-c idle_session_timeout=200', detail => $hidden);
session('idle_session_timeout, log_min_messages = fatal', 'terminated', detail => qr/idle-session/,
	options => '-c idle_session_timeout=200 -c log_min_messages=fatal');

my $lsn = $admin->value('SELECT pg_current_wal_flush_lsn()');
my @walsenders = (session('walsender, Terminate', 'unknown', replication => 'true', detail => $hidden),
	session('walsender, FIN', 'unknown', replication => 'true', detail => $hidden));
$_->query("START_REPLICATION PHYSICAL $lsn") foreach @walsenders;
$walsenders[0]->terminate;
$walsenders[1]->vanish;
$node->wait_for_wait_event($checked->pid, 'PgSleep');
$checked->reset;
$events->check(15);

done_testing();
