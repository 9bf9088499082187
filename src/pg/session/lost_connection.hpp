// The line that the server log has for each lost connection.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared/events.hpp"

namespace guard::pg
{

// Logs the end of a connection if the client was lost: in one line, in which each field
// after the cause is key=value, strings in double quotes.
void log_lost_connection(const Event &event);

} // namespace guard::pg
