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
// an authenticated connection, in the transaction in which it was authenticated.  An
// error in matching policies is logged; other errors can only be those of
// SetConfigOption(), out of memory for one.
void begin_session(Port *port);

// Brings this session's settings, if the worker has changed them, into force in
// PostgreSQL's SET machinery.  May raise an error; not for signal handlers.
void synchronize_settings();

} // namespace guard::pg
