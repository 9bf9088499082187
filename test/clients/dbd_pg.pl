use strict;
use warnings;
use DBI;

$| = 1;
print "connecting\n";
eval {
	my $connection = DBI->connect("dbi:Pg:$ENV{CONNINFO} $ENV{SETTINGS}", undef, undef,
		{ RaiseError => 1, PrintError => 0 });
	print "connected\n";
	while (my $sql = <STDIN>)
	{
		$connection->do($sql);
		print "answer\n";
	}
	1;
} or print 'error: ', join(' ', split ' ', $@), "\n";
