# Everything in README.md and doc that a reader can type is typed, in the order of the text
# (KeepaliveGuard::Document tells how).  All names there exist, and all links lead somewhere.
use strict;
use warnings;

use File::Path 'make_path';
use KeepaliveGuard::Cluster;
use KeepaliveGuard::Document;
use KeepaliveGuard::Network;
use KeepaliveGuard::Terminal;
use PostgreSQL::Test::Utils 'slurp_file';
use Test::More;

my @files = ('README.md', sort glob 'doc/*.md');

my $network = KeepaliveGuard::Network->new;
my $host = $network->add_host;
my $node = KeepaliveGuard::Cluster->new('primary', port => 5432);
$node->init;
$node->append_conf('postgresql.conf', "listen_addresses = '*'\n");
$node->append_conf('pg_hba.conf', "host all all all trust\n");
$node->start;

# --- terminals --------------------------------------------------------------------------

my $programs = $node->basedir . '/programs';
my $psqlrc = $node->basedir . '/psqlrc';
make_path($programs);
write_file($psqlrc, "\\set QUIET on\n\\pset footer off\n\\pset pager off\n");

# The lab has no service manager; this is what its commands do to a server.
write_file("$programs/systemctl", <<"END");
#!/bin/sh
[ "\$*" = 'restart postgresql' ] || exit 1
exec pg_ctl --pgdata='@{[$node->data_dir]}' --log='@{[$node->logfile]}' --wait --mode=fast restart >/dev/null
END
chmod 0755, "$programs/systemctl" or die $!;

sub write_file
{
	my ($file, $text) = @_;
	open my $out, '>', $file or die "$file: $!";
	print $out $text;
	close $out or die "$file: $!";
	return;
}

my %terminals;

# A terminal on the server's host, or, if its name begins with "client", on a client's.
sub terminal
{
	my ($name) = @_;
	my %environment = (
		PATH => "$programs:$ENV{PATH}", PSQLRC => $psqlrc, PGOPTIONS => '', PGAPPNAME => '',
		PGHOST => $node->host, PGDATABASE => 'postgres', PGUSER => 'postgres');
	return $terminals{$name} //= KeepaliveGuard::Terminal->new(
		environment => \%environment, $name =~ /^client/ ? (host => $host) : ());
}

# --- blocks -----------------------------------------------------------------------------

sub without_warnings
{
	my ($errors) = @_;
	return $errors =~ s/^(?:WARNING|NOTICE|HINT|DETAIL): .*\n//mgr;
}

sub run_block
{
	my ($block, $name) = @_;
	my $terminal = terminal($block->{terminal});
	if ($block->{kind} eq 'sh')
	{
		my (undef, $errors, $status) = $terminal->shell($block->{text});
		ok($status == 0, $name) or diag $errors;
	}
	elsif ($block->{kind} eq 'sql')
	{
		my (undef, $errors) = $terminal->sql($block->{text});
		is(without_warnings($errors), '', $name);
	}
	elsif ($block->{kind} eq 'query')
	{
		my ($output, $errors) = $terminal->sql($block->{text});
		my $how =
		    $block->{columns_only} ? \&KeepaliveGuard::Document::columns
		  : $block->{exactly} ? \&KeepaliveGuard::Document::contents
		  : \&KeepaliveGuard::Document::form;
		is_deeply([ without_warnings($errors), $how->($output) ], [ '', $how->($block->{result}) ], $name) or diag $output;
	}
	else
	{
		foreach my $step (KeepaliveGuard::Document::steps($block->{text}))
		{
			my ($output, $errors) = $terminal->sql($step->{command});
			is_deeply(KeepaliveGuard::Document::form("$output$errors"),
				KeepaliveGuard::Document::form($step->{answer}), "$name, $step->{command}") or diag "$output$errors";
		}
	}
	return;
}

