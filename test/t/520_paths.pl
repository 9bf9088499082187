# keepalive_paths_observed: what it says of paths whose devices really forget idle
# connections, and that it says nothing where something else is to blame.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::KernelSockets 'wait_until_acknowledged';
use KeepaliveGuard::Router;
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $node = KeepaliveGuard::Cluster->start_new('primary', allows_streaming => 1);
my $observer = $node->unix_session;

# --- tools ------------------------------------------------------------------------

my $start;
my @plan;

# What is to be done so many seconds after the start of the plan.
sub at
{
	my ($when, $code) = @_;
	push @plan, { when => $when, code => $code };
	return;
}

# The same, so many seconds after the step that says so has been done, which may be late.
sub later
{
	my ($seconds, $code) = @_;
	return at(time - $start + $seconds, $code);
}

sub run_plan
{
	$start = time;
	while (@plan)
	{
		@plan = sort { $a->{when} <=> $b->{when} } @plan;
		my $step = shift @plan;
		my $left = $start + $step->{when} - time;
		sleep $left if $left > 0;
		$step->{code}->();
	}
	return;
}

# So many sessions of a host, idle from now on, that are probed after $idle seconds and
# then given up after one more second.
sub idle_sessions
{
	my ($host, $count, $idle, %options) = @_;
	my $settings = "-c tcp_keepalives_idle=$idle -c tcp_keepalives_interval=1 -c tcp_keepalives_count=1";
	return map { $node->session(host => $host, options => $settings, %options) } 1 .. $count;
}

