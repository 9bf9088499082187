// Counters of ended connections by policy and cause, behind keepalive_stats().  Those who
// count take turns; those who read wait for nobody, and nobody waits for them.
#pragma once

#include "pg/postgres.hpp"

#include "model/cause.hpp"
#include "model/compose.hpp"
#include "pg/shared/versioned.hpp"

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

// Counts one end under each of these policies; without any, under none.  Counts it once
// in the totals.
void count_end(const PolicyNames &policies, Cause cause);

struct Counters
{
	char policy[name_bytes]; // "" for no policy
	bool used;               // else this is room for a policy
	std::int64_t ended[cause_count];
};

inline void bound(Counters &counters)
{
	bound_text(counters.policy);
}

// Copies all counters, in no order; *reset: since when they count.  Palloc'd.
Counters *copy_counters(int *count, TimestampTz *reset);

struct Totals
{
	std::int64_t ended[cause_count];
};

// Each end once, however many policies the session had.
Totals copy_totals();

// Sets all counters to zero.
void reset_counters();

} // namespace guard::pg
