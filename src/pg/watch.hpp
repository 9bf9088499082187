// What policy/detection.hpp and policy/verdict.hpp need to know, from what PostgreSQL,
// the kernel and the guard's slots have.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared.hpp"
#include "policy/detection.hpp"
#include "policy/verdict.hpp"

namespace guard::pg
{

// What watches over a TCP connection that has these values in force, with 0 resolved to
// the system's default, and this policy; nullptr: none.
Watch watch_of(const SettingValues &in_force, bool keepalive, const Settings *policy);

// Those of this process's network namespace, read anew: two small files.
KernelLimits kernel_limits();

// A socket that was found and whose tcp_info was received.  `watched` may be of the
// slot's last session: it then counts for nothing.
Live live_of(const SocketFacts &facts, const Session &session, const Watched &watched);

// CLOCK_MONOTONIC in milliseconds, the clock of Watched.
std::int64_t monotonic_ms();

// keepalive_status()'s word for it.
const char *health_name(Health health);

} // namespace guard::pg
