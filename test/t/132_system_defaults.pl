# A setting of 0 is the system's default, that of the server's network namespace, and
# overrides postgresql.conf.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(settings_agree kernel_has wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;

sub sysctl
{
	my ($name, $value) = @_;
	open my $file, '>', "/proc/sys/net/ipv4/$name" or die "$name: $!";
	print $file "$value\n";
	close $file or die "$name: $!";
	return;
}
sysctl(tcp_keepalive_time => 1234);
sysctl(tcp_keepalive_intvl => 1);
sysctl(tcp_keepalive_probes => 1);

my $node = KeepaliveGuard::Cluster->start_new('primary', conf => <<'END');
tcp_keepalives_idle = 11
tcp_keepalives_interval = 12
tcp_keepalives_count = 13
tcp_user_timeout = 14000
client_connection_check_interval = 15000
END
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE ROLE other LOGIN');
$node->policy(name => 'system', role => 'app', tcp_keepalives_idle => '0', tcp_keepalives_interval => '0',
	tcp_keepalives_count => 0, tcp_user_timeout => '0', client_connection_check_interval => '0');
$node->policy(name => 'fixed', role => 'postgres', tcp_keepalives_idle => '21s');
$node->wait_for_policies;

my %system = (idle => 1234, interval => 1, count => 1, user_timeout => 0, client_check => 0);
my %conf = (idle => 11, interval => 12, count => 13, user_timeout => 14_000, client_check => 15_000);

my $app = $node->session(user => 'app');
settings_agree($node, $app, 'system', \%system, 'a policy with all settings 0 gives the system\'s defaults');
settings_agree($node, $node->session(user => 'other'), undef, \%conf, 'a session without a policy has the values of postgresql.conf');

# The kernel uses its default for a socket only while the option was never set
# (keepalive_time_when), and PostgreSQL sets it.
sysctl(tcp_keepalive_time => 4321);
my $new = $node->session(user => 'app');
kernel_has($new, { idle => 4321, interval => 1 }, 'a new connection has the new system default');
kernel_has($app, { idle => 1234 }, 'an old connection keeps the system default of its start');

# --- changes ----------------------------------------------------------------------

my $postgres = $node->session;
kernel_has($postgres, { idle => 21, interval => 12 }, 'a policy that sets one value leaves the others to postgresql.conf');
$node->safe_psql('postgres', "UPDATE keepalive_policy SET tcp_keepalives_idle = '0'");
ok(defined wait_for_kernel($postgres, { idle => 4321 }, 10), 'a connected session gets the system default when its policy changes to 0');
$node->safe_psql('postgres', 'DELETE FROM keepalive_policy');
ok(defined wait_for_kernel($postgres, { idle => 11 }, 10), 'a session of a deleted policy has postgresql.conf\'s value');
ok(defined wait_for_kernel($app, { idle => 11, interval => 12, count => 13, user_timeout => 14_000 }, 10),
	'a session of a deleted policy of zeros has postgresql.conf\'s values');

done_testing();
