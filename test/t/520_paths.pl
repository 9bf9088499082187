# keepalive_paths_observed: it finds paths whose devices forget idle connections, and names
# no timeout where connections are lost for another reason.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets 'wait_until_acknowledged';
use KeepaliveGuard::Router;
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1);
my $observer = $node->unix_session;

# --- tools ------------------------------------------------------------------------

# Opens idle sessions of a host that are probed after $idle seconds and given up one
# second later.
sub idle_sessions
{
	my ($host, $count, $idle) = @_;
	my $settings = "-c tcp_keepalives_idle=$idle -c tcp_keepalives_interval=1 -c tcp_keepalives_count=1";
	return map { $node->session(host => $host, options => $settings) } 1 .. $count;
}

# The server may be slow, so sessions are opened before their times count, with this time
# until the first probe.
use constant NOT_YET => 600;

# From now on, the sessions are idle, and are probed after $idle seconds.
sub begin_idleness
{
	my ($idle, @sessions) = @_;
	$_->query("SET tcp_keepalives_idle = $idle") foreach @sessions;
	return;
}

# From now on, packets of idle sessions and of their host are dropped.
sub lose_host
{
	my ($host, @sessions) = @_;
	wait_until_acknowledged($_->port) foreach @sessions;
	$host->drop;
	return;
}

sub wait_for_ends
{
	foreach my $session (@_)
	{
		defined $node->wait_for_exit($session->pid, 60) or BAIL_OUT('the end of a connection is not noticed');
	}
	return;
}

# The row of keepalive_paths_observed for a host's network, { column => value }, with
# intervals in seconds; undef if there is none.
sub observed
{
	my ($host) = @_;
	my @counts = qw(survived lost resets);
	my @times = qw(longest_survived shortest_lost longest_lost shortest_reset longest_reset idle_timeout
	  tcp_keepalives_idle);
	my $columns = join ', ', 'verdict', @counts, map { "extract(epoch FROM $_)::float8" } @times;
	my ($row) = @{ $observer->query(<<"END") };
SELECT $columns FROM keepalive_paths_observed WHERE network >> '@{[$host->address]}'
END
	return unless $row;
	my %row;
	@row{ 'verdict', @counts, @times } = @$row;
	return \%row;
}

sub evidence
{
	my ($host) = @_;
	return $observer->query(<<"END");
SELECT outcome, extract(epoch FROM idle_for)::float8, count(*) FROM keepalive_path_evidence()
WHERE client_addr = '@{[$host->address]}' GROUP BY 1, 2 ORDER BY 1, 2
END
}

