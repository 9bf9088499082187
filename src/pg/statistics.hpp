// Counters of ended connections by policy and cause, behind keepalive_stats().
#pragma once

#include "pg/postgres.hpp"

#include "policy/cause.hpp"
#include "policy/policy.hpp"

extern "C"
{
#include "storage/lwlock.h"
}

namespace guard::pg
{

Size statistics_size();

// Attaches to the counters; the postmaster also loads what the last clean shutdown
// saved, and arranges for saving.
void init_statistics(LWLock *lock);

// Counts one end.  policy: "" for none.
void count_end(const char *policy, Cause cause);

} // namespace guard::pg
