# A policy reader that cannot connect, or cannot read the table, is started again at
# growing intervals; one message says so; keepalive_apply() and keepalive_check() tell.
use strict;
use warnings;

use KeepaliveGuard::Settings qw(kernel_has seconds_until wait_for_kernel);
use KeepaliveGuard::Cluster;
use Test::More;
use Time::HiRes 'sleep';

# Lets the server's clock be set back, for the server alone.
my $library = "$PostgreSQL::Test::Utils::tmp_check/clock.so";
my $clock_is_back = "$PostgreSQL::Test::Utils::tmp_check/clock_is_back";
open my $source, '>', "$PostgreSQL::Test::Utils::tmp_check/clock.c" or die $!;
print $source <<'END';
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	int result = syscall(SYS_gettimeofday, now, zone);
	if (access(getenv("CLOCK_IS_BACK"), F_OK) == 0)
		now->tv_sec -= 3600;
	return result;
}
END
close $source;
system('cc', '-shared', '-fPIC', '-o', $library, "$PostgreSQL::Test::Utils::tmp_check/clock.c") == 0
  or die "cc fails\n";

my $node = do
{
	local @ENV{qw(LD_PRELOAD CLOCK_IS_BACK)} = ($library, $clock_is_back);
	KeepaliveGuard::Cluster->start_new('primary', conf => "keepalive_guard.database = 'guarded'\n");
};
my $admin = $node->unix_session;
$admin->query('CREATE DATABASE guarded');
$admin->query('CREATE EXTENSION IF NOT EXISTS keepalive_guard');
$node->safe_psql('guarded', <<'END');
CREATE EXTENSION keepalive_guard;
INSERT INTO keepalive_policy (name, tcp_keepalives_idle) VALUES ('a', '21s')
END
my $session = $node->session;
ok(defined wait_for_kernel($session, { idle => 21 }, 10), 'a policy is in force');

my $message =
  qr/LOG:  keepalive_guard: the policy reader cannot read the policies of database "guarded", trying again/;
my $failure = qr/background worker "keepalive_guard policy reader" \(PID \d+\) exited with exit code 1/;

# Tests how a policy reader that fails is dealt with, for 6 seconds.
sub fails
{
	my ($name, $from, $error, $detail) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(defined seconds_until(20, sub { $node->log_count($message, $from) }), "$name: the server log says so");
	sleep 6;
	ok(defined seconds_until(20, sub { $node->log_count($error, $from) >= 3 }), "$name: there is more than one attempt");
	is($node->log_count($message, $from), 1, "$name: it says so once");
	my @attempts = $node->log_times($failure, $from);
	cmp_ok(scalar(grep { $_ < $attempts[0] + 6 } @attempts), '<=', 5, "$name: there are few attempts");
	is($node->log_count(qr/DETAIL:  $detail/, $from), 1, "$name: the DETAIL line says what is in force");

	$from = $node->log_end;
	my $result = $admin->try('SELECT * FROM keepalive_apply()');
	is($result->{notices}[0]{message}, 'the policies of database "guarded" could not be read',
		"$name: keepalive_apply() warns");
	like($result->{notices}[0]{detail}, qr/^$detail$/, "$name: keepalive_apply() says what is in force");
	# Perhaps beside one that was due.
	cmp_ok($node->log_count($error, $from), '>', 0, "$name: keepalive_apply() is an attempt at once");
	return;
}

# --- no connection ------------------------------------------------------------------------

my $no_reader = q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ 'policy reader'};
$node->poll_query_until('postgres', $no_reader) or die "the policy reader does not exit\n";
my $from = $node->log_end;
$admin->query(q{UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'guarded'});
$admin->query('CREATE DATABASE unrelated');
fails('invalid database', $from, qr/FATAL:  cannot connect to invalid database "guarded"/,
	'The policy that was read before stays in force\.');
my ($finding) = grep { $_->[1] eq 'policy reader' } @{ $admin->query('SELECT * FROM keepalive_check()') };
is($finding->[0], 'error', 'keepalive_check() reports it');
is($finding->[2],
	'the policy reader cannot read the policies of database "guarded": the policy that was read before stays in force',
	'keepalive_check() says what is in force');
like($node->follow_hint($finding->[3]), qr/cannot connect to invalid database "guarded"/, 'the command of the hint finds the reason in the server log');
kernel_has($node->session, { idle => 21 }, 'the policy stays in force');

$from = $node->log_end;
$admin->query(q{UPDATE pg_database SET datconnlimit = -1 WHERE datname = 'guarded'});
ok(defined seconds_until(20, sub { $node->log_count(qr/1 keepalive polic.* of database "guarded" .* in force/, $from) }),
	'when the database is valid again, the policies are read without a request');
is_deeply([ grep { $_->[1] eq 'policy reader' } @{ $admin->query('SELECT * FROM keepalive_check()') } ],
	[], 'keepalive_check() reports nothing any more');

# --- a clock that is set back --------------------------------------------------------------

open my $file, '>', $clock_is_back or die $!;
$node->safe_psql('guarded', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '22s'});
my $now = $admin->value('SELECT extract(epoch FROM clock_timestamp())::bigint');
cmp_ok($now, '<', time - 3000, 'the clock is set back by an hour');
ok($node->poll_query_until('postgres', $no_reader), 'the policy reader exits');
$node->safe_psql('guarded', q{UPDATE keepalive_policy SET tcp_keepalives_idle = '23s'});
ok(defined wait_for_kernel($session, { idle => 23 }, 20), 'a change is in force although the clock was set back');
unlink $clock_is_back;

# --- no table that can be read -------------------------------------------------------------

my $path = $node->data_dir . '/'
  . $node->safe_psql('guarded', q{SELECT pg_relation_filepath('keepalive_policy')});
$node->stop;
open $file, '+<', $path or die "$path: $!";
my $page;
read $file, $page, 8192;
seek $file, 0, 0;
print $file "\xff" x 8192;
close $file;
$from = $node->log_end;
$node->start;
$admin = $node->unix_session;
fails('corrupt table', $from, qr/ERROR:  invalid page in block 0 of relation/, 'No policy is in force\.');
$session = $node->session;
kernel_has($session, { idle => 7200 }, 'no policy is in force');
($finding) = grep { $_->[1] eq 'policy reader' } @{ $admin->query('SELECT * FROM keepalive_check()') };
is($finding->[2], 'the policy reader cannot read the policies of database "guarded": no policy is in force',
	'keepalive_check() says what is in force');
open $file, '+<', $path or die "$path: $!";
print $file $page;
close $file;
is($admin->try('SELECT * FROM keepalive_apply()')->{notices}[0], undef, 'when the table can be read again, keepalive_apply() does not warn');
kernel_has($session, { idle => 23 }, 'the policy is in force');

is($node->log_count(qr/PANIC|was terminated by signal|TRAP/), 0, 'nothing went wrong in the server');

done_testing();
