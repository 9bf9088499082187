// What a session tells of the path to its client (model/idle_path.hpp).
#pragma once

#include "pg/postgres.hpp"

#include "model/idle_path.hpp"
#include "pg/shared/slots.hpp"

extern "C"
{
#include "utils/backend_status.h"
}

namespace guard::pg
{

// Of a session that has been in that state for `state_ms`.  A TcpInfo without figures
// tells nothing.
PathEvidence path_evidence_of(const Session &session, BackendState state,
                              std::int64_t state_ms, const TcpInfo &info, PathEnd end);

} // namespace guard::pg
