# keepalive_plan() against the kernel: short detection times hold for sessions in every
# state whose client's packets are dropped.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Settings 'seconds_until';
use Test::More;
use Time::HiRes qw(sleep time);

my $network = KeepaliveGuard::Network->new;
my $node = KeepaliveGuard::Cluster->start_new('primary');
my $admin = $node->unix_session;
$admin->query(<<'END');
CREATE TABLE locked AS SELECT 1 AS id;
CREATE TABLE big AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 50000);
END
my $lock = $node->unix_session;
$lock->query('BEGIN; LOCK TABLE locked');

# The last one lets slow readers live, so it does not promise to find a client in time
# that had closed its window.  It is for all other hosts as well.
my @intents = (
	{ within => 10, strict => 'true' },
	{ within => 12, path => 5, strict => 'true' },
	{ within => 15, strict => 'false' });

# Opens a session of each kind in a host.  Returns { state => pid }.  @sessions keeps the
# sessions open.
my @sessions;

sub sessions_in
{
	my ($host) = @_;
	my %pid;
	my $new = sub {
		my ($state, $sql, %options) = @_;
		my $session = $node->session(host => $host, application_name => $state, %options);
		$session->query($sql) if $sql;
		push @sessions, $session;
		$pid{$state} = $session->pid;
		return $session;
	};
	$new->('idle');
	$new->('idle in transaction', 'BEGIN; SELECT 1');
	$new->('listening', 'LISTEN news');
	$new->('sleeping')->send('SELECT pg_sleep(300)');
	$new->('waiting for a lock')->send('SELECT * FROM locked');
	$new->('answering late')->send('SELECT pg_sleep(4)');
	$new->('closed window', undef, receive_buffer => 4096)->send('SELECT * FROM big');
	my $client = $host->start('psql', '-XAtqo', '/dev/null', '-c', 'COPY (SELECT a.x FROM big a, big b) TO STDOUT',
		"host=@{[$host->server]} port=@{[$node->port]} user=postgres dbname=postgres application_name=sending");
	push @sessions, $client;
	my $until = time + 20;
	sleep 0.1 until time > $until
	  || ($pid{sending} = $admin->value("SELECT max(pid) FROM pg_stat_activity WHERE application_name = 'sending' AND client_addr = '@{[$host->address]}'"));
	return \%pid;
}

foreach my $intent (@intents)
{
	my $host = $intent->{host} = $network->add_host;
	my $path = $intent->{path} ? "'$intent->{path} s'" : 'NULL';
	my $call = "keepalive_plan('$intent->{within} s', $path, $intent->{strict})";
	@$intent{qw(insert name earliest_idle detects_idle detects_stalled detects_any)} =
	  @{ $admin->query(<<"END")->[0] };
SELECT policy, substring(policy FROM '''(dead_within_.*?)'''), extract(epoch FROM earliest_idle),
	extract(epoch FROM detects_idle), extract(epoch FROM detects_stalled),
	extract(epoch FROM greatest(detects_idle, detects_busy, detects_late_write))
FROM $call
END
	cmp_ok($intent->{detects_any}, '<', $intent->{within}, "the detection times of $call are within the intent");
	cmp_ok($intent->{detects_stalled}, $intent->{strict} eq 'true' ? '<' : '>', $intent->{within},
		"that with a closed window is not, unless slow readers are ended ($call)");
	$admin->query($intent->{insert});
	$admin->query("UPDATE keepalive_policy SET client = '@{[$host->address]}' WHERE name = '$intent->{name}'")
	  if $intent->{strict} eq 'true';
}
$node->wait_for_policies;
my ($cpu) = map { $node->session(host => $_->{host}, application_name => 'computing') } $intents[0];
push @sessions, $cpu;
$_->{pid} = sessions_in($_->{host}) foreach @intents;
$cpu->send('SELECT count(*) FROM generate_series(1, 100000000000)');
$intents[0]{pid}{computing} = $cpu->pid;

# All sessions are alive and have their policy.
sleep 3;
foreach my $intent (@intents)
{
	my $pids = join ',', values %{ $intent->{pid} };
	my $good;
	seconds_until(10, sub { $good = $admin->value("SELECT count(*) FROM keepalive_status() WHERE pid IN ($pids) AND policies = '{$intent->{name}}' AND policy_state = 'applied' AND health IN ('alive', 'zero_window')"); $good == keys %{ $intent->{pid} } });
	is($good, scalar keys %{ $intent->{pid} }, "intent $intent->{within} s: all sessions are alive and have the policy");
}

my $slow = $node->session(host => $network->add_host, application_name => 'slow', receive_buffer => 4096);
$slow->send('SELECT * FROM big');
my $slow_since = time;

# All these hosts are dropped, at nearly the same time.
foreach my $intent (@intents)
{
	$intent->{dropped} = time; # or slightly later
	$intent->{host}->drop;
}
$admin->query('NOTIFY news');

my $left = 1;
my $end = time + 40;
while ($left && time < $end)
{
	$left = 0;
	foreach my $intent (@intents)
	{
		foreach my $state (keys %{ $intent->{pid} })
		{
			next if $intent->{seconds}{$state};
			my $pid = $intent->{pid}{$state};
			if (-d "/proc/$pid") { $left++ }
			else { $intent->{seconds}{$state} = $node->ended_at($pid) - $intent->{dropped} }
		}
	}
	sleep 0.02;
}

foreach my $intent (@intents)
{
	foreach my $state (sort keys %{ $intent->{pid} })
	{
		my $seconds = $intent->{seconds}{$state};
		my ($earliest, $latest) =
		    $state =~ /^idle/ ? @$intent{qw(earliest_idle detects_idle)}
		  : $state eq 'closed window' ? (0, $intent->{detects_stalled})
		  : (0, $intent->{within});
		ok(defined $seconds && $seconds >= $earliest && $seconds <= $latest,
			sprintf 'intent %d s, %s: the backend ends in time (%s)', $intent->{within}, $state, defined $seconds ? sprintf('%.2f s', $seconds) : 'never');
	}
}

sleep 1 while time < $slow_since + 20;
is($admin->value("SELECT policies || health FROM keepalive_status() WHERE pid = @{[$slow->pid]}"),
	'{dead_within_15s,zero_window}', 'a living client that does not read for 20 s stays connected');

done_testing();
