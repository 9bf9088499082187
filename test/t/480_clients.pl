# keepalive_plan_clients() with real clients and a real pooler: their sockets have what it
# promises, and they notice in time that the server's host has lost power.
# make test-clients does the same with more of them.
use strict;
use warnings;

use KeepaliveGuard::Clients;
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Network;
use Test::More;

my $node = KeepaliveGuard::Cluster->start_new('primary');
my $clients =
  KeepaliveGuard::Clients->new($node, KeepaliveGuard::Network->new, within => '10 s');
my $libpq = 'libpq (psql, psycopg, ruby-pg, DBD::Pg, PHP)';

$clients->add(
	name => 'psql',
	row => $libpq,
	command => sub {
		my ($self, $env) = @_;
		return KeepaliveGuard::Clients::psql("$env->{CONNINFO} $env->{SETTINGS}");
	});
$clients->add(
	name => 'psycopg2',
	row => $libpq,
	command => [ 'python3', '-I', 'test/clients/libpq.py', 'psycopg2' ]);
$clients->add(
	name => 'a host with the sysctl settings',
	row => 'sysctl',
	command => sub { return KeepaliveGuard::Clients::psql($_[1]{CONNINFO}) });
$clients->add(
	name => 'PgBouncer',
	row => 'PgBouncer',
	proxy => \&KeepaliveGuard::Clients::pgbouncer,
	command => sub { return KeepaliveGuard::Clients::psql($_[1]{CONNINFO}) });
$clients->measure;

done_testing();