# The server as a document finds it: with the extension, and with nothing of another one.
sub start_afresh
{
	$_->close foreach values %terminals;
	%terminals = ();
	$host->restore;
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
	$node->safe_psql('postgres', q{ALTER SYSTEM SET shared_preload_libraries = 'keepalive_guard'});
	$node->restart;
	$node->safe_psql('postgres', <<'END');
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid();
DROP EXTENSION IF EXISTS keepalive_guard;
SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database WHERE datname !~ '^template|^postgres$' \gexec
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> current_user \gexec
CREATE EXTENSION keepalive_guard;
END
	return;
}

foreach my $file (@files)
{
	my @blocks = grep { $_->{kind} ne 'other' } KeepaliveGuard::Document->new($file)->blocks;
	next unless grep { !$_->{not_run} } @blocks;
	subtest $file => sub {
		start_afresh();
		foreach my $block (@blocks)
		{
			run_block($block, "line $block->{line}") unless $block->{not_run};
		}
		done_testing();
	};
}

# --- names ------------------------------------------------------------------------------

start_afresh();
my $observer = $node->unix_session;

sub names
{
	my ($sql) = @_;
	return map { ($_->[0] => 1) } @{ $observer->query($sql) };
}

my %object = names(<<'END');
SELECT proname FROM pg_proc WHERE proname ~ '^keepalive_'
UNION SELECT relname FROM pg_class WHERE relname ~ '^keepalive_'
UNION SELECT 'keepalive_guard'
UNION SELECT name FROM keepalive_metrics
END
my %setting = names('SELECT name FROM pg_settings');
my %argument = names(<<'END');
SELECT p.proname || '.' || a FROM pg_proc AS p, unnest(p.proargnames) AS a WHERE p.proname ~ '^keepalive_'
END
# A file, a schema, a cause of keepalive_events(), and settings of other programs.
my %other = map { ($_ => 1) } qw(keepalive_timeout);

foreach my $file (@files)
{
	my $text = slurp_file($file);
	my %wrong;
	foreach my $name ($text =~ /(?<![\w.\/-])(keepalive_[a-z_]*[a-z])/g)
	{
		$wrong{$name} = 1 unless $object{$name} || $other{$name};
	}
	foreach my $name ($text =~ /\b(keepalive_guard\.[a-z_]+)/g)
	{
		$wrong{$name} = 1 unless $setting{$name} || $name =~ /\.(?:stat|events|so|control|spec|keepalive_policy)$/;
	}
	foreach my $name ($text =~ /`(tcp_keepalives_[a-z_]+|client_connection_[a-z_]+|idle_(?:in|session)_[a-z_]+|wal_[a-z_]+_timeout)`/g)
	{
		$wrong{$name} = 1 unless $setting{$name};
	}
	# The arguments in a heading such as "keepalive_plan(detect_within, path_idle_timeout)"
	while ($text =~ /^#+ (keepalive_\w+)\(([a-z_, ]+)\)$/mg)
	{
		my ($function, $arguments) = ($1, $2);
		$wrong{"$function.$_"} = 1 foreach grep { !$argument{"$function.$_"} } split /, /, $arguments;
	}
	is_deeply([ sort keys %wrong ], [], "$file names only what exists");
}

# --- links ------------------------------------------------------------------------------

# The anchors of a Markdown file, as GitHub makes them of headings.
sub anchors
{
	my ($file) = @_;
	my $text = slurp_file($file) =~ s/^```.*?^```$//msgr;
	return map { (lc s/[^\w -]//gr =~ tr/ /-/r => 1) } $text =~ /^#+ (.*)$/mg;
}

foreach my $file (@files)
{
	my ($directory) = $file =~ m{^(.*/)?[^/]+$};
	my @wrong;
	foreach my $link (slurp_file($file) =~ /\]\(([^)\s]+)\)/g)
	{
		next if $link =~ /^https?:/;
		my ($path, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;
		my $target = $path eq '' ? $file : ($directory // '') . $path;
		my %anchors = -f $target && defined $anchor ? anchors($target) : ();
		push @wrong, $link if !-e $target || defined $anchor && !$anchors{$anchor};
	}
	is_deeply(\@wrong, [], "the links of $file lead somewhere");
}

done_testing();
