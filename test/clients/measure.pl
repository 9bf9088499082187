# make test-clients: keepalive_plan_clients() with every client, pooler and proxy that can
# be installed.  Writes the table of doc/clients.md to build/clients/table.md.
use strict;
use warnings;

use Cwd 'getcwd';
use File::Path 'make_path';
use KeepaliveGuard::Clients;
use KeepaliveGuard::Cluster;
use KeepaliveGuard::KernelSockets ();
use KeepaliveGuard::Network;
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes ();

my $here = getcwd() . '/test/clients';
my $libpq = 'libpq (psql, psycopg, ruby-pg, DBD::Pg, PHP)';
my $node = KeepaliveGuard::Cluster->start_new('primary');
$node->safe_psql('postgres', 'CREATE VIEW one AS SELECT 1 AS i; CREATE VIEW sleeper AS SELECT 1 AS i FROM pg_sleep(3600)');
my $clients = KeepaliveGuard::Clients->new($node, KeepaliveGuard::Network->new, within => '15 s');
my $settings = sub { return $clients->settings(@_) };

# --- drivers ------------------------------------------------------------------------

sub psql_with_settings
{
	my ($self, $env) = @_;
	return KeepaliveGuard::Clients::psql("$env->{CONNINFO} $env->{SETTINGS}");
}

sub plain_psql { return KeepaliveGuard::Clients::psql($_[1]{CONNINFO}) }

$clients->add(name => 'psql', row => $libpq, command => \&psql_with_settings);
$clients->add(
	name => 'psql, with a URI',
	row => 'libpq URI (postgresql://...?)',
	command => sub {
		my ($self, $env) = @_;
		return KeepaliveGuard::Clients::psql("postgresql://postgres\@$env->{HOST}:$env->{PORT}/postgres?$env->{SETTINGS}");
	});
$clients->add(name => 'psql, with the kernel settings', row => 'sysctl', command => \&plain_psql);
$clients->add(name => $_, row => $libpq, command => [ 'python3', '-I', "$here/libpq.py", $_ ])
  foreach qw(psycopg2 psycopg);
$clients->add(name => 'ruby-pg', row => $libpq, command => [ 'ruby', "$here/ruby_pg.rb" ]);
$clients->add(name => 'DBD::Pg', row => $libpq, command => [ 'perl', "$here/dbd_pg.pl" ]);
$clients->add(name => 'PHP', row => $libpq, command => [ 'php', "$here/php_pg.php" ]);
$clients->add(name => 'asyncpg', row => 'asyncpg', command => [ 'python3', '-I', "$here/asyncpg_pool.py" ]);

my ($node_idle) = $settings->('node-postgres') =~ /DelayMillis: (\d+)000/;
$clients->add(
	name => 'node-postgres',
	row => 'node-postgres',
	command => [ 'env', 'NODE_PATH=/usr/share/nodejs', 'node', "$here/node_pg.js" ],
	options => { idle => $node_idle + 0, interval => 1, count => 10 });

make_path("$ENV{TESTDIR}/java");
system('javac', '-d', "$ENV{TESTDIR}/java", "$here/PgJdbc.java") == 0 or die "javac failed\n";
$clients->add(
	name => 'pgJDBC',
	row => 'pgJDBC',
	command => [ 'java', '-XX:TieredStopAtLevel=1', '-cp', "$ENV{TESTDIR}/java:/usr/share/java/postgresql.jar", 'PgJdbc' ]);

