// Telling the user how reading sockets went.
#pragma once

#include "pg/postgres.hpp"

#include "kernel/read_sockets.hpp"

namespace guard::pg
{

// Raises an error if nothing could be read; tells the user once in a session if there
// is only /proc/net/tcp to read from.
void report_reading(const ReadOutcome &outcome);

} // namespace guard::pg
