# The line that the server log has for each lost connection: it is the only one where the
# watcher ended the session, it can be parsed whatever the names contain, and its evidence
# is from before PostgreSQL's last message to the client.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets qw(socket_line wait_until_acknowledged);
use KeepaliveGuard::Network;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary',
	allows_streaming => 1, conf => "keepalive_guard.watch_interval = 200ms\nlog_statement = none\n");
my $superuser = $node->unix_session;

# From 19 on, the name of a role has no newline.
my $control = $node->pg_version->major < 19 ? "\n" : "\t";
my $role = qq(a "role"${control}on two lines\\);
my $database = qq(data="base" \\n\x01);
my $policy = 'watched, "both"';
sub quoted { return '"' . $_[0] =~ s/"/""/gr . '"' }
$superuser->query('CREATE ROLE ' . quoted($role) . ' LOGIN');
$superuser->query('CREATE DATABASE ' . quoted($database));
my %watched = (tcp_keepalives_idle => '1s', tcp_keepalives_interval => '1s', tcp_keepalives_count => 100,
	dead_after => '2s');
$node->policy(name => $policy, role => $role, %watched, stall_timeout => '2s');
$node->policy(name => 'baseline', priority => 1000, tcp_user_timeout => '1h');
$node->policy(name => 'walsenders', backend => 'replication', %watched);
$node->wait_for_policies;

# The lines that a process has written to the log since this offset.
sub lines_of
{
	my ($pid, $log) = @_;
	return grep { /\[$pid\]/ } split /\n/, slurp_file($node->logfile, $log);
}

# Takes a line apart: { client, cause, key => value or [ values ] ... }; undef if it is not of the form.
sub parsed
{
	my ($line) = @_;
	my ($client, $cause, $rest) = $line =~ /LOG:  lost connection to client (\S+): (\w+),(( \w+=\S.*)+)$/ or return;
	my %field = (client => $client, cause => $cause);
	my %escaped = (n => "\n", t => "\t", '"' => '"', '\\' => '\\');
	while ($rest =~ /\G (\w+)=((?:"(?:[^"\\]|\\.)*",?)+|\S+)/gc)
	{
		my ($key, $value) = ($1, $2);
		my @strings = $value =~ /"((?:[^"\\]|\\.)*)"/g;
		s/\\(?:x([0-9a-f]{2})|(.))/defined $1 ? chr hex $1 : $escaped{$2}/ge foreach @strings;
		$field{$key} = @strings > 1 ? \@strings : @strings ? $strings[0] : $value;
	}
	return if ($rest =~ /\G(.+)/gc);
	return \%field;
}

# The only line of the session with this pid, taken apart.
sub only_line
{
	my ($pid, $log, $name) = @_;
	ok(defined $node->wait_for_exit($pid, 20), "$name: the session ends");
	my @lines = lines_of($pid, $log);
	is(scalar @lines, 1, "$name: its process logs one line") or diag(@lines);
	my $fields = parsed($lines[0] // '');
	ok($fields, "$name: the line can be parsed") or diag(@lines);
	return $fields // {};
}

sub session
{
	my (%options) = @_;
	my $session = $node->session(host => $host, user => $role, dbname => $database,
		application_name => 'an "application" \\', %options);
	wait_until_acknowledged($session->port);
	return $session;
}

# --- idle, dead ------------------------------------------------------------------------

my $log = $node->log_end;
my $idle = session();
my $transaction = session();
$transaction->query('BEGIN');
my $walsender = $node->session(host => $host, user => 'postgres', replication => 'true');
wait_until_acknowledged($_->port) foreach $transaction, $walsender;
$host->drop;
my $fields = only_line($idle->pid, $log, 'idle');
my $silence = delete $fields->{silent_for};
like($silence, qr/^[3-9]\.\d{3}s$/, 'idle: silent_for is in seconds');
my $detail = delete $fields->{detail};
is_deeply($fields, {
		client => $host->address . ':' . $idle->port,
		cause => 'dead_after',
		user => $role,
		database => $database,
		application => 'an "application" \\',
		policies => [ $policy, 'baseline' ],
		state => 'idle',
		transaction => 'none',
	},
	'idle: the line has the session');
like($detail, qr/^ended by the watcher in state ESTABLISHED, [1-9]\d* unanswered probes, 0 retransmissions, data not in flight$/,
	'idle: PostgreSQL\'s last message to the client is not taken for data in flight');
is($superuser->value('SELECT detail FROM keepalive_events() WHERE pid = ' . $idle->pid), $detail,
	'idle: the event has the same evidence');
like(only_line($transaction->pid, $log, 'in a transaction')->{transaction} // '', qr/^[3-9]\.\d{3}s$/,
	'in a transaction: its age is in seconds');
$fields = only_line($walsender->pid, $log, 'walsender');
is_deeply([ @$fields{qw(cause user database policies)} ], [ 'dead_after', 'postgres', '', [ 'walsenders', 'baseline' ] ],
	'walsender: the line has no database');
$host->restore;

# --- not reading -------------------------------------------------------------------------

$log = $node->log_end;
my $reader = session(receive_buffer => 4096);
$reader->send(q(SELECT repeat('x', 10000) FROM generate_series(1, 3000)));
$fields = only_line($reader->pid, $log, 'not reading');
is_deeply([ @$fields{qw(cause state)} ], [ 'stall_timeout', 'active' ], 'not reading: the line has cause and state');
like($fields->{detail} // '', qr/data in flight$/, 'not reading: data is in flight');

# --- lost without the watcher --------------------------------------------------------------

$log = $node->log_end;
my $unix = $node->unix_session;
$unix->query('SET track_activities = off');
$unix->vanish;
$fields = only_line($unix->pid, $log, 'Unix socket');
is_deeply({ %$fields, detail => '' }, {
		client => '[local]', cause => 'client_vanished', user => 'postgres', database => 'postgres', application => '',
		policies => 'baseline', state => 'disabled', detail => '' },
	'Unix socket: the line has no silence, and no transaction without track_activities');

# --- off ------------------------------------------------------------------------------------

$node->append_conf('postgresql.conf', "keepalive_guard.log_lost_connections = off\n");
$node->reload;
sleep 0.5;
$log = $node->log_end;
my $unlogged = session();
$host->drop;
$node->wait_for_exit($unlogged->pid, 20);
# From 19 on, with a DETAIL that has the sender of the signal.
is_deeply([ map { s/.*(?=FATAL)//r } grep { !/DETAIL:  Signal sent by PID/ } lines_of($unlogged->pid, $log) ],
	['FATAL:  terminating connection due to administrator command'],
	'log_lost_connections = off: PostgreSQL\'s own line is logged');
$host->restore;

done_testing();
