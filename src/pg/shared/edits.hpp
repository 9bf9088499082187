// Committed edits of keepalive_policy, on their way into the server log: one line for
// each, which the worker writes when it knows what the edit has led to.
#pragma once

#include "pg/postgres.hpp"

#include "model/policy.hpp"

namespace guard::pg
{

struct RowCounts
{
	std::int64_t inserted;
	std::int64_t updated;
	std::int64_t deleted;
	std::int64_t truncated;
};

// What one transaction has done to the table.
struct Edit
{
	std::uint64_t request; // by which the policies are read again
	RowCounts rows;
	char role[name_bytes]; // of the session
	bool is_replicated;    // by a subscription
};

Size edits_size();
void init_edits();

// Has the edit logged.  To be called after the commit: raises no error.
void log_edit(const Edit &edit);

// Logs the edits whose request is done; in the worker only.
void log_compiled_edits();

// Logs all that are left, when there is no worker to do it.
void log_remaining_edits();

} // namespace guard::pg
