<?php
function failed($message)
{
	echo 'error: ', preg_replace('/\s+/', ' ', $message), "\n";
	exit(1);
}

set_error_handler(fn($number, $message) => failed($message));
echo "connecting\n";
$connection = pg_connect(getenv('CONNINFO') . ' ' . getenv('SETTINGS'));
echo "connected\n";
while ($sql = fgets(STDIN)) {
	pg_query($connection, $sql) || failed(pg_last_error($connection));
	echo "answer\n";
}
