# Queries that count rows which the reading functions must not return, while connections
# start and end.
#
#   my %wrong = wrong_row_queries(5);     # { what => SQL that returns a number }
#
# The application_name of clients is "port N", with the port of their socket, and that of
# as many sessions as the argument says, which stay, is "stays".
package KeepaliveGuard::WrongRows;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = 'wrong_row_queries';

sub wrong_row_queries
{
	my ($stay) = @_;
	return (
		'keepalive_status() has another connection\'s row' => <<'END',
SELECT count(*) FROM keepalive_status()
WHERE application_name LIKE 'port %' AND application_name <> 'port ' || client_port
END
		'keepalive_status() has a listener, or a socket without process' => <<'END',
SELECT count(*) FROM keepalive_status() WHERE transport = 'tcp' AND tcp_state NOT IN
	('ESTABLISHED', 'CLOSE_WAIT', 'CLOSE', 'LAST_ACK', 'FIN_WAIT1', 'FIN_WAIT2', 'CLOSING')
END
		'a function has a row twice' => <<'END',
SELECT count(*) FROM (
	SELECT FROM keepalive_status() GROUP BY pid HAVING count(*) > 1
	UNION ALL
	SELECT FROM keepalive_tcp_info() GROUP BY pid HAVING count(*) > 1
	UNION ALL
	SELECT FROM keepalive_sockets() WHERE kind = 'client' GROUP BY remote_addr, remote_port HAVING count(*) > 1) x
END
		# bytes_received: a session that is listed has received its startup packet.
		'keepalive_tcp_info() has a socket that is not a session\'s' => <<'END',
SELECT count(*) FROM keepalive_tcp_info() WHERE state IS NOT NULL
	AND (state NOT IN (1, 4, 5, 7, 8, 9, 11) OR bytes_received = 0
		OR local_port <> current_setting('port')::int OR remote_port IS NULL)
END
		'two sessions have the same socket' => <<'END',
SELECT count(*) FROM (
	SELECT FROM keepalive_tcp_info() WHERE state IS NOT NULL
	GROUP BY local_addr, remote_addr, remote_port HAVING count(*) > 1) x
END
		'keepalive_sockets() has a socket of a process of another server' => <<'END',
SELECT count(*) FROM keepalive_sockets()
WHERE kind = 'outbound' OR kind = 'client' AND (backend_type = 'postmaster'
	OR local_port <> current_setting('port')::int)
END
		'a row of a session that stays is missing' => <<"END",
SELECT $stay - count(*) FROM keepalive_status() s JOIN keepalive_tcp_info() i USING (pid)
	JOIN keepalive_sockets() o USING (pid)
WHERE application_name = 'stays' AND s.tcp_state = 'ESTABLISHED' AND i.state = 1
	AND o.tcp_state = 'ESTABLISHED' AND s.client_port = i.remote_port AND o.remote_port = i.remote_port
	AND s.backend_type = o.backend_type
END
	);
}

1;