# Go: the settings are a part of the program.
foreach (([ 'pgx', 'pgx' ], [ 'lib/pq', 'lib_pq' ]))
{
	my ($name, $source) = @$_;
	my $program = PostgreSQL::Test::Utils::slurp_file("$here/$source.go");
	my $text = $settings->($name);
	$program =~ s{// SETTINGS\n}{$text\n} or die;
	my $file = $clients->file("$source.go", $program);
	local %ENV = (%ENV, GO111MODULE => 'off', GOPATH => '/usr/share/gocode', GOFLAGS => '-p=2');
	system('go', 'build', '-o', "$ENV{TESTDIR}/$source", $file) == 0 or die "go build failed\n";
	$clients->add(name => $name, row => $name, command => ["$ENV{TESTDIR}/$source"]);
}

# --- poolers and proxies --------------------------------------------------------------

$clients->add(
	name => 'PgBouncer',
	row => 'PgBouncer',
	proxy => \&KeepaliveGuard::Clients::pgbouncer,
	command => \&plain_psql);
$clients->add(
	name => 'HAProxy',
	row => 'HAProxy, to servers',
	command => \&plain_psql,
	proxy => sub {
		my ($self, $host, $port) = @_;
		my $text = $settings->('HAProxy, to servers') =~ s/^/  /gmr;
		my ($append) = $text =~ /# append to each server line: (.*)/ or die $text;
		my $file = $self->file("haproxy.$port", <<"END");
defaults
  mode tcp
  timeout client 1h
  timeout server 1h
$text
listen postgresql
  bind 127.0.0.1:$port
  server primary @{[$host->server]}:@{[$node->port]} $append
END
		return [ '/usr/sbin/haproxy', '-db', '-f', $file ];
	});
$clients->add(
	name => 'nginx',
	row => 'nginx stream, to servers',
	command => \&plain_psql,
	proxy => sub {
		my ($self, $host, $port) = @_;
		my $text = $settings->('nginx stream, to servers');
		my $file = $self->file("nginx.$port", <<"END");
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid $ENV{TESTDIR}/nginx.$port.pid;
error_log stderr;
events {}
stream {
	$text
	server {
		listen 127.0.0.1:$port;
		proxy_pass @{[$host->server]}:@{[$node->port]};
	}
}
END
		return [ '/usr/sbin/nginx', '-c', $file, '-e', 'stderr' ];
	});

# --- servers that are clients ------------------------------------------------------------

my $other = KeepaliveGuard::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf', "listen_addresses = ''\nmax_connections = 50\n");
$clients->{plain}->within(sub { $other->start });
my $conninfo = "host=@{[$clients->{plain}->server]} port=@{[$node->port]}";
my ($fdw, $dblink) = map { $settings->($_) } qw(postgres_fdw dblink);
$other->safe_psql('postgres', <<"END");
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION dblink;
CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw $fdw;
ALTER SERVER remote OPTIONS (host '@{[$clients->{plain}->server]}', port '@{[$node->port]}', dbname 'postgres');
CREATE USER MAPPING FOR PUBLIC SERVER remote OPTIONS (user 'postgres');
CREATE FOREIGN TABLE one (i integer) SERVER remote;
CREATE FOREIGN TABLE sleeper (i integer) SERVER remote;
END
my $local_psql = sub {
	return KeepaliveGuard::Clients::psql("host=@{[$other->host]} port=@{[$other->port]} dbname=postgres");
};
my %local = (
	local => 1,
	pid => sub { # the backend has the connection
		my ($name) = @_;
		return $other->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE application_name = '$name'");
	});
$clients->add(
	name => 'postgres_fdw',
	row => 'postgres_fdw',
	command => $local_psql,
	sql => { one => 'SELECT i FROM one', sleep => 'SELECT i FROM sleeper' },
	reconnects => 1,
	%local);
$clients->add(
	name => 'dblink',
	row => 'dblink',
	command => $local_psql,
	sql => {
		one => "DO \$\$ BEGIN IF 'c' = ANY (dblink_get_connections()) THEN ELSE PERFORM dblink_connect('c', '$conninfo user=postgres dbname=postgres $dblink'); END IF; END \$\$; SELECT i FROM dblink('c', 'SELECT 1') AS t (i integer)",
		sleep => "SELECT i FROM dblink('c', 'SELECT 1 FROM pg_sleep(3600)') AS t (i integer)" },
	%local);

# --- the table ----------------------------------------------------------------------------

my @rows = $clients->measure;
cmp_ok(scalar @rows, '>=', 8, 'at least eight kinds of clients were measured');

make_path('build/clients');
open my $table, '>', 'build/clients/table.md' or die "table.md: $!";
print $table <<"END";
Client | idle | waiting for an answer | sending a query | connecting
--- | --- | --- | --- | ---
END
foreach my $row (@rows)
{
	print $table join(' | ', $row->{name}, map {
			sprintf '%.1f s (%.1f s)', $row->{seconds}{$_} // -1, $row->{promised}{$_} } @KeepaliveGuard::Clients::STATES), "\n";
}
close $table;

$other->stop('immediate');

# --- the other side of poolers and proxies: a client's host loses power --------------------

my $host = $clients->{plain};
my %accepts = (
	'PgBouncer' => sub {
		my ($port) = @_;
		return ('pgbouncer', $clients->file("pgbouncer.$port", <<"END"));
[databases]
postgres = host=127.0.0.1 port=@{[$node->port]} user=postgres
[pgbouncer]
listen_addr = *
listen_port = $port
unix_socket_dir =
auth_type = any
@{[$settings->('PgBouncer')]}
END
	},
	'HAProxy, to clients' => sub {
		my ($port) = @_;
		return ('/usr/sbin/haproxy', '-db', '-f', $clients->file("haproxy.$port", <<"END"));
defaults
  mode tcp
  timeout client 1h
  timeout server 1h
  timeout connect 5s
@{[$settings->('HAProxy, to clients') =~ s/^/  /gmr]}
listen postgresql
  bind :$port
  server primary 127.0.0.1:@{[$node->port]}
END
	},
	'nginx stream, to clients' => sub {
		my ($port) = @_;
		return ('/usr/sbin/nginx', '-e', 'stderr', '-c', $clients->file("nginx.$port", <<"END"));
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid $ENV{TESTDIR}/nginx.$port.pid;
error_log stderr;
events {}
stream {
	server {
		listen $port @{[$settings->('nginx stream, to clients')]};
		proxy_pass 127.0.0.1:@{[$node->port]};
	}
}
END
	});
my ($next_port, @accepting) = (8000);
foreach my $name (sort keys %accepts)
{
	my $port = $next_port++;
	my $proxy = KeepaliveGuard::Program->start([ 'uncapped', $accepts{$name}->($port) ]);
	KeepaliveGuard::Program::wait_until(sub { `ss -ltnH sport = :$port` ne '' }, 10);
	my $client = KeepaliveGuard::Program->start(
		[
			$host->command(
				@{ KeepaliveGuard::Clients::psql("host=@{[$host->server]} port=$port user=postgres dbname=postgres") }) ]);
	$client->send('SELECT pg_backend_pid();');
	KeepaliveGuard::Program::wait_until(sub { $client->line(qr/^\d+$/) }, 10, $client);
	my ($backend) = $client->output =~ /^(\d+)$/m;
	ok($backend, "$name: a client gets an answer") or diag($client->output, $proxy->output);
	my ($line) = grep { $_->{local_port} == $port } KeepaliveGuard::KernelSockets::socket_lines();
	my $options = KeepaliveGuard::KernelSockets::socket_options($proxy->pid, $line->{peer_port});
	delete $options->{port};
	my $expected = $clients->expected_options({ host => $host });
	$expected->{user_timeout} = 0 unless $name eq 'PgBouncer';
	is_deeply($options, $expected, "$name: the kernel has the promised options");
	push @accepting, {
		name => $name, proxy => $proxy, client => $client, backend => $backend,
		socket => KeepaliveGuard::KernelSockets::client_socket($proxy->pid, $line->{peer_port}),
		promised => $clients->{row}{$name}{idle} };
}
Time::HiRes::sleep(1.5);
$host->lose_others;
my $lost = Time::HiRes::time;
KeepaliveGuard::Program::wait_until(
	sub {
		my $left = 0;
		foreach my $one (@accepting)
		{
			# At the earliest: when it was open for the last time.
			my $now = Time::HiRes::time - $lost;
			if (!KeepaliveGuard::Clients::_closed($one->{socket})) { $one->{open_at} = $now }
			else { $one->{given_up} //= $one->{open_at} // $now }
			$one->{ended} //= $now unless -d "/proc/$one->{backend}";
			$left++ unless $one->{given_up} && ($one->{ended} || $one->{name} eq 'PgBouncer');
		}
		return !$left;
	},
	25);
open my $sides, '>', 'build/clients/accepting.md' or die "accepting.md: $!";
print $sides "Proxy | its connection to the client | the session on the server\n--- | --- | ---\n";
foreach my $one (@accepting)
{
	my ($given_up, $ended) = @$one{qw(given_up ended)};
	ok(defined $given_up && $given_up <= $one->{promised},
		sprintf '%s: gives up the client within %.1f s (%s)', $one->{name}, $one->{promised}, $given_up // 'never');
	ok(defined $ended || $one->{name} eq 'PgBouncer', "$one->{name}: the session on the server ends with it");
	printf $sides "%s | %.1f s (%.1f s) | %s\n", $one->{name}, $given_up // -1, $one->{promised},
	  defined $ended ? sprintf('%.1f s', $ended) : 'stays in the pool';
}
close $sides;
$_->stop foreach map { @$_{qw(client proxy)} } @accepting;
done_testing();
