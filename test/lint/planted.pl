#!/usr/bin/perl
# Whether test/lint/includes, test/lint/released and test/lint/objects find what they
# are for: each violation is planted in a tree of its own below build/planted.
use strict;
use warnings;
use Cwd 'getcwd';
use Digest::SHA 'sha256_hex';
use File::Basename 'dirname';
use File::Path qw(make_path remove_tree);
use FindBin '$Bin';
use Test::More;

chdir "$Bin/../.." or die $!;
my $root = getcwd() . '/build/planted';
remove_tree($root);

sub plant
{
	my ($path, $text) = @_;
	make_path(dirname("$root/$path"));
	open my $file, '>', "$root/$path" or die "$path: $!";
	print $file $text;
	close $file;
	return;
}

# --- Includes --------------------------------------------------------------------

my $trees = 0;

# What test/lint/includes prints of files, and whether it is content.
sub includes
{
	my %files = @_;
	my $tree = 'includes/' . ++$trees;
	plant("$tree/src/$_", join '', map { /^</ ? "#include $_\n" : "#include \"$_\"\n" } @{ $files{$_} })
	  foreach keys %files;
	my $output = `test/lint/includes '$root/$tree' 2>&1`;
	return ($output, $? == 0);
}

sub finds
{
	my ($name, $expected, %files) = @_;
	my ($output, $content) = includes(%files);
	like($output, $expected, $name);
	ok(!$content, "$name: fails");
	return;
}

my %sound = (
	'kernel/socket.hpp' => [qw(<linux/tcp.h>)],
	'model/verdict.hpp' => [qw(kernel/socket.hpp)],
	'pg/postgres.hpp' => [qw(postgres.h)],
	'pg/shared/state.hpp' => [qw(pg/postgres.hpp model/verdict.hpp)],
	'pg/policy/matching.hpp' => [qw(pg/shared/state.hpp)],
	'pg/session/session.hpp' => [qw(pg/policy/matching.hpp pg/shared/state.hpp)],
	'pg/session/session.cpp' => [qw(pg/session/session.hpp)],
	'pg/worker/worker.hpp' => [qw(pg/policy/matching.hpp)],
	'pg/functions/status.cpp' => [qw(pg/shared/state.hpp)],
	'keepalive_guard.cpp' => [qw(pg/session/session.hpp pg/worker/worker.hpp)]);
is_deeply([ includes(%sound) ], [ '', 1 ], 'includes that go down are allowed');

finds('an include that goes up', qr{^src/pg/shared/state\.hpp:1: src/pg/shared may not include src/pg/policy },
	%sound, 'pg/shared/state.hpp' => [qw(pg/policy/matching.hpp)], 'pg/policy/matching.hpp' => []);
finds('an include from the base up', qr{^src/pg/clock\.cpp:2: src/pg may not include src/pg/shared },
	%sound, 'pg/clock.cpp' => [qw(pg/postgres.hpp pg/shared/state.hpp)]);
finds('an include that goes across', qr{^src/pg/functions/status\.cpp:1: src/pg/functions may not include src/pg/session },
	%sound, 'pg/functions/status.cpp' => [qw(pg/session/session.hpp)]);
finds('an include from kernel to model', qr{^src/kernel/socket\.cpp:1: src/kernel may not include src/model },
	%sound, 'kernel/socket.cpp' => [qw(model/verdict.hpp)]);
finds('an include by a relative path', qr{^src/pg/worker/worker\.cpp:1: write the path below src },
	%sound, 'pg/worker/worker.cpp' => [qw(worker.hpp)]);
finds('two headers that include each other', qr{^include cycle: pg/a -> pg/b -> pg/a$}m,
	'pg/a.hpp' => [qw(pg/b.hpp)], 'pg/b.hpp' => [qw(pg/a.hpp)]);
finds('modules that include each other by their sources', qr{^include cycle: pg/a -> pg/b -> pg/c -> pg/a$}m,
	'pg/a.hpp' => [], 'pg/a.cpp' => [qw(pg/b.hpp)], 'pg/b.hpp' => [qw(pg/c.hpp)], 'pg/c.hpp' => [], 'pg/c.cpp' => [qw(pg/a.hpp)]);