# Tests the evidence of a host: outcome, seconds and count of each row.
sub evidence_is
{
	my ($host, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply(evidence($host), $expected, $name);
}

# Tests that a host has no evidence of an idle time that is longer than this (seconds).
sub not_idle_for
{
	my ($host, $seconds, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply([ grep { $_->[1] > $seconds } @{ evidence($host) } ], [], $name);
}

# Waits until the probes of $count sessions of a host have been answered after $idle seconds.
sub wait_for_answers
{
	my ($host, $count, $idle) = @_;
	defined seconds_until(60, sub { grep { "@$_" eq "survived $idle $count" } @{ evidence($host) } })
	  or BAIL_OUT('answers to probes are not noticed');
	return;
}

# --- connections --------------------------------------------------------------------

# Two routers that forget connections after 5 s (later), and hosts without a router.
my $silent = KeepaliveGuard::Router->new(101);
my $telling = KeepaliveGuard::Router->new(102, answer => 'reject with tcp reset');
my ($cut, $failing, $probed, $resetting, $few, $brief, $notified, $reprobed, $streaming) = map { $network->add_host } 1 .. 9;

my @in_time = map { idle_sessions($_, 6, NOT_YET) } $silent, $telling;
my @too_late = map { [ map { idle_sessions($_, 2, NOT_YET) } $silent, $telling ] } 1 .. 2;
my @cut = map { [ idle_sessions($cut, 2, NOT_YET) ] } 1 .. 3;
my @failing = idle_sessions($failing, 6, NOT_YET);
my @resetting = idle_sessions($resetting, 6, NOT_YET);
my @few = idle_sessions($few, 4, NOT_YET);
my @brief = idle_sessions($brief, 8, NOT_YET);
my ($listener) = idle_sessions($notified, 1, NOT_YET);
my $walsender = $node->session(host => $streaming, replication => 'true');
$node->policy(name => 'reprobed', client => $reprobed->address, tcp_keepalives_idle => '2s', tcp_keepalives_interval => '1s');
$node->wait_for_policies;
my $changed = $node->session(host => $reprobed);

# Clients that answer probes.
my @cut_later = idle_sessions($cut, 5, 2);
my @failing_later = idle_sessions($failing, 6, 1);
my @probed = idle_sessions($probed, 6, 1);

# Some clients of the routers disconnect in time.  Other clients disconnect or reset their
# connections after the same time.
$_->forget_after(5) foreach $silent, $telling;
$listener->query('LISTEN news');
$walsender->query('START_REPLICATION PHYSICAL 0/1000000');
begin_idleness(6, @in_time);
sleep 1.7;
$_->terminate foreach @in_time, @few;
$_->reset foreach @resetting;
$walsender->vanish;
wait_for_ends(@in_time, @few, @resetting, $walsender);

# Paths that were not idle although their sessions were: because of notifications, or of
# probes until recently.
my $start = time;
$observer->query('NOTIFY news');
$listener->notifications(1, 60) or BAIL_OUT('a notification is lost');
$listener->terminate;
wait_for_ends($listener);
my $since_notification = time - $start;

$start = time;
$observer->query(q{UPDATE keepalive_policy SET tcp_keepalives_idle = '100s' WHERE name = 'reprobed'});
$node->wait_for_policies;
$changed->terminate;
wait_for_ends($changed);
my $since_change = time - $start;

# The end of these connections arrives before they become idle.
foreach my $session (@brief)
{
	$session->send('SELECT 1');
	$session->half_close;
}
wait_for_ends(@brief);

# Clients that answer probes and disconnect, or fail later.
wait_for_answers($cut, 5, 2);
wait_for_answers($failing, 6, 1);
wait_for_answers($probed, 6, 1);
$_->terminate foreach @cut_later, @failing_later;
wait_for_ends(@cut_later, @failing_later);
$probed->drop;

# A host that fails once: many losses at the same time.
begin_idleness(5, @failing);
lose_host($failing, @failing);

# Clients of the routers are idle for too long, at times so far apart that one failure does
# not explain them: their probes are sent after at most nine eighths of 6 s.  The first ones
# have that setting from their start.  In the same pattern, the paths of three pairs of
# clients are cut.
my %after_two;
unshift @too_late, [ map { idle_sessions($_, 2, 6) } $silent, $telling ];
foreach my $round (0 .. 2)
{
	begin_idleness(6, @{ $too_late[$round] }) if $round > 0;
	begin_idleness(5, @{ $cut[$round] });
	lose_host($cut, @{ $cut[$round] });
	sleep 7;
	wait_for_ends(@{ $too_late[$round] }, @{ $cut[$round] });
	$cut->restore;
	%after_two = (silent => observed($silent), telling => observed($telling)) if $round == 1;
}
wait_for_ends(@probed, @failing);

# --- idle timeouts of real devices --------------------------------------------------

foreach my $case ([ 'a router that drops', $silent, 'silent' ], [ 'a router that resets', $telling, 'telling' ])
{
	my ($name, $router, $key) = @$case;
	is($after_two{$key}{lost}, 4, "$name: losses at two times are counted");
	is($after_two{$key}{idle_timeout}, undef, "$name: losses at two times give no idle_timeout");
	is($after_two{$key}{verdict}, 'too few losses', "$name: the verdict says that losses at two times are too few");

	my $now = observed($router);
	is($now->{verdict}, 'idle timeout', "$name: the verdict says that there is an idle timeout");
	is($now->{survived}, 6, "$name: connections closed in time are counted as survived");
	is($now->{lost}, 6, "$name: connections idle for longer are counted as lost");
	is($now->{resets}, 0, "$name: no reset without a probe is counted");
	cmp_ok($now->{longest_survived}, '>=', 1.6, "$name: longest_survived is not less than the idle time");
	cmp_ok($now->{longest_survived}, '<', 5, "$name: longest_survived is below the router's timeout");
	is($now->{shortest_lost}, 6, "$name: shortest_lost is the time of the first probe");
	cmp_ok($now->{idle_timeout} // 0, '>', 5, "$name: idle_timeout is above the router's timeout");
	cmp_ok($now->{idle_timeout} // 9, '<=', 6.75, "$name: idle_timeout is at most the time of a late first probe");
	cmp_ok($now->{tcp_keepalives_idle} // 0, '>=', 1, "$name: the advised tcp_keepalives_idle is at least one second");
	cmp_ok($now->{tcp_keepalives_idle} // 9, '<', 5, "$name: the advised tcp_keepalives_idle is below the router's timeout");
}
is($observer->value(<<"END"), 6, 'connections behind a router that drops end with keepalive_timeout');
SELECT count(*) FROM keepalive_events() WHERE client_addr = '@{[$silent->address]}' AND cause = 'keepalive_timeout'
END
is($observer->value(<<"END"), 6, 'connections behind a router that resets end with reset');
SELECT count(*) FROM keepalive_events() WHERE client_addr = '@{[$telling->address]}' AND cause = 'reset'
END

# --- other patterns -------------------------------------------------------------------

my $now = observed($cut);
is("$now->{survived}/$now->{lost}", '5/6', 'paths that are cut repeatedly are counted as lost');
is($now->{idle_timeout}, 5.625, 'paths that are cut repeatedly have an idle_timeout');
is($now->{tcp_keepalives_idle}, 1, 'paths that are cut repeatedly have an advised tcp_keepalives_idle');

$now = observed($failing);
is("$now->{survived}/$now->{lost}", '6/6', 'the connections of a host that fails are counted as lost');
cmp_ok($now->{longest_survived}, '<', $now->{shortest_lost}, 'connections of the failing host that ended earlier are counted as survived');
is($now->{idle_timeout}, undef, 'a host that fails once has no idle_timeout');
is($now->{verdict}, 'not clear: two failures of clients or devices explain all losses', 'the verdict says that one failure explains the losses');
is($now->{tcp_keepalives_idle}, undef, 'a host that fails once has no advised tcp_keepalives_idle');

evidence_is($probed, [ [ 'survived', 1, 6 ] ], 'answered probes are evidence, whatever happens later');

$now = observed($resetting);
is("$now->{survived}/$now->{lost}/$now->{resets}", '0/0/6', 'resets by clients are counted separately');
cmp_ok($now->{shortest_reset}, '>=', 1.6, 'shortest_reset is not less than the idle time');
cmp_ok($now->{longest_reset}, '<', NOT_YET, 'longest_reset is less than the time of the first probe');
is($now->{idle_timeout}, undef, 'resets by clients give no idle_timeout');
is($now->{verdict}, 'no losses', 'the verdict says that resets by clients are no losses');

is(observed($few), undef, 'a network with four connections has no row');
is(evidence($few)->[0][0], 'survived', 'the four connections are evidence');
is(observed($brief), undef, 'a network with connections that end at once has no row');
evidence_is($brief, [], 'connections that end at once are not evidence');
not_idle_for($notified, $since_notification, 'a path with notifications gives no evidence');
not_idle_for($reprobed, $since_change, 'a path with probes until recently gives no evidence');
evidence_is($streaming, [], 'a path with a walsender that streams gives no evidence');

# --- the advice ---------------------------------------------------------------------

# keepalive_check() finds sessions in danger, and its hints solve the problem.
sub endangered
{
	return $observer->query(<<'END');
SELECT severity, subject, problem, hint FROM keepalive_check() WHERE subject LIKE 'clients in %' ORDER BY subject
END
}

sub follow_hints
{
	$observer->query($_->[3]) foreach @{ $_[0] };
	$node->wait_for_policies;
	return;
}

is_deeply(endangered(), [], 'keepalive_check() finds nothing while no session is in danger');
my @endangered = map { $node->session(host => $_) } $silent, $telling, $telling;
my $findings = endangered();
my @networks = map { $_->address =~ s{\d+$}{0/24}r } $silent, $telling;
is_deeply(
	[ map { [ @$_[ 0, 1 ] ] } @$findings ],
	[ map { [ 'warning', "clients in $_" ] } @networks ],
	'keepalive_check() finds the networks with sessions in danger');
like($findings->[0][2], qr/ for 00:00:06\.75 or less, and 1 session without policy is /, 'the finding names the timeout and one session');
like($findings->[1][2], qr/, and 2 sessions without policy are /, 'the finding names two sessions');
follow_hints($findings);
is_deeply(endangered(), [], 'the hints solve the problem');
push @endangered, idle_sessions($silent, 1, NOT_YET);
$findings = endangered();
like($findings->[0][2], qr/ 1 session of policy "keep /, 'a session that overrides its policy is found');
follow_hints($findings);
is_deeply(endangered(), [], 'the hint\'s ceiling solves the problem of the override');
$observer->query(q{UPDATE keepalive_policy SET enforcement = 'default' WHERE name LIKE 'keep %'});
$node->wait_for_policies;
$_->terminate foreach @endangered;
my @kept = map { $node->session(host => $_) } ($silent, $telling) x 2;
my @not_kept = map { idle_sessions($_, 1, NOT_YET) } $silent, $telling;
my $steady = $node->session(host => $cut, options => '-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=1');
sleep 7;
is($_->value('SELECT 1'), 1, 'a connection with the advised setting works after the router\'s timeout') foreach @kept;
foreach my $session (@not_kept)
{
	$session->send('SELECT 1');
	ok(!eval { $session->result(timeout => 0.5) }, 'a connection without the advised setting is lost');
}

# --- mixed data -----------------------------------------------------------------------

wait_for_answers($cut, 1, 5);
$now = observed($cut);
is("$now->{survived}/$now->{lost}", '6/6', 'a connected session that answers probes is counted as survived');
is($now->{longest_survived}, 5, 'the connected session\'s idle time is longest_survived');
is($now->{idle_timeout}, undef, 'contradicting evidence gives no idle_timeout');
is($now->{verdict}, 'not clear: a connection survived as long an idleness as others were lost after', 'the verdict says that the evidence is contradictory');
is($now->{tcp_keepalives_idle}, undef, 'contradicting evidence gives no advised tcp_keepalives_idle');

# --- privileges -------------------------------------------------------------------------

$observer->query('CREATE ROLE nobody_special LOGIN; CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats');
my $nobody = $node->unix_session(user => 'nobody_special');
foreach my $what ('keepalive_paths_observed', 'keepalive_path_evidence()')
{
	is($nobody->try("SELECT FROM $what")->{error}{sqlstate}, '42501', "$what is refused for an ordinary role");
}
my $watcher = $node->unix_session(user => 'watcher');
is($watcher->value('SELECT count(*) FROM keepalive_paths_observed'),
	$observer->value('SELECT count(*) FROM keepalive_paths_observed'), 'keepalive_paths_observed is allowed for pg_read_all_stats');

done_testing();
