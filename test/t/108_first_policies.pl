# What the README says in "First policies", done as a new user does it: a baseline, an
# exception, an explanation and a preview before COMMIT, and a ROLLBACK.  The statements
# and their results are those of the README.
use strict;
use warnings;

use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use KeepaliveGuard::Settings qw(kernel_has);
use PostgreSQL::Test::Utils qw(run_command slurp_file);
use Test::More;

my ($section) = slurp_file('README.md') =~ /^## First policies\n(.*?)^## /ms or die 'no such section';
my @blocks = $section =~ /^```\w*\n(.*?)^```$/msg;
is(scalar @blocks, 3, 'the section has policies, an explanation and a preview');
my ($policies, $explanation, $preview) = @blocks;

# A query of the README and its result are a blank line apart.
my ($explain, $explained) = split /\n\n/, $explanation, 2;
my ($look_ahead, $foreseen) = split /\n\n/, $preview, 2;

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->start_new('primary');
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE DATABASE shop');
my $session = $node->session(host => $host, user => 'app', dbname => 'shop');

# Runs psql as a user would, who pastes all of it at once.
sub paste
{
	my $file = $node->basedir . '/pasted.sql';
	open my $out, '>', $file or die "$file: $!";
	print $out @_;
	close $out or die "$file: $!";
	my ($stdout, $stderr) = run_command([
		'psql', '--no-psqlrc', '--quiet', '--pset=footer=off', '--set=ON_ERROR_STOP=1',
		'--dbname=' . $node->connstr('postgres'), "--file=$file" ]);
	is($stderr, '', 'psql has nothing to complain of');
	return $stdout;
}

# Without what depends on the system, and on how wide psql draws a frame.
sub plain
{
	my ($text) = @_;
	$text =~ s/^(pid +\|).*/$1/m;
	$text =~ s/^(client_addr +\|).*/$1/m;
	$text =~ s/^-\[ RECORD 1 \].*/-[ RECORD 1 ]/m;
	$text =~ s/ +$//mg;
	$text =~ s/\n+\z//;
	return $text;
}

# --- ROLLBACK -------------------------------------------------------------------------------

my $shown = paste($policies, "$explain\n");
is(plain($shown), plain($explained), 'keepalive_explain() shows before COMMIT what the README says');
$shown = paste($policies, "$look_ahead\nROLLBACK;\n");
is(plain($shown), plain($foreseen), 'keepalive_preview() shows before COMMIT what the README says');
$node->wait_for_policies;
is($node->safe_psql('postgres', 'SELECT count(*) FROM keepalive_policy'), 0, 'nothing is left after ROLLBACK');
kernel_has($session, { idle => 7200, interval => 75, count => 9 }, 'no session has changed');

# --- COMMIT ----------------------------------------------------------------------------------

$shown = paste($policies, "COMMIT;\n$explain\n");
is(plain($shown), plain($explained), 'keepalive_explain() is right at once after COMMIT');
$node->wait_for_policies;
kernel_has($session, { idle => 60, interval => 10, count => 3 }, 'the session has what was foretold');
my $status = $node->status($session->pid);
like($foreseen, qr/^\Q$_->[0]\E +\| \Q$_->[1]\E$/m, "$_->[0] was foretold as well")
  foreach [ policies_then => '{' . join(',', @{ $status->{policies} }) . '}' ],
  [ detects_idle_then => $status->{detects_idle} ], [ detects_busy_then => $status->{detects_busy} ];
is(paste("$look_ahead\n"), '', 'nothing more would change');
is($node->safe_psql('postgres', 'SELECT * FROM keepalive_check()'), '', 'keepalive_check() finds nothing to complain of');

done_testing();