finds('PostgreSQL by PostgreSQL\'s header', qr{^src/model/verdict\.cpp:2: src/model may not include a PostgreSQL header \(postgres\.h\)},
	%sound, 'model/verdict.cpp' => [qw(model/verdict.hpp postgres.h)]);
finds('PostgreSQL by a header in angle brackets', qr{^src/kernel/time\.cpp:1: src/kernel may not include a PostgreSQL header },
	%sound, 'kernel/time.cpp' => [qw(<utils/timestamp.h>)]);
finds('PostgreSQL by src/pg\'s header', qr{^src/model/verdict\.cpp:1: src/model may not include src/pg },
	%sound, 'model/verdict.cpp' => [qw(pg/postgres.hpp)]);
finds('a room of nobody\'s', qr{^src/util/misc\.hpp: there is no such room}, %sound, 'util/misc.hpp' => []);
finds('a file beside the rooms', qr{^src/misc\.cpp: there is no such room}, %sound, 'misc.cpp' => []);

# --- Released scripts ------------------------------------------------------------

my ($old, $upgrade, $new) = map { "keepalive_guard--$_.sql" } qw(1.0 1.0--1.1 1.1);

# Tests what test/lint/released prints about a tree: with 1.0 and 1.1 released, changed
# by these files, undef for none.  No pattern: it finds nothing.
sub finds_released
{
	my ($name, $expected, %changes) = @_;
	my $tree = 'released/' . ++$trees;
	my %files = (
		"sql/$old" => "SELECT 1;\n",
		"sql/$upgrade" => "SELECT 2;\n",
		"sql/$new" => "SELECT 1;\nSELECT 2;\n",
		'CHANGELOG.md' => "## [1.2] - unreleased\n\n## [1.1.3] - 2027-01-03\n\n## [1.0] - 2027-01-02\n");
	$files{'sql/released'} = join '', "# A comment.\n",
	  map { sha256_hex($files{"sql/$_"}) . "  $_\n" } $old, $upgrade, $new;
	$files{'sql/released'} =~ s/.*  \Q$changes{unlisted}\E\n// if $changes{unlisted};
	%files = (%files, map { $_ => $changes{$_} } grep { m{[/.]} } keys %changes);
	plant("$tree/$_", $files{$_}) foreach grep { defined $files{$_} } keys %files;
	my $output = `test/lint/released '$root/$tree' 2>&1`;
	is($? != 0, defined $expected, "$name: " . ($expected ? 'fails' : 'passes'));
	like($output, $expected // qr/\A\z/, $name);
	return;
}

finds_released('released scripts', undef);
finds_released('scripts of a version that is not released', undef, 'sql/keepalive_guard--1.2.sql' => '');
finds_released('a changed install script', qr/^\Q$old\E: FAILED$/m, "sql/$old" => "SELECT 3;\n");
finds_released('a changed upgrade script', qr/^\Q$upgrade\E: FAILED$/m, "sql/$upgrade" => "SELECT 3;\n");
finds_released('a deleted script', qr/^\Q$old\E: FAILED open or read$/m, "sql/$old" => undef);
finds_released('a script that is not in the list', qr{^sql/\Q$new\E is not in sql/released, but 1\.1 is released$}m, unlisted => $new);
finds_released('an upgrade script that is not in the list', qr{^sql/\Q$upgrade\E is not in sql/released}m, unlisted => $upgrade);
finds_released('a release without a list', qr{^sql/\Q$old\E is not in sql/released}m, 'sql/released' => "# A comment.\n");
finds_released('a release without its script', qr{^sql/keepalive_guard--1\.2\.sql is missing}m, 'CHANGELOG.md' => "## [1.2] - 2027-01-04\n");

# --- Objects ---------------------------------------------------------------------

my $door = "namespace guard { long door(const char *name)%s; }\n";
my $door_source = <<'END';
#include "model/door.hpp"
#include <string>
namespace guard
{
long door(const char *name) noexcept
try
{
	return std::stol(std::string(name) + "0");
}
catch (...)
{
	return 0;
}
}
END

# What it is, what test/lint/objects says of it (nothing: it is allowed), and its sources.
my @objects = (
	[ 'what keeps to the boundary', undef,
		'model/door.hpp' => sprintf($door, ' noexcept'),
		'model/door.cpp' => $door_source,
		'pg/sound.cpp' => <<'END' ],
#include "pg/postgres.hpp"
#include "model/door.hpp"
#include <algorithm>
#include <array>
void planted(const char *name);
void planted(const char *name)
{
	std::array<long, 9> numbers{};
	numbers[0] = guard::door(name);
	std::sort(numbers.begin(), numbers.end(), [](long a, long b) { return a > b; });
	elog(LOG, "%ld", numbers[0]);
}
END
	[ 'a std::string held across a call of PostgreSQL',
		qr/pg\/string\.o: a destructor that an error would skip \(_Unwind_Resume\)/,
		'pg/string.cpp' => <<'END' ],
#include "pg/postgres.hpp"
#include <string>
void planted(const char *name);
void planted(const char *name)
{
	const std::string held = name;
	elog(LOG, "%s", held.c_str());
}
END
	[ 'a destructor of a few instructions',
		qr/pg\/functions\/count\.o: a destructor that an error would skip \(_Unwind_Resume\)/,
		'pg/functions/count.cpp' => <<'END' ],
#include "pg/postgres.hpp"
struct Count
{
	int *number;
	~Count() { ++*number; }
};
void planted(int *number);
void planted(int *number)
{
	const Count count = {number};
	elog(LOG, "%d", *number);
}
END
	[ 'an exception thrown in src/pg', qr/pg\/throw\.o: throws \(__cxa_throw\)/,
		'pg/throw.cpp' => <<'END' ],
void planted(int number);
void planted(int number)
{
	if (number > 9)
		throw number;
}
END
	[ 'C++ memory in src/pg', qr/pg\/new\.o: operator new throws \(_Znwm\)/,
		'pg/new.cpp' => <<'END' ],
int *planted();
int *planted()
{
	return new int(1);
}
END
	[ 'memory of PostgreSQL\'s in src/kernel', qr/kernel\/memory\.o: calls the server \(palloc\)/,
		'kernel/memory.cpp' => <<'END' ],
extern "C" void *palloc(unsigned long);
void *planted();
void *planted()
{
	return palloc(8);
}
END
	[ 'an error of PostgreSQL\'s in src/model', qr/model\/error\.o: calls the server \(errstart\)/,
		'model/error.cpp' => <<'END' ],
extern "C" bool errstart(int, const char *);
bool planted();
bool planted()
{
	return errstart(21, nullptr);
}
END
	[ 'a call of src/model that may throw',
		qr/pg\/caller\.o: calls guard::door\(char const\*\), which is not noexcept/,
		'model/door.hpp' => sprintf($door, ''),
		'model/door.cpp' => $door_source =~ s/ noexcept//r,
		'pg/caller.cpp' => <<'END' ],
#include "model/door.hpp"
long planted();
long planted()
{
	return guard::door("1");
}
END
);

my @objects_of;
foreach my $number (0 .. $#objects)
{
	my ($name, $expected, %sources) = @{ $objects[$number] };
	my $tree = "objects/$number/src";
	plant("$tree/$_", $sources{$_}) foreach keys %sources;
	push @objects_of,
	  join ' ', map { s/\.cpp$/.o/r } map { "build/planted/$tree/$_" } grep { /\.cpp$/ } sort keys %sources;
}
my $built = `make -s -j2 PG_CONFIG='$ENV{PG_CONFIG}' @objects_of 2>&1`;
is($?, 0, 'the objects are built') or diag($built);
foreach my $number (0 .. $#objects)
{
	my ($name, $expected) = @{ $objects[$number] };
	my $output = `test/lint/objects $objects_of[$number] 2>&1`;
	if ($expected)
	{
		ok($? != 0, "$name: fails");
		like($output, $expected, $name);
	}
	else
	{
		is($?, 0, "$name: passes");
		is($output, '', $name);
	}
}

done_testing();
