// Reading keepalive_policy as the current snapshot shows it, and lists of policies.
#pragma once

#include "pg/postgres.hpp"

#include "model/policy.hpp"

extern "C"
{
#include "utils/relcache.h"
}

namespace guard::pg
{

// The extension's own table, not one that somebody put in its place; InvalidOid if this
// database has none.
Oid policy_table();

// The policies of a table, in palloc'd arrays.
struct PolicyList
{
	Rule *rules;
	Policy *policies;
	std::uint32_t count;    // may be more than there was room for
	std::uint32_t enabled;  // of those
	std::uint32_t skipped;  // invalid rows, which are not in the list
	std::uint32_t problems; // a hash of what was reported; 0: nothing
};

// Reads the rows as plain data: a heap scan runs no code of a user's.  Keeps the first
// `room` policies, counts all, and reports every invalid row at `problem_level`.  False,
// and a report at that level, if the table is not what it should be.
bool read_policy_table(Relation table, std::uint32_t room, int problem_level,
                       PolicyList *list);

// Whether every edit of the table runs its trigger, whoever makes it.
bool trigger_always_fires(Relation table);

// Those that are not enabled come last.  Only of a list that has all its policies.
void sort_in_match_order(PolicyList *list);

// A copy of the compiled policies, in match order.
PolicyList compiled_policies();

} // namespace guard::pg
