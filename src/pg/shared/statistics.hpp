// Counters of ended connections by policy and cause, behind keepalive_stats().
#pragma once

#include "pg/postgres.hpp"

#include "model/cause.hpp"
#include "model/policy.hpp"

extern "C"
{
#include "datatype/timestamp.h"
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

struct Counters
{
	char policy[name_bytes]; // key; "" for no policy
	std::int64_t ended[cause_count];
};

// Copies all counters, in no order; *reset: since when they count.  Palloc'd.
Counters *copy_counters(int *count, TimestampTz *reset);

// Sets all counters to zero.
void reset_counters();

} // namespace guard::pg
