// What model/detection.hpp and model/verdict.hpp need to know, from what PostgreSQL,
// the kernel and the guard's slots have.
#pragma once

#include "pg/postgres.hpp"

#include "model/detection.hpp"
#include "model/verdict.hpp"
#include "pg/shared/slots.hpp"

namespace guard::pg
{

// The limits of this process's network namespace.  Reads two small files.
KernelLimits kernel_limits();

// A socket that was found and whose tcp_info was received.  `observation` may be of the
// slot's last session; it is then ignored.
ConnectionSnapshot snapshot_of(const SocketFacts &facts, const Session &session,
                               const PeerObservation &observation);

} // namespace guard::pg
