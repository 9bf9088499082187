// PostgreSQL's own five settings that a policy can give: reaching their records,
// enforcing policies in their hooks, and what a session should have of each.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared.hpp"

extern "C"
{
#include "libpq/libpq-be.h"
}

namespace guard::pg
{

// PostgreSQL's name of a setting.
const char *setting_name(Setting setting);

// Wraps the check and assign hooks of the five settings; false (and a log line) if
// this PostgreSQL does not have them.  Before any session starts.
bool wrap_native_settings();

// What postgresql.conf and the command line say, in a process without settings of
// its own (the worker).
ConfiguredValues configured_values();

// Remembers the system's defaults of a new connection, before anything sets them.
void remember_system_defaults(Port *port);

// The kernel's default of a setting in this process: that of the connection in a
// session of the guard's, else that of the network namespace.  0 for user_timeout and
// client_check.
std::int32_t system_default(Setting setting);

// A value with 0 resolved to the system's default.
std::int32_t resolved(Setting setting, std::int32_t value);

// What this session should have of a setting now, given what is wanted and what the
// session, its role and its database chose.  Async-signal-safe.
std::int32_t effective_value(Setting setting, const Wanted &wanted);

// Brings one setting into force without going through PostgreSQL's SET machinery.
// Async-signal-safe; the machinery follows in apply_native_settings().
void force_setting(Setting setting, std::int32_t value, Port *port);

// Brings all settings into force in PostgreSQL's SET machinery: as defaults of source
// PGC_S_GLOBAL where the policy has them, else back to what they were without.
void apply_native_settings(const Wanted &wanted);

// The value of a setting's variable.
std::int32_t variable_value(Setting setting);

} // namespace guard::pg
