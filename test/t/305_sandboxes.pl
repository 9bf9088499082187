# A server in sandboxes that allow netlink: what container runtimes refuse, the mount
# options of /proc, a user namespace.  Policies, their changes and the reading functions
# work in each.  302_without_netlink.pl has more about sandboxes that refuse netlink.
use strict;
use warnings;

use Errno qw(ENOSYS EPERM);
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Seccomp qw(answer_system_call refuse_system_call);
use KeepaliveGuard::Settings qw(kernel_has wait_for_kernel);
use POSIX ();
use Test::More;

require 'syscall.ph';

use constant {
	AF_NETLINK => 16,
	AF_VSOCK => 40,
	CLONE_NEWNS => 0x20000,
	CLONE_NEWUSER => 0x10000000,
	PR_SET_NO_NEW_PRIVS => 38,
	# The same on every architecture; Perl may not define them.
	SYS_io_uring_setup => 425,
	SYS_clone3 => 435,
	SYS_pidfd_getfd => 438,
	SYS_process_madvise => 440,
};

# What Docker, containerd and podman refuse to containers without additional
# capabilities, as far as anything like the guard could want it.
sub refuse_as_containers_do
{
	syscall(SYS_prctl(), PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 or die "prctl: $!\n";
	refuse_system_call($_)
	  foreach SYS_pidfd_getfd, SYS_process_madvise, SYS_io_uring_setup,
	  map { $_->() } grep { defined &$_ }
	  map { \&{"main::SYS_$_"} } qw(kcmp bpf perf_event_open setns unshare mount umount2 chroot
	  open_by_handle_at syslog add_key request_key keyctl userfaultfd move_pages quotactl acct);
	answer_system_call(ENOSYS, SYS_clone3);
	refuse_system_call(SYS_socket(), 0 => AF_VSOCK);
	return;
}

sub mount_proc
{
	my ($options) = @_;
	my ($source, $directory) = ("proc\0", "/proc\0");
	syscall(SYS_unshare(), CLONE_NEWNS) == 0 or die "unshare: $!\n";
	syscall(SYS_mount(), $source, $directory, $source, 0, $options) == 0 or die "mount: $!\n";
	return;
}

# A user namespace that has only the user of the server.
sub enter_user_namespace
{
	my ($uid, $gid) = ($>, $) + 0);
	syscall(SYS_unshare(), CLONE_NEWUSER) == 0 or die "unshare: $!\n";
	foreach ([ setgroups => 'deny' ], [ uid_map => "$uid $uid 1" ], [ gid_map => "$gid $gid 1" ])
	{
		open my $file, '>', "/proc/self/$_->[0]" or die "/proc/self/$_->[0]: $!\n";
		syswrite $file, $_->[1] or die "/proc/self/$_->[0]: $!\n";
	}
	return;
}

my $node = KeepaliveGuard::Cluster->start_new('node');
my $bare = KeepaliveGuard::Cluster->start_new('bare', preload => 0);
$bare->safe_psql('postgres', 'CREATE EXTENSION keepalive_guard');
$node->policy(name => 'everybody', tcp_keepalives_idle => '20 s', dead_after => '1 min');
my $idle = 20;

# How many rows keepalive_kernel() has without a value.
sub unknown_kernel_settings
{
	my ($reader) = @_;
	return $reader->value('SELECT count(*) FROM keepalive_kernel() WHERE setting IS NULL');
}
my $unknown = unknown_kernel_settings($node->unix_session);

