// Recording the end of this backend's connection: event, counters, log line.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared/events.hpp"
#include "pg/shared/slots.hpp"

extern "C"
{
#include "libpq/libpq-be.h"
}

namespace guard::pg
{

// Records the end of this backend's session, and logs it if the client was lost.
void record_end(const Session &session, const Wanted &wanted, const Ending &ending,
                Port *port);

// Records, when this backend exits, that it never became a session.
void record_failed_authentication(const char *message);

} // namespace guard::pg
