// What the kernel knows of the sessions' sockets.
#pragma once

#include "pg/postgres.hpp"

#include "kernel/read_sockets.hpp"
#include "pg/session_list.hpp"

namespace guard::pg
{

// An element (palloc'd) for each listed session, as of find_session_sockets(); nothing
// is read for those that are not visible or have no TCP socket.
SocketFacts *facts_of_sessions(const SessionList &list, Details details);

// Raises an error if nothing could be read; tells the user once in a session if there
// is only /proc/net/tcp to read from.
void report_reading(const ReadOutcome &outcome);

} // namespace guard::pg
