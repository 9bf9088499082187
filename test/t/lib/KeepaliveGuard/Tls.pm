# Makes a certificate for a test cluster.
package KeepaliveGuard::Tls;

use strict;
use warnings;

use IPC::Run ();

# Makes a key and a certificate in the directory.  Returns lines for postgresql.conf.
sub conf
{
	my ($directory) = @_;
	my @command = (
		qw(openssl req -new -x509 -nodes -days 2 -subj /CN=server -newkey ec -pkeyopt),
		'ec_paramgen_curve:prime256v1', '-keyout', "$directory/server.key", '-out', "$directory/server.crt");
	my $output = '';
	IPC::Run::run(\@command, '<', \undef, '>&', \$output) or die "@command failed: $output";
	chmod 0600, "$directory/server.key";
	return <<"END";
ssl = on
ssl_cert_file = '$directory/server.crt'
ssl_key_file = '$directory/server.key'
END
}

1;
