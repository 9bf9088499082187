# The mutants of a C++ source: the same text with one small change each.
package Mutants;

use strict;
use warnings;
no warnings 'portable'; # hex() of more than 32 bits
use Exporter 'import';

our @EXPORT_OK = qw(mutants);

# An operator with spaces around it (as clang-format writes the binary ones) becomes
# each of these.
my %binary = (
	'<' => [ '<=', '>=' ], '<=' => [ '<', '>' ], '>' => [ '>=', '<=' ], '>=' => [ '>', '<' ],
	'==' => ['!='], '!=' => ['=='], '&&' => ['||'], '||' => ['&&'],
	'+' => ['-'], '-' => ['+'], '*' => ['/'], '/' => ['*'], '%' => ['*'],
	'+=' => ['-='], '-=' => ['+='], '*=' => ['/='], '/=' => ['*='], '|=' => ['&='], '&=' => ['|='],
	'&' => ['|'], '|' => ['&'], '^' => ['&'], '<<' => ['>>'], '>>' => ['<<']);

my $operator = qr{<<=|>>=|\.\.\.|->\*|[-+*/%&|^=!<>]=|&&|\|\||<<|>>|\+\+|--|->|::|.}s;

# The tokens of a text, without its comments and preprocessor lines.
sub tokens
{
	my ($text) = @_;
	my @tokens;
	pos($text) = 0;
	while (pos($text) < length $text)
	{
		next if $text =~ m{\G(?:\s+|//[^\n]*|/\*.*?\*/|^\#(?:[^\n\\]|\\.)*)}gcms;
		my $start = pos $text;
		my $kind =
		    $text =~ /\G(?:u8|[LuU])?R"([^(]*)\(.*?\)\1"/gcs ? 'string'
		  : $text =~ /\G(?:u8|[LuU])?"(?:[^"\\]|\\.)*"/gcs ? 'string'
		  : $text =~ /\G'(?:[^'\\]|\\.)*'/gcs ? 'string'
		  : $text =~ /\G[A-Za-z_]\w*/gc ? 'word'
		  : $text =~ /\G\.?\d(?:[eEpP][-+]|['\w.])*/gc ? 'number'
		  : $text =~ /\G$operator/gc ? 'operator'
		  : die "no token at $start\n";
		my $token = substr $text, $start, pos($text) - $start;
		push @tokens, { text => $token, start => $start, end => pos $text, kind => $kind };
	}
	return @tokens;
}