# The network of a host as { column => value }, intervals in seconds; undef without a row.
sub observed
{
	my ($host) = @_;
	my @counts = qw(survived lost resets);
	my @times = qw(longest_survived shortest_lost longest_lost shortest_reset longest_reset idle_timeout
	  tcp_keepalives_idle);
	my $columns = join ', ', @counts, map { "extract(epoch FROM $_)::float8" } @times;
	my ($row) = @{ $observer->query(<<"END") };
SELECT $columns FROM keepalive_paths_observed WHERE network >> '@{[$host->address]}'
END
	return unless $row;
	my %row;
	@row{ @counts, @times } = @$row;
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

# The one row of evidence of a host: outcome, seconds and count.
sub evidence_is
{
	my ($host, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is_deeply(evidence($host), $expected, $name);
}

# --- the plan ---------------------------------------------------------------------

# Two routers that forget after 3 s.  Some clients leave in time, others come too late,
# at moments so far apart that a failure of the router does not explain them.
my $silent = KeepaliveGuard::Router->new(101, forgets_after => 3);
my $telling = KeepaliveGuard::Router->new(102, forgets_after => 3, answer => 'reject with tcp reset');
my @too_late;
foreach my $router ($silent, $telling)
{
	at(0, sub {
		my @in_time = idle_sessions($router, 6, 4);
		later(1.7, sub { $_->terminate foreach @in_time });
	});
	at($_, sub { push @too_late, idle_sessions($router, 2, 4) }) foreach 0.1, 5, 9.9;
}
my (%after_two, %after_all);
at(11, sub { %after_two = (silent => observed($silent), telling => observed($telling)) });

# A clear pattern without a router: the paths of three pairs of clients are cut.
my $cut = $network->add_host;
at(0.2, sub {
	my @before = idle_sessions($cut, 5, 3);
	later(1.5, sub { $_->terminate foreach @before });
});
foreach my $round (0 .. 2)
{
	at(2 + 4.4 * $round, sub {
		my @victims = idle_sessions($cut, 2, 3);
		wait_until_acknowledged($_->port) foreach @victims;
		push @too_late, @victims;
		$cut->drop;
	});
	at(6.3 + 4.4 * $round, sub { $cut->restore });
}

# A host that fails, with healthy ones around it: many losses, at one moment.
my $failing = $network->add_host;
at(0.3, sub {
	my @healthy = idle_sessions($failing, 6, 2);
	later(1.5, sub { $_->terminate foreach @healthy });
});
at(2.1, sub {
	my @victims = idle_sessions($failing, 6, 2);
	wait_until_acknowledged($_->port) foreach @victims;
	push @too_late, @victims;
	$failing->drop;
});

# Clients behind answered probes that fail later.
my $probed = $network->add_host;
at(0.4, sub { push @too_late, idle_sessions($probed, 6, 1) });
at(3, sub { $probed->drop });

# Clients that reset their connections, too few clients, clients that leave at once.
my ($resetting, $few, $brief) = map { $network->add_host } 1 .. 3;
at(0.5, sub {
	my @resetting = idle_sessions($resetting, 6, 5);
	later(1.7, sub { $_->reset foreach @resetting });
});
at(0.6, sub {
	my @few = idle_sessions($few, 4, 5);
	later(1.3, sub { $_->terminate foreach @few });
});
at(0.7, sub {
	foreach (1 .. 8)
	{
		my ($session) = idle_sessions($brief, 1, 5);
		$session->terminate;
	}
});

# Paths that were busy although their sessions were idle: by notifications, by probes
# until a moment ago; and a walsender that streams is not idle.
my ($notified, $reprobed, $streaming) = map { $network->add_host } 1 .. 3;
my ($listener, $changed, $walsender);
$node->policy(name => 'reprobed', client => $reprobed->address, tcp_keepalives_idle => '2s', tcp_keepalives_interval => '1s');
at(0.8, sub {
	($listener) = idle_sessions($notified, 1, 100);
	$listener->query('LISTEN news');
});
at($_, sub { $observer->query('NOTIFY news') }) foreach 1.4, 2, 2.6, 3.2;
at(3.3, sub { $listener->terminate });
at(0.9, sub { $changed = $node->session(host => $reprobed) });
at(2.4, sub {
	$node->safe_psql('postgres', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '100s' WHERE name = 'reprobed'});
	$node->wait_for_policies;
});
at(3, sub { $changed->terminate });
at(1, sub {
	$walsender = $node->session(host => $streaming, replication => 'true');
	$walsender->send('START_REPLICATION PHYSICAL 0/1000000');
});
at(3.5, sub { $walsender->vanish });

run_plan();
foreach my $session (@too_late)
{
	defined $node->wait_for_exit($session->pid, 15) or BAIL_OUT('a lost client is not noticed');
}

# --- idle timeouts of real devices --------------------------------------------------

foreach my $case ([ 'a router that drops', $silent, 'silent' ], [ 'a router that resets', $telling, 'telling' ])
{
	my ($name, $router, $key) = @$case;
	is($after_two{$key}{lost}, 4, "$name: losses at two moments");
	is($after_two{$key}{idle_timeout}, undef, 'are no pattern');

	my $now = observed($router);
	is($now->{survived}, 6, "$name: those who left in time survived");
	is($now->{lost}, 6, 'those who were idle for longer were lost');
	is($now->{resets}, 0, 'none by an unasked reset');
	cmp_ok($now->{longest_survived}, '>=', 1.6, 'after so long');
	cmp_ok($now->{longest_survived}, '<', 3, 'below the timeout');
	is($now->{shortest_lost}, 4, 'and were found by the first probe');
	cmp_ok($now->{idle_timeout} // 0, '>', 3, 'the timeout is at most');
	cmp_ok($now->{idle_timeout} // 9, '<=', 4.5, 'that of the late first probe');
	cmp_ok($now->{tcp_keepalives_idle} // 0, '>=', 1, 'the advice is a number');
	cmp_ok($now->{tcp_keepalives_idle} // 9, '<', 3, 'below the timeout');
}
is($observer->value(<<"END"), 6, 'connections that die without a word');
SELECT count(*) FROM keepalive_events() WHERE client_addr = '@{[$silent->address]}' AND cause = 'keepalive_timeout'
END
is($observer->value(<<"END"), 6, 'and by a reset');
SELECT count(*) FROM keepalive_events() WHERE client_addr = '@{[$telling->address]}' AND cause = 'reset'
END

# --- nothing that the data does not show ---------------------------------------------

my $now = observed($cut);
is("$now->{survived}/$now->{lost}", '5/6', 'paths that are cut: too many to be accidents');
is($now->{idle_timeout}, 3.375, 'a clear pattern');
is($now->{tcp_keepalives_idle}, 1, 'and what to do');

$now = observed($failing);
is("$now->{survived}/$now->{lost}", '6/6', 'a host that fails');
cmp_ok($now->{longest_survived}, '<', $now->{shortest_lost}, 'while others left earlier');
is($now->{idle_timeout}, undef, 'none is named');
is($now->{tcp_keepalives_idle}, undef, 'and no advice is given');

evidence_is($probed, [ [ 'survived', 1, 6 ] ], 'clients that answered probes survived that, whatever came later');

$now = observed($resetting);
is("$now->{survived}/$now->{lost}/$now->{resets}", '0/0/6', 'resets by clients are told apart');
cmp_ok($now->{shortest_reset}, '>=', 1.6, 'from so long');
cmp_ok($now->{longest_reset}, '<', 4, 'to so long');
is($now->{idle_timeout}, undef, 'and are no idle timeout');

is(observed($few), undef, 'four connections are too few');
is(evidence($few)->[0][0], 'survived', 'though they are evidence');
is(observed($brief), undef, 'connections that end at once say nothing');
evidence_is($brief, [], 'at all');
evidence_is($notified, [], 'a path with notifications is not idle');
evidence_is($reprobed, [], 'nor one with probes until a moment ago');
evidence_is($streaming, [], 'nor one with a walsender that streams');

# --- the advice ---------------------------------------------------------------------

# keepalive_check() tells as long as somebody is in danger, and its hints mend it.
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

is_deeply(endangered(), [], 'keepalive_check() is silent where no session is in danger');
my @endangered = map { $node->session(host => $_) } $silent, $telling, $telling;
my $findings = endangered();
my @networks = map { $_->address =~ s{\d+$}{0/24}r } $silent, $telling;
is_deeply(
	[ map { [ @$_[ 0, 1 ] ] } @$findings ],
	[ map { [ 'warning', "clients in $_" ] } @networks ],
	'and tells of those who are');
like($findings->[0][2], qr/ for 00:00:04\.5 or less, and 1 session without policy is /, 'one session');
like($findings->[1][2], qr/, and 2 sessions without policy are /, 'two sessions');
follow_hints($findings);
is_deeply(endangered(), [], 'its hints mend it');
push @endangered, idle_sessions($silent, 1, 100);
$findings = endangered();
like($findings->[0][2], qr/ 1 session of policy "keep /, 'a session that overrides its policy is in danger again');
follow_hints($findings);
is_deeply(endangered(), [], 'and is mended by a ceiling');
$observer->query(q{UPDATE keepalive_policy SET enforcement = 'default' WHERE name LIKE 'keep %'});
$node->wait_for_policies;
$_->terminate foreach @endangered;
my @kept = map { $node->session(host => $_) } ($silent, $telling) x 2;
my @not_kept = map { idle_sessions($_, 1, 100) } $silent, $telling;
my $steady = $node->session(host => $cut, options => '-c tcp_keepalives_idle=3 -c tcp_keepalives_interval=1');
sleep 7;
is($_->value('SELECT 1', timeout => 5), 1, 'a connection with the advice lives on') foreach @kept;
foreach my $session (@not_kept)
{
	$session->send('SELECT 1');
	ok(!eval { $session->result(timeout => 0.5) }, 'one without it does not');
}

# --- mixed data -----------------------------------------------------------------------

$now = observed($cut);
is("$now->{survived}/$now->{lost}", '6/6', 'a connected session that answers probes is evidence too');
is($now->{longest_survived}, 3, 'for what was survived');
is($now->{idle_timeout}, undef, 'which contradicts the losses');
is($now->{tcp_keepalives_idle}, undef, 'so there is no advice');

# --- who may look -----------------------------------------------------------------------

$observer->query('CREATE ROLE nobody_special LOGIN; CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats');
my $nobody = $node->unix_session(user => 'nobody_special');
foreach my $what ('keepalive_paths_observed', 'keepalive_path_evidence()')
{
	is($nobody->try("SELECT FROM $what")->{error}{sqlstate}, '42501', "$what is not for everybody");
}
my $watcher = $node->unix_session(user => 'watcher');
is($watcher->value('SELECT count(*) FROM keepalive_paths_observed'),
	$observer->value('SELECT count(*) FROM keepalive_paths_observed'), 'but for pg_read_all_stats');

done_testing();
