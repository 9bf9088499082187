// What a policy that is log_only would have ended: event and counter.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared/slots.hpp"

namespace guard::pg
{

// Called in the worker.  `number`: of the session's slot.  `policy` is the log_only one,
// under which alone this counts.  `detail`: what it would have done, and the evidence.
void record_would_end(std::uint32_t number, const Session &session, const Wanted &wanted,
                      const char *policy, const TcpInfo &info, const char *detail);

} // namespace guard::pg
