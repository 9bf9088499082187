// keepalive_condition(): the internal state of the guard.
#include "pg/postgres.hpp"

#include "kernel/read_sockets.hpp"
#include "pg/functions/rows.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "access/htup_details.h"
#include "utils/timestamp.h"

	PG_FUNCTION_INFO_V1(keepalive_condition);
}

namespace guard::pg
{
namespace
{

constexpr Column condition_columns[] = {
	{"version", TEXTOID},         {"preloaded", BOOLOID},
	{"worker", BOOLOID},          {"enabled", BOOLOID},
	{"policies", TEXTOID},        {"up_to_date", BOOLOID},
	{"skipped", INT4OID},         {"in_force", INT4OID},
	{"found", INT4OID},           {"changed_at", TIMESTAMPTZOID},
	{"netlink_refused", TEXTOID}, {"sockets_unreadable", TEXTOID},
};

const char *state_name(PolicyState state)
{
	switch (state)
	{
	case PolicyState::not_read:
		return "not_read";
	case PolicyState::no_database:
		return "no_database";
	case PolicyState::no_extension:
		return "no_extension";
	case PolicyState::no_table:
		return "no_table";
	case PolicyState::no_room:
		return "no_room";
	case PolicyState::unreadable:
		return "unreadable";
	case PolicyState::reader_failed:
		return "reader_failed";
	case PolicyState::compiled:
		return "compiled";
	}
	return nullptr;
}

// Asks the kernel for a socket that does not exist.
ReadOutcome try_reading()
{
	SessionSocket none = {};
	none.pid = MyProcPid;
	none.id.local.family = 4;
	none.id.remote.family = 4;
	none.id.cookie = 1;
	SocketFacts facts = {};
	return read_session_sockets(&none, 1, &facts, {});
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_condition(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	TupleDesc descriptor = begin_composite(fcinfo, condition_columns);

	RowValues<condition_columns> row;
	row.add_text(KEEPALIVE_GUARD_VERSION);
	row.add(BoolGetDatum(shared != nullptr));
	if (shared != nullptr)
	{
		row.add(BoolGetDatum(pg_atomic_read_u32(&shared->worker) != 0));
		row.add(BoolGetDatum(pg_atomic_read_u32(&shared->enabled) != 0));
		row.add_text(state_name(
			static_cast<PolicyState>(pg_atomic_read_u32(&shared->policy_state))));
		row.add(BoolGetDatum(policies_distributed()));
		row.add(Int32GetDatum(shared->rows_skipped));
		row.add(Int32GetDatum(shared->policy_count));
		row.add(Int32GetDatum(shared->policies_found));
		const std::uint64_t changed_at = pg_atomic_read_u64(&shared->changed_at);
		if (changed_at != 0)
			row.add(TimestampTzGetDatum(static_cast<TimestampTz>(changed_at)));
	}
	row.add_nulls_to(10);

	const ReadOutcome reading = try_reading();
	row.add_text(reading.kind == ReadOutcome::refused ? reading.message : nullptr);
	row.add_text(reading.kind == ReadOutcome::failed ? reading.message : nullptr);
	return composite_row(descriptor, row);
}
