# A shell in a terminal, as a reader of the documentation has one, on the server's host or
# on a client's.  What is typed goes to the shell, or to the psql that was started in it.
#
#   my $terminal = KeepaliveGuard::Terminal->new(environment => { PGUSER => 'postgres' });
#   my ($output, $errors, $status) = $terminal->shell('echo hello');
#   $terminal->shell('psql shop');                  # stays open
#   ($output, $errors) = $terminal->sql('SELECT 1');
package KeepaliveGuard::Terminal;

use strict;
use warnings;

use IPC::Run ();

# Options: host => the KeepaliveGuard::Host (default: the server's own); environment.
sub new
{
	my ($class, %options) = @_;
	my @namespace = $options{host} ? ('nsenter', '--target=' . $options{host}->pid, '--net', '--') : ();
	my @environment = map { "$_=$options{environment}{$_}" } sort keys %{ $options{environment} };
	my $self = bless { in => '', out => '', err => '', in_psql => 0, number => 0 }, $class;
	$self->{harness} = IPC::Run::start(
		[ @namespace, 'env', @environment, 'bash' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err}, $self->{timeout} = IPC::Run::timeout(120));
	return $self;
}

# Runs shell commands.  Returns their output, their errors and the exit status.  If the last
# of them is an interactive psql, it stays open for sql().
sub shell
{
	my ($self, $commands) = @_;
	$self->leave;
	if ($commands =~ /^psql\b(?!.* -[cf])[^\n|<>]*\n*\z/m)
	{
		$self->{in_psql} = 1;
		chomp $commands;
		return $self->_type("$commands; echo left-psql", '');
	}
	return $self->_type("( set -e\n$commands\n)", '$?');
}

# Runs SQL and psql's commands, in a psql that is started if none is open.
sub sql
{
	my ($self, $statements) = @_;
	$self->shell('psql') unless $self->{in_psql};
	return $self->_type($statements, '');
}

# Ends psql, if one is open.  Nothing may be typed before it has ended: psql reads ahead.
sub leave
{
	my ($self) = @_;
	return unless $self->{in_psql};
	$self->{in_psql} = 0;
	$self->{in} .= "\\q\n";
	$self->{harness}->pump until $self->{out} =~ /^left-psql\n/m;
	$self->{out} = $self->{err} = '';
	return;
}

sub close
{
	my ($self) = @_;
	$self->{harness}->kill_kill(grace => 1);
	return;
}

# Waits until a mark that is typed after the text comes back on both channels.
sub _type
{
	my ($self, $text, $status) = @_;
	my $mark = 'end-of-block-' . ++$self->{number};
	my $echo = $self->{in_psql} ? '\echo' : 'echo';
	my $warn = $self->{in_psql} ? '\warn' : 'echo >&2';
	$self->{timeout}->start; # anew for each text
	$self->{in} .= "$text\n$echo $mark $status\n$warn $mark\n";
	$self->{harness}->pump until $self->{out} =~ /^\Q$mark\E.*\n/m && $self->{err} =~ /^\Q$mark\E\n/m;

	my ($output, $exit) = $self->{out} =~ /\A(.*?)^\Q$mark\E ?(\d*)\n\z/ms;
	my ($errors) = $self->{err} =~ /\A(.*?)^\Q$mark\E\n\z/ms;
	$self->{out} = $self->{err} = '';
	$errors =~ s/^psql:<stdin>:\d+: //mg;
	return ($output, $errors, $exit || 0);
}

1;
