// Reading a row of keepalive_policy, and saying what is wrong with it.
#pragma once

#include "pg/postgres.hpp"

#include "model/policy.hpp"

extern "C"
{
#include "access/htup.h"
#include "access/tupdesc.h"
}

namespace guard::pg
{

// keepalive_policy's columns that mean something to the guard.
enum class PolicyColumn
{
	name,
	priority,
	database,
	role,
	client,
	backend,
	keepalive,
	tcp_keepalives_idle,
	tcp_keepalives_interval,
	tcp_keepalives_count,
	tcp_user_timeout,
	client_connection_check_interval,
	dead_after,
	stall_timeout,
	enforcement,
	final_policy,
	log_only,
	enabled,
};
constexpr int policy_column_count = static_cast<int>(PolicyColumn::enabled) + 1;

// Where those columns are in a relation.
struct PolicyColumns
{
	AttrNumber number[policy_column_count]; // InvalidAttrNumber: the column is missing
	const char *missing;                    // the first of these; nullptr: none
};

// The table of an older version may lack columns, which then read as null.  False if a
// column has another type, or is missing that all versions have; *unusable is its name.
bool find_policy_columns(TupleDesc descriptor, PolicyColumns *columns,
                         const char **unusable);

struct PolicyRow
{
	Rule rule;
	Policy policy;
};

// What is wrong with a row.  Palloc'd texts.
struct RowProblem
{
	const char *column;
	AttrNumber number;
	const char *value;  // as text
	const char *detail; // the rule it breaks, with the bounds
	const char *hint;   // may be nullptr
};

// Fills *row; or returns false and fills *problem.  row->policy.name is filled in
// both cases as far as it is known.
bool read_policy_row(HeapTuple tuple, TupleDesc descriptor, const PolicyColumns &columns,
                     PolicyRow *row, RowProblem *problem);

} // namespace guard::pg
