# PgBouncer and HAProxy on a host of their own, between clients and the server.  Clients reach
# them through the server's host, which routes.
#
#   KeepaliveGuard::Pooler::route($pooler, $client);
#   KeepaliveGuard::Pooler::pgbouncer($node, $pooler, 6432, 'tcp_keepidle = 2');
#   my $session = $node->session(host => $client, address => $pooler->address, port => 6432, dbname => 'transaction');
package KeepaliveGuard::Pooler;

use strict;
use warnings;

use KeepaliveGuard::Host;
use Time::HiRes qw(sleep time);

# Lets these hosts reach each other.
sub route
{
	my (@hosts) = @_;
	KeepaliveGuard::Host::_must('sysctl', '-qw', 'net.ipv4.ip_forward=1');
	$_->_must_here('ip', 'route', 'replace', 'default', 'via', $_->server) foreach @hosts;
	return;
}

# Starts PgBouncer on a host, with a database for each way of pooling: "session",
# "transaction" and "statement".  All of them are the server's database postgres.
sub pgbouncer
{
	my ($node, $host, $port, @settings) = @_;
	my $directory = $node->basedir . "/pgbouncer-@{[$host->address]}-$port";
	mkdir $directory or die "$directory: $!";
	_write("$directory/users", join '', map { qq{"$_" ""\n} } 'postgres', 'app', 'checked');
	my $server = "host=@{[$host->server]} port=@{[$node->port]} dbname=postgres";
	_write("$directory/ini", join "\n",
		'[databases]',
		(map { "$_ = $server pool_mode=$_" } qw(session transaction statement)),
		'[pgbouncer]',
		"listen_addr = *\nlisten_port = $port\nunix_socket_dir =",
		"auth_type = trust\nauth_file = $directory/users",
		"logfile = $directory/log\npidfile = $directory/pid",
		@settings, '');
	return _start($host, $port, 'pgbouncer', '-q', "$directory/ini");
}

# Starts HAProxy on a host, as a TCP proxy for the server.  The settings are for the defaults.
sub haproxy
{
	my ($node, $host, $port, @settings) = @_;
	my $file = $node->basedir . "/haproxy-@{[$host->address]}-$port";
	_write($file, join "\n",
		'defaults', "    mode tcp\n    timeout connect 5s", (map { "    $_" } @settings),
		"listen postgresql\n    bind *:$port",
		"    server primary @{[$host->server]}:@{[$node->port]}", '');
	return _start($host, $port, 'haproxy', '-db', '-f', $file);
}

# Starts a program, and waits until it listens.
sub _start
{
	my ($host, $port, @command) = @_;
	my $harness = $host->start(@command);
	my $until = time + 20;
	until (($host->run('ss', '-Hltn', "sport = $port"))[0])
	{
		die "$command[0] does not listen on port $port\n" if time > $until || !$harness->pumpable;
		sleep 0.05;
	}
	return $harness;
}

sub _write
{
	my ($file, $text) = @_;
	open my $out, '>', $file or die "$file: $!";
	print $out $text;
	close $out or die "$file: $!";
	return;
}

1;
