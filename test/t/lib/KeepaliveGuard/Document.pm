# A Markdown file of the documentation, as the blocks that a test runs, in their order.
#
# A fenced block whose language is sql or sh is typed into a terminal.  One without a
# language that begins with an SQL command has its result after an empty line; one whose
# lines begin with psql's prompt (=> or =#) has it after each command.  Others are not
# commands.  A comment before a block tells what is different:
#
#   <!-- test: not run: REASON -->     the block cannot be run here
#   <!-- test: in client -->           typed into another terminal than "server"
#   <!-- test: columns only -->        the rows of the result depend on the system
#   <!-- test: exactly -->             the numbers of the result are the same everywhere
#
# and a comment of the following form is a block that readers do not see:
#
#   <!-- test sql
#   CREATE ROLE app LOGIN;
#   -->
#
# "test sql in client" types it into another terminal.
package KeepaliveGuard::Document;

use strict;
use warnings;

use PostgreSQL::Test::Utils 'slurp_file';

# Each block is { line, kind => sql, sh, query or transcript, text, result, terminal,
# not_run => reason, columns_only, exactly }.
sub new
{
	my ($class, $file) = @_;
	my $self = bless { file => $file, blocks => [] }, $class;
	my @lines = split /\n/, slurp_file($file);
	my %options;
	for (my $i = 0; $i < @lines; $i++)
	{
		my $number = $i + 1;
		if ($lines[$i] =~ /^ *<!-- test: (.*) -->$/)
		{
			%options = $self->_options($1, $number);
		}
		elsif ($lines[$i] =~ /^<!-- test (sql|sh)(?: (.*))?$/)
		{
			my %hidden = (kind => $1, $self->_options($2 // '', $number));
			my $end = _next_line(\@lines, $i + 1, '-->') // die "$file:$number: no end\n";
			push @{ $self->{blocks} },
			  { %hidden, line => $number, hidden => 1, text => join "\n", @lines[ $i + 1 .. $end - 1 ] };
			$i = $end;
		}
		elsif ($lines[$i] =~ /^( *)```(\w*)$/)
		{
			my ($indent, $language) = ($1, $2);
			my $end = _next_line(\@lines, $i + 1, "$indent```") // die "$file:$number: no end\n";
			my $text = join "\n", map { s/^$indent//r } @lines[ $i + 1 .. $end - 1 ];
			push @{ $self->{blocks} },
			  { terminal => 'server', %options, line => $number, _contents($language, $text) };
			%options = ();
			$i = $end;
		}
		elsif ($lines[$i] ne '')
		{
			die "$file:$number: a comment \"test:\" without its block\n" if %options;
		}
	}
	return $self;
}

sub blocks { return @{ $_[0]{blocks} } }

sub _options
{
	my ($self, $text, $number) = @_;
	my %options = (terminal => 'server');
	foreach my $option (split /, (?!.*not run)/, $text)
	{
		if ($option =~ /^not run: (.+)/) { $options{not_run} = $1 }
		elsif ($option =~ /^in (\w+)$/) { $options{terminal} = $1 }
		elsif ($option eq 'columns only') { $options{columns_only} = 1 }
		elsif ($option eq 'exactly') { $options{exactly} = 1 }
		else { die "$self->{file}:$number: unknown option \"$option\"\n" }
	}
	return %options;
}

sub _next_line
{
	my ($lines, $from, $line) = @_;
	my ($found) = grep { $lines->[$_] eq $line } $from .. $#$lines;
	return $found;
}

sub _contents
{
	my ($language, $text) = @_;
	return (kind => $language, text => $text) if $language eq 'sql' || $language eq 'sh';
	return (kind => 'other', text => $text) if $language ne '';
	return (kind => 'transcript', text => $text) if $text =~ /^=[>#] /;
	if ($text =~ /^(?:SELECT|WITH|TABLE|SHOW)\b/)
	{
		my ($query, $result) = split /\n\n/, $text, 2;
		return (kind => 'query', text => $query, result => $result // '');
	}
	return (kind => 'other', text => $text);
}

# --- comparing results -----------------------------------------------------------------

# The lines of psql's output, without what differs from run to run: numbers, addresses and
# times.
sub form
{
	my ($text) = @_;
	return contents($text =~ s/^\(\d+ rows?\)$//mgr =~ s/\b\d[\d.:]*\b/N/gr);
}

# The lines of psql's output, without how wide psql draws its columns.
sub contents
{
	my ($text) = @_;
	$text =~ s/^-\[ RECORD (\d+|N) \].*/-[ RECORD $1 ]/mg;
	$text =~ s/-+/-/g;
	$text =~ s/ +/ /g;
	$text =~ s/ ?([|+]) ?/$1/g;
	$text =~ s/^ | $//mg;
	return [ grep { $_ ne '' } split /\n/, $text ];
}

# The names of the columns in psql's output.
sub columns
{
	my ($text) = @_;
	if ($text =~ /^-\[ RECORD 1 \].*\n((?:(?!-\[ RECORD).*\n?)*)/m)
	{
		return [ $1 =~ /^(\w+) +\|/mg ];
	}
	my ($header) = $text =~ /\A\s*(.*)/;
	return [ map { s/^\s+|\s+$//gr } split /\|/, $header ];
}

# The commands of a transcript, each with the lines that follow it.
sub steps
{
	my ($transcript) = @_;
	my @steps;
	foreach my $line (split /\n/, $transcript)
	{
		if ($line =~ s/^=[>#] //) { push @steps, { command => $line, answer => '' } }
		elsif (@steps && $steps[-1]{command} !~ /;\s*$/) { $steps[-1]{command} .= "\n$line" }
		else { $steps[-1]{answer} .= "$line\n" }
	}
	return @steps;
}

1;
