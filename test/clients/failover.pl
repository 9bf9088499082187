# make test-clients: an old primary is cut off from its clients and its standby.  How long
# until its sessions and WAL senders are gone, and until clients and standby notice, with
# PostgreSQL's defaults and with a policy and the settings of keepalive_plan_clients().
# Writes the table of doc/clients.md to build/clients/failover.md.
use strict;
use warnings;

use File::Path 'make_path';
use KeepaliveGuard::Clients;
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Program;
use Test::More;
use Time::HiRes qw(sleep time);

use constant { WITHIN => 15, WATCHED => 75 };

my $network = KeepaliveGuard::Network->new;
my ($client_host, $standby_host) = map { $network->add_host } 1 .. 2;

# What each session does, and what the table calls it.
my @sessions = (
	[ idle => 'idle session', 'SELECT 1' ],
	[ lock => 'idle in transaction, with a lock', 'BEGIN; LOCK TABLE locked; SELECT 1' ],
	[ waiting => 'executing a query', 'SELECT pg_sleep(3600)' ],
	[ sending => 'session whose client sends a query afterwards', 'SELECT 1' ]);

# Starts a primary, its standby and its clients.
sub start_side
{
	my ($name, $settings) = @_;
	my $primary = KeepaliveGuard::Cluster->start_new("primary_$name", allows_streaming => 1);
	$primary->safe_psql('postgres', 'CREATE TABLE locked ()');
	$primary->safe_psql('postgres', $primary->safe_psql('postgres', "SELECT policy FROM keepalive_plan('@{[WITHIN]} s')"))
	  if $settings;
	$primary->backup('b');
	my $standby = KeepaliveGuard::Cluster->new("standby_$name");
	$standby->init_from_backup($primary, 'b', has_streaming => 1);
	$standby->append_conf('postgresql.conf',
		"primary_conninfo = 'host=@{[$standby_host->server]} port=@{[$primary->port]} user=postgres $settings'");
	$standby_host->within(sub { $standby->start });
	$primary->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'")
	  or die 'the standby does not stream';

	my %side = (name => $name, primary => $primary, standby => $standby);
	foreach my $session (@sessions)
	{
		my ($kind, undef, $sql) = @$session;
		my $program = $side{program}{$kind} = KeepaliveGuard::Program->start(
			[
				$client_host->command(
					@{ KeepaliveGuard::Clients::psql("host=@{[$client_host->server]} port=@{[$primary->port]}"
						  . " user=postgres dbname=postgres application_name=$kind $settings") }) ]);
		$program->send("SELECT 'ready'");
		$program->send(';');
		KeepaliveGuard::Program::wait_until(sub { $program->line(qr/^ready$/) }, 20, $program)
		  or die $program->output;
		$program->send("$sql;");
		$side{pid}{$kind} = $primary->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE application_name = '$kind'");
	}
	$side{pid}{walsender} = $primary->safe_psql('postgres', 'SELECT pid FROM pg_stat_replication');
	$side{pid}{walreceiver} = $standby->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');
	return \%side;
}

my $probe = KeepaliveGuard::Cluster->start_new('probe');
my $text = $probe->safe_psql('postgres', "SELECT settings FROM keepalive_plan_clients('@{[WITHIN]} s') WHERE client = 'primary_conninfo'");
my ($forever) = $probe->safe_psql('postgres', q{SELECT detects_idle FROM keepalive_explain('postgres', 'postgres', '192.0.2.1') WHERE kind = 'postgresql'});
$probe->stop;
my @sides = (start_side('without', ''), start_side('with', $text));
sleep 2;

# The old primary is cut off: nothing arrives at it, nothing arrives from it.
system('nft', <<'END') == 0 or die 'nft failed';
table inet cut {
	chain in { type filter hook input priority 0; iifname "veth*" meta l4proto tcp drop; }
}
END
$_->lose_others foreach $client_host, $standby_host;
my $start = time;
$_->{program}{sending}->send('SELECT 2;') foreach @sides;

my @programs = map { values %{ $_->{program} } } @sides;
my $step = sub {
	my $left = 0;
	foreach my $side (@sides)
	{
		foreach my $kind (keys %{ $side->{pid} })
		{
			# At the earliest: when it was there for the last time.
			my $looked = time;
			if (-d "/proc/$side->{pid}{$kind}") { $side->{there}{$kind} = $looked }
			else { $side->{gone}{$kind} //= ($side->{there}{$kind} // $start) - $start }
			$left++ unless defined $side->{gone}{$kind};
		}
		foreach my $kind (qw(waiting sending))
		{
			my $when = $side->{program}{$kind}->earliest_line(qr/^EOF$|could not|closed/);
			$side->{noticed}{$kind} //= $when - $start if $when;
			$left++ unless $when;
		}
	}
	return !$left;
};
KeepaliveGuard::Program::wait_until($step, WATCHED, @programs);

my ($without, $with) = @sides;
my @rows;

# Adds a row, and tests that it happens in time with the settings, and how long without.
sub row
{
	my ($what, $before, $after, $without_at_least) = @_;
	ok(defined $after && $after <= WITHIN, "$what: within @{[WITHIN]} s with the settings")
	  or diag($after // 'never');
	ok(!defined $before || $before >= $without_at_least, "$what: not before $without_at_least s without")
	  or diag($before);
	push @rows, [ $what, map { defined ? sprintf '%.1f s', $_ : 'more than ' . WATCHED . ' s' } $before, $after ];
	return;
}
my @gone = map { $_->{gone} } $without, $with;
row("old primary: $_->[1]", $gone[0]{ $_->[0] }, $gone[1]{ $_->[0] }, WITHIN) foreach @sessions;
row('old primary: WAL sender', $gone[0]{walsender}, $gone[1]{walsender}, WITHIN);
row('standby: WAL receiver', $gone[0]{walreceiver}, $gone[1]{walreceiver}, WITHIN);
row('client that waits for an answer', $without->{noticed}{waiting}, $with->{noticed}{waiting}, WITHIN);
row('client that sends a query', $without->{noticed}{sending}, $with->{noticed}{sending}, WITHIN);

make_path('build/clients');
open my $table, '>', 'build/clients/failover.md' or die "failover.md: $!";
print $table <<"END";
Until this ends or notices | PostgreSQL's defaults | plan for @{[WITHIN]} s on both ends
--- | --- | ---
END
print $table join(' | ', @$_), "\n" foreach @rows;
close $table;
note("PostgreSQL's default for an idle session: $forever");

$_->stop foreach @programs;
$_->{standby}->stop('immediate'), $_->{primary}->stop('immediate') foreach @sides;
done_testing();
