# Connections start and end while the reading functions are called: there is no error, and
# each row is true of some moment during the call.  CHURN_SECONDS in the environment is
# the duration in seconds (default 15).
#
# Each client's application_name has the port of its socket.  The test compares it with
# what the kernel says in the same row.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Session;
use KeepaliveGuard::WrongRows 'wrong_row_queries';
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{CHURN_SECONDS} || 15;

# Makes short connections to this port.  The client uses few ports, so that each is soon
# used again.  The connections end in every way; some stay for a while.
sub churn
{
	my ($port, $first_port, $until) = @_;
	my ($next, @kept) = (0);
	while (time < $until)
	{
		my $client_port = $first_port + $next;
		my $s = eval {
			KeepaliveGuard::Session->new(
				port => $port, client_port => $client_port, user => 'churn',
				application_name => "port $client_port");
		};
		$next = ($next + 1) % 40;
		if (!$s)
		{
			sleep 0.001; # the port is still in use
			next;
		}
		$s->try('SELECT 1') if $next % 2;
		my $how = int rand 4;
		if ($how == 0) { push @kept, $s }
		elsif ($how == 1) { $s->terminate }
		elsif ($how == 2) { $s->vanish }
		else
		{
			# The backend runs a query while its socket is dead and the port is used again.
			$s->send('SELECT pg_sleep(0.2)');
			$s->reset;
			$next = $client_port - $first_port; # use it again at once
		}
		shift(@kept)->reset if @kept > 20;
	}
	return;
}

sub start_churn
{
	my ($port, $first_port, $until) = @_;
	my $pid = fork // die "fork: $!";
	return $pid if $pid;
	srand $first_port;
	churn($port, $first_port, $until);
	kill 'KILL', $$; # skips the END blocks of the test
}

my @nodes = (
	KeepaliveGuard::Cluster->start_new('preloaded', conf => "client_connection_check_interval = 0\n"),
	KeepaliveGuard::Cluster->start_new('plain', preload => 0));
$nodes[1]->safe_psql('postgres', 'CREATE EXTENSION keepalive_guard');
my (@readers, @stayers);
foreach my $node (@nodes)
{
	$node->safe_psql('postgres', 'CREATE ROLE churn LOGIN');
	push @readers, $node->unix_session;
	push @stayers, [ map { $node->session(application_name => 'stays') } 1 .. 5 ];
}

my %wrong = wrong_row_queries(5);
my $until = time + $seconds;
my @churners = map { my $node = $_; map { start_churn($node->port, $_, $until) } 20_000, 21_000 } @nodes;
my (%found, %errors, $reads, %seen);
while (time < $until)
{
	foreach my $i (0, 1)
	{
		foreach my $what (sort keys %wrong)
		{
			my $result = $readers[$i]->try($wrong{$what});
			$errors{"$result->{error}{message}"}++ if $result->{error};
			$errors{"$_->{message}"}++ foreach @{ $result->{notices} };
			my $count = $result->{error} ? 0 : $result->{rows}[0][0];
			$found{ $nodes[$i]->name . ": $what" } += $count if $count;
			$reads++;
		}
		my $states = $readers[$i]->query(
			q{SELECT tcp_state, count(*) FROM keepalive_status() WHERE application_name LIKE 'port %' GROUP BY 1});
		$seen{$i}{ $_->[0] // 'NULL' } += $_->[1] foreach @$states;
	}
}
waitpid $_, 0 foreach @churners;

is_deeply(\%found, {}, "$reads queries in $seconds s found no wrong row");
is_deeply(\%errors, {}, 'the queries gave no error and no notice');
foreach my $i (0, 1)
{
	my $name = $nodes[$i]->name;
	my $connections = $readers[$i]->value(
		q{SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'});
	cmp_ok($connections, '>', 20 * $seconds, "$name: the test makes enough connections ($connections)");
	note join ', ', map { "$_: $seen{$i}{$_}" } sort keys %{ $seen{$i} };
	ok($seen{$i}{$_}, "$name: sessions in state $_ were seen") foreach qw(ESTABLISHED CLOSE);
	my $left;
	foreach (1 .. 100)
	{
		$left = $readers[$i]->value('SELECT count(*) FROM keepalive_status()');
		last if $left == 6;
		sleep 0.1;
	}
	is($left, 6, "$name: in the end keepalive_status() has only the sessions that stay");
	is($_->value('SELECT 1'), 1, "$name: a session that stays works") foreach @{ $stayers[$i] };
	$nodes[$i]->stop('immediate');
}

done_testing();
