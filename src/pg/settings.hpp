// The guard's own settings, keepalive_guard.* (doc/operations.md).
#pragma once

namespace guard::pg
{

extern bool enabled;          // keepalive_guard.enabled
extern char *policy_database; // keepalive_guard.database
extern int max_policies;      // keepalive_guard.max_policies
extern int watch_interval;    // keepalive_guard.watch_interval, ms, 0: off

extern int max_events;            // keepalive_guard.max_events
extern bool log_lost_connections; // keepalive_guard.log_lost_connections

// Defines the settings; only while shared_preload_libraries is being processed.
void define_settings();

} // namespace guard::pg
