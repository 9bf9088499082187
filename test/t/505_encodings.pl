# Names and messages with bytes that are not valid in the encoding of the database that
# reads them: what clients send before the server validates it, and what comes from a
# database with another encoding.  Every function shows them as valid text.
use strict;
use warnings;

use IO::Socket::INET ();
use KeepaliveGuard::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = KeepaliveGuard::Cluster->start_new('primary',
	extra => [ '--encoding=UTF8', '--locale=C' ], conf => "autovacuum = off\n");

# Bytes, as they are sent.
my $umlaut = "\xc3\xbc";              # u with diaeresis, in UTF-8
my $kanji = "\xe6\x97\xa5";           # in EUC_JP, not in LATIN1
my $euro = "\xe2\x82\xac";            # neither in LATIN1 nor in EUC_JP
my $policy = "Z${umlaut}rich $kanji $euro";
my $admin = $node->unix_session;
$admin->query("CREATE ROLE \"r$umlaut$kanji\" LOGIN");
$admin->query("INSERT INTO keepalive_policy (name, role, tcp_keepalives_idle, enforcement)
	VALUES ('$policy', 'r$umlaut$kanji', '60s', 'locked')");
$node->wait_for_policies;
my @encodings = qw(UTF8 LATIN1 SQL_ASCII EUC_JP);
foreach my $encoding (@encodings)
{
	my $name = lc $encoding;
	$admin->query("CREATE DATABASE $name TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'");
	$node->safe_psql($name, 'CREATE EXTENSION keepalive_guard');
}

# --- what clients send ----------------------------------------------------------------

sub refused
{
	my ($user, $database) = @_;
	my $socket = IO::Socket::INET->new(PeerHost => '127.0.0.1', PeerPort => $node->port) or die $!;
	my $body = pack('N', 3 << 16) . "user\0$user\0database\0$database\0\0";
	syswrite $socket, pack('N', 4 + length $body) . $body;
	my $answer = join '', readline $socket;
	return $answer;
}

open my $hba, '>', $node->data_dir . '/pg_hba.conf' or die $!;
print $hba "local all all trust\nhost all all 127.0.0.1/32 reject\n";
close $hba;
$node->reload;
sleep 0.3;
my $cut = 'x' x 62 . $umlaut; # PostgreSQL itself cuts it to 63 bytes
my @users = ("\xff\xfe", "caf\xe9", "\x81\x8d", $cut, "\xe6\x97", "r$umlaut");
like(refused($_, 'postgres'), qr/pg_hba\.conf/, 'pg_hba.conf rejects user ' . unpack 'H*', $_)
  foreach @users;
like(refused('app', "\xff\xfe"), qr/pg_hba\.conf/, 'pg_hba.conf rejects a database name that is not valid text');

# Sessions of this role in every encoding: some stay, others end.
my (@open, @ended);
foreach my $encoding (@encodings)
{
	my %options = (user => "r$umlaut$kanji", dbname => lc $encoding,
		application_name => "till $umlaut\xff");
	push @open, $node->unix_session(%options);
	push @ended, $node->unix_session(%options);
}
foreach my $n (0 .. $#encodings)
{
	foreach my $client_encoding ($encodings[$n], 'UTF8')
	{
		next if "$encodings[$n] $client_encoding" eq 'LATIN1 UTF8'; # any byte is a character
		$open[$n]->query("SET client_encoding = $client_encoding");
		my $error = $open[$n]->try("SET tcp_keepalives_idle = 1")->{error};
		is($error->{sqlstate}, '42501', "SET is refused with the policy's name in a database of $encodings[$n], to a client of $client_encoding");
		my $name = $encodings[$n] eq 'EUC_JP' ? qr/Z.*rich .*\\x[^"]*/ : qr/\Q$policy\E/;
		like($error->{message}, qr/policy "$name"/, 'and the message has the name');
	}
}
my $log = $node->log_end;
$_->vanish foreach @ended;
$node->wait_for_exit($_->pid, 20) foreach @ended;

# --- what is shown --------------------------------------------------------------------

my @sources = ('keepalive_events()', 'keepalive_status()', 'keepalive_stats()',
	'keepalive_policy_problems()', 'keepalive_check()', 'keepalive_report()', 'keepalive_blockers',
	"keepalive_explain('postgres', 'r$umlaut$kanji')");
my %shown;
foreach my $encoding (@encodings)
{
	foreach my $client_encoding ($encoding, $encoding eq 'UTF8' ? 'LATIN1' : 'UTF8')
	{
		my $session = $node->unix_session(dbname => lc $encoding, client_encoding => $client_encoding);
		my $what = "in a database of $encoding, to a client of $client_encoding";
		foreach my $source (@sources)
		{
			# The argument is in the encoding of the policy database.
			next if $source =~ /explain/ && "$encoding $client_encoding" !~ /^UTF8 UTF8|SQL_ASCII/;
			my $result = $session->try("SELECT * FROM $source");
			is($result->{error} && $result->{error}{message}, undef, "$source succeeds $what");
			$result = $session->try("SELECT length(to_json(s)::text), upper(s::text) FROM $source s");
			is($result->{error} && $result->{error}{message}, undef, "$source can be converted to text $what");
		}
		$shown{"$encoding $client_encoding"} = join '|', map { $_->[0] } @{
			$session->query(q{SELECT DISTINCT policies[1] FROM keepalive_events() WHERE policies IS NOT NULL}) };
		my $names = $session->query(
			q{SELECT DISTINCT usename FROM keepalive_events() WHERE cause = 'authentication_failed'});
		$shown{"$encoding $client_encoding users"} = { map { ($_->[0] => 1) } @$names };
		$session->terminate;
	}
}
is($shown{'UTF8 UTF8'}, $policy, 'a policy name is shown unchanged in a database where it is valid text');
is($shown{'SQL_ASCII UTF8'}, $policy, 'a policy name is shown unchanged in an SQL_ASCII database to a client of its encoding');
is($shown{'SQL_ASCII SQL_ASCII'}, $policy, 'a policy name is shown unchanged in an SQL_ASCII database to an SQL_ASCII client');
is($shown{'UTF8 LATIN1'}, "Z\xfcrich \\xe6\\x97\\xa5 \\xe2\\x82\\xac",
	'characters outside the client\'s encoding are shown as escaped bytes');
like($shown{'EUC_JP EUC_JP'}, qr/^Z.*rich .*\\x/, 'a policy name that is not valid text in the database is shown with escaped bytes');
is_deeply($shown{'UTF8 UTF8 users'},
	{ map { ($_ => 1) } '\xff\xfe', 'caf\xe9', '\x81\x8d', 'x' x 62, '\xe6\x97', "r$umlaut", 'app' },
	'invalid bytes in a role name that a client sent are shown escaped');

# --- the log --------------------------------------------------------------------------

my @lines = grep { /lost connection/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile, $log);
is(scalar @lines, 4, 'the log has a line for each lost connection');
is(scalar(grep { index($_, "\"$policy\"") >= 0 } @lines), 3,
	'the log lines have the unchanged policy name in UTF8, LATIN1 and SQL_ASCII databases');
is(scalar(grep { /Z.*rich .*\\\\x/ } @lines), 1, 'the log line of the EUC_JP database has escaped bytes');

done_testing();