# For each opening bracket, the index of the one that closes it.
sub bracket_pairs
{
	my @tokens = @_;
	my (%closed_by, @open);
	foreach my $i (0 .. $#tokens)
	{
		push @open, $i if $tokens[$i]{text} =~ /^[(\[{]$/;
		$closed_by{ pop @open } = $i if $tokens[$i]{text} =~ /^[)\]}]$/;
	}
	return \%closed_by;
}

# The statements that end in a semicolon: pairs of the indexes of their first token and of
# the semicolon.
sub statements
{
	my @tokens = @_;
	my @found;
	my @context = ({ block => 1, start => 0 });
	my $controls = qr/^(?:if|for|while|switch|catch)$/;
	foreach my $i (0 .. $#tokens)
	{
		my $token = $tokens[$i]{text};
		my $before = $i ? $tokens[ $i - 1 ]{text} : ';';
		my $first = $tokens[ $context[-1]{start} ]{text};
		if ($token eq '(' || $token eq '[')
		{
			my $control = $before =~ $controls
			  || ($before eq 'constexpr' && $tokens[ $i - 2 ]{text} eq 'if');
			push @context, { block => 0, start => $i, control => $control };
		}
		elsif ($token eq ')' || $token eq ']')
		{
			my $closed = pop @context;
			$context[-1]{start} = $i + 1 if $closed->{control};
		}
		elsif ($token eq '{')
		{
			my $block = $before =~ /^(?:[;{})]|else|do|try|const|noexcept|override)$/
			  || $first =~ /^(?:namespace|struct|class|enum|union|extern|template)$/;
			push @context, { block => $block, start => $i + 1 };
		}
		elsif ($token eq '}')
		{
			my $closed = pop @context;
			$context[-1]{start} = $i + 1 if $closed->{block} && $context[-1]{block};
		}
		elsif ($token =~ /^(?:else|do)$/
			|| ($token eq ':' && $first =~ /^(?:case|default|public|private)$/))
		{
			$context[-1]{start} = $i + 1;
		}
		elsif ($token eq ';' && $context[-1]{block})
		{
			push @found, [ $context[-1]{start}, $i ]
			  if $context[-1]{start} < $i
			  && $first !~ /^(?:using|const|constexpr|static|static_assert|extern|struct|class|enum|union|template|typedef|namespace|friend)$/;
			$context[-1]{start} = $i + 1;
		}
	}
	return @found;
}

# All mutants of a text.  Each has the number of its first line; before and after, the
# lines that differ, in one line; and text, the whole mutant.
sub mutants
{
	my ($text) = @_;
	my @tokens = tokens($text);
	my $closed_by = bracket_pairs(@tokens);
	my (@edits, $skip_until);

	foreach my $i (0 .. $#tokens)
	{
		my ($token, $kind, $start, $end) = @{ $tokens[$i] }{qw(text kind start end)};
		my $before = $i ? $tokens[ $i - 1 ]{text} : '';
		my $next = $i < $#tokens ? $tokens[ $i + 1 ] : { text => '', start => $end };
		$skip_until = $closed_by->{ $i + 1 } if $token eq 'static_assert';
		next if $skip_until && $i <= $skip_until;

		if ($kind eq 'operator' && $before ne 'operator')
		{
			my $spaced = substr($text, $start - 1, 1) =~ /\s/ && substr($text, $end, 1) =~ /\s/;
			push @edits, map { [ $start, $end, $_ ] } @{ $binary{$token} } if $spaced && $binary{$token};
			push @edits, [ $start, $end, '' ] if $token eq '!';
			push @edits, [ $start, $end, '' ] if $token eq '-' && !$spaced;
			push @edits, [ $start, $end, $token eq '++' ? '--' : '++' ] if $token =~ /^(?:\+\+|--)$/;
		}
		elsif ($kind eq 'number' && $token =~ /^(0[xX])?([\da-fA-F']+?)([uUlL]*)$/)
		{
			my ($hex, $digits, $suffix) = ($1 // '', $2, $3);
			$digits =~ tr/'//d;
			next if !$hex && $digits =~ /[a-fA-F]/;
			$digits = sprintf '%x', hex($digits) ^ 1 if $hex;
			$digits++ if !$hex;
			push @edits, [ $start, $end, "$hex$digits$suffix" ];
		}
		elsif ($token =~ /^(?:true|false)$/)
		{
			push @edits, [ $start, $end, $token eq 'true' ? 'false' : 'true' ];
		}
		elsif ($token =~ /^(?:if|while)$/ && $next->{text} eq '(')
		{
			my ($from, $to) = ($next->{end}, $tokens[ $closed_by->{ $i + 1 } ]{start});
			my $condition = substr $text, $from, $to - $from;
			push @edits, [ $from, $to, "false && ($condition)" ];
			push @edits, [ $from, $to, "true || ($condition)" ] if $token eq 'if';
		}
	}

	# Nothing compiles without a declaration, so these are not left out.
	my $declaration = qr/^(?!return\b|throw\b|delete\b)[\w:]+(?:<.*>)?\s+[*&]?[\w:]+\s*[={;(\[]/;
	foreach (statements(@tokens))
	{
		my ($first, $last) = map { $tokens[$_] } @$_;
		if ($first->{text} eq 'return' && $tokens[ $_->[0] + 1 ]{text} ne ';')
		{
			my ($from, $to) = ($tokens[ $_->[0] + 1 ]{start}, $last->{start});
			push @edits, [ $from, $to, '!(' . substr($text, $from, $to - $from) . ')' ];
		}
		elsif (substr($text, $first->{start}, $last->{end} - $first->{start}) !~ $declaration)
		{
			push @edits, [ $first->{start}, $last->{start}, '' ];
		}
	}

	return map { mutant($text, @$_) } sort { $a->[0] <=> $b->[0] } @edits;
}

sub mutant
{
	my ($text, $start, $end, $replacement) = @_;
	my $from = rindex($text, "\n", $start - 1) + 1;
	my $to = index $text, "\n", $end;
	my $before = substr $text, $from, $to - $from;
	my $after =
	  substr($text, $from, $start - $from) . $replacement . substr($text, $end, $to - $end);
	my $mutated = $text;
	substr $mutated, $start, $end - $start, $replacement;
	s/\s+/ /g, s/^ | $//g foreach $before, $after;
	return {
		line => 1 + (substr($text, 0, $start) =~ tr/\n//),
		before => $before, after => $after, text => $mutated };
}

1;
