// How this backend comes to its end: listening for what PostgreSQL says on the way,
// and weighing it at the end.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared/events.hpp"

extern "C"
{
#include "libpq/libpq-be.h"
}

namespace guard::pg
{

// Hooks into the server log, where PostgreSQL's reasons pass by.
void install_ending_hooks();

// Has SIGTERM tell who sent it.  In a backend, once PostgreSQL has its handler.
void wrap_sigterm_handler();

// What ended the session.  While its socket is still open.
Ending classify_disconnect(const Session &session, Port *port);

} // namespace guard::pg