# Tests that everything works in a server that is started after the code has run.
sub works_after
{
	my ($sandbox, $enter, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$_->stop foreach $node, $bare;
	is($node->start_after($enter), 0, "$sandbox: the server starts");

	my $session = $node->session;
	ok(defined wait_for_kernel($session, { idle => $idle }, 10), "$sandbox: a session gets its policy");
	my $reader = $node->unix_session;
	$idle++;
	$reader->query("UPDATE keepalive_policy SET tcp_keepalives_idle = '$idle s'");
	ok(defined wait_for_kernel($session, { idle => $idle }, 10), "$sandbox: a change reaches a connected session");

	$node->wait_for_policies;
	my $status = $reader->try("SELECT policy_state, tcp_state, health, rtt_ms IS NOT NULL, gives_up_in IS NOT NULL
		FROM keepalive_status() WHERE pid = @{[$session->pid]}");
	is_deeply([ @$status{qw(rows notices)} ], [ [ [ 'applied', 'ESTABLISHED', 'alive', 't', 't' ] ], [] ],
		"$sandbox: keepalive_status() shows what the kernel has");
	is_deeply($reader->query("SELECT kind, pid FROM keepalive_sockets() WHERE kind = 'client'"),
		[ [ 'client', $session->pid ] ], "$sandbox: keepalive_sockets() has the client");
	is($reader->value("SELECT count(*) > 0 FROM keepalive_sockets() WHERE kind = 'listener'"), 't',
		"$sandbox: keepalive_sockets() has listeners");
	is_deeply($reader->query('SELECT * FROM keepalive_check_guard()'), [], "$sandbox: keepalive_check() finds nothing missing");
	is(unknown_kernel_settings($reader), $options{unknown} // $unknown, "$sandbox: keepalive_kernel() shows what /proc has");
	$options{also}->($reader, $session) if $options{also};

	is($bare->start_after($enter), 0, "$sandbox: a server without preload starts");
	$session = $bare->session;
	is_deeply($bare->unix_session->query("SELECT pid, tcp_state FROM keepalive_status() WHERE transport = 'tcp'"),
		[ [ $session->pid, 'ESTABLISHED' ] ], "$sandbox: keepalive_status() without preload shows the session");
	return;
}

works_after('container runtime', \&refuse_as_containers_do);

my $own = $$;
foreach my $hidepid (2, 4)
{
	works_after("hidepid=$hidepid", sub { mount_proc("hidepid=$hidepid\0") }, also => sub {
			my ($reader, $session) = @_;
			is_deeply($reader->query("SELECT pid FROM pg_ls_dir('/proc') AS d (pid) WHERE pid IN ('$own', '@{[$session->pid]}')"),
				[ [ $session->pid ] ], "hidepid=$hidepid: the server does not see processes with other privileges");
		});
}
works_after('subset=pid', sub { mount_proc("subset=pid\0") },
	unknown => $node->unix_session->value(q{SELECT count(*) FROM keepalive_kernel() WHERE source LIKE '/proc/sys/%'}));

$node->stop;
is($node->start_after(sub {
		mount_proc("subset=pid\0");
		refuse_system_call(SYS_socket(), 0 => AF_NETLINK);
	}), 0, 'subset=pid without netlink: the server starts');
my $client = $node->session;
is_deeply($node->unix_session->query("SELECT tcp_state, health FROM keepalive_status() WHERE pid = @{[$client->pid]}"),
	[ [ 'ESTABLISHED', 'alive' ] ], 'subset=pid without netlink: keepalive_status() shows what /proc/net/tcp has');
is_deeply($node->unix_session->query("SELECT kind, pid FROM keepalive_sockets() WHERE kind = 'client'"),
	[ [ 'client', $client->pid ] ], 'subset=pid without netlink: keepalive_sockets() has the client');

SKIP:
{
	# In a chroot, or where the administrator says so, nobody gets a user namespace.
	my $child = fork // die "fork: $!";
	POSIX::_exit(syscall(SYS_unshare(), CLONE_NEWUSER) != 0) if !$child;
	waitpid $child, 0;
	skip 'user namespaces are not allowed here', 1 if $?;
	works_after('user namespace', \&enter_user_namespace, also => sub {
			my ($reader) = @_;
			like($reader->value(q{SELECT pg_read_file('/proc/self/uid_map', 0, 100)}), qr/^\s*$> +$> +1\s*$/,
				'user namespace: the server has only its own user');
		});
}

is($_->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'the server log has no crash') foreach $node, $bare;

done_testing();
