// PostgreSQL's own five settings that a policy can give: enforcing policies in their
// check and assign hooks, and what this session should have of each.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared/slots.hpp"

extern "C"
{
#include "libpq/libpq-be.h"
}

namespace guard::pg
{

// Wraps the check and assign hooks of the five settings; false (and a log line) if
// this PostgreSQL does not have them.  Before any session starts.
bool wrap_native_settings();

// Remembers the system's defaults of a new connection, before anything sets them.
void remember_system_defaults(Port *port);

// What this session should have of every setting now, given what is wanted and what the
// session, its role and its database chose.  Async-signal-safe.
SettingValues effective_values(const Wanted &wanted);

// Publishes what is in force, compared with that.  Async-signal-safe.
void publish_in_force(const Wanted &wanted);

// Brings values into force without going through PostgreSQL's SET machinery.
// Async-signal-safe; the machinery follows in apply_native_settings().
void apply_to_socket(const SettingValues &values, Port *port);

// Brings all settings into force in PostgreSQL's SET machinery: as defaults of source
// PGC_S_GLOBAL where the policy has them, else back to what they were without.
void apply_native_settings(const Wanted &wanted);

} // namespace guard::pg
