// This backend's side of the guard: its slot in shared memory, what it should have
// (Wanted), and bringing that into force.
#pragma once

#include "pg/postgres.hpp"

extern "C"
{
#include "libpq/libpq-be.h"
}

namespace guard::pg
{

// Claims a slot for this backend, finds its policy and brings it into force.  For
// an authenticated connection, in the transaction in which it was authenticated.
// Never raises an error.
void begin_session(Port *port);

// Brings what the worker wants into force in PostgreSQL's settings, if that has
// changed.  Outside of signal handlers only.
void synchronize_settings();

} // namespace guard::pg
