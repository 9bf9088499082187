// This backend's side of the guard: its slot in shared memory, what it should have
// (Wanted), and bringing that into force.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared.hpp"

extern "C"
{
#include "libpq/libpq-be.h"
}

namespace guard::pg
{

// This backend's slot; nullptr in every process that is not a client backend which
// went through begin_session().
extern Slot *my_slot;

// Claims a slot for this backend, finds its policy and brings it into force.  For
// an authenticated connection, in the transaction in which it was authenticated.
// Never raises an error.
void begin_session(Port *port);

// Brings what the worker wants into force in PostgreSQL's settings, if that has
// changed.  Outside of signal handlers only.
void synchronize_settings();

// Whether synchronize_settings() has something to do.
extern volatile sig_atomic_t synchronization_needed;

// Publishes what is in force after an assign hook has brought `expected` into force;
// the setting's variable is about to become `variable`.
void publish_assigned(const Wanted &wanted, Setting setting, std::int32_t expected,
                      std::int32_t variable);

// Keep the update signal away and let it in again; not to be nested.
void hold_updates();
void release_updates();

} // namespace guard::pg
