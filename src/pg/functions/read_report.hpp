// Telling the user how reading sockets went.
#pragma once

#include "pg/postgres.hpp"

#include "kernel/read_sockets.hpp"

namespace guard::pg
{

// If nothing could be read, reports that with `elevel`; if there is only /proc/net/tcp to
// read from, tells the user once in a session.
void report_reading(const ReadOutcome &outcome, int elevel);

} // namespace guard::pg
