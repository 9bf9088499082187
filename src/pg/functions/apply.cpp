// keepalive_apply()
#include "pg/postgres.hpp"

#include "pg/functions/preload.hpp"
#include "pg/functions/rows.hpp"
#include "pg/functions/session_state.hpp"
#include "pg/settings.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "access/htup_details.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

	PG_FUNCTION_INFO_V1(keepalive_apply);
}

namespace guard::pg
{
namespace
{

constexpr Argument apply_arguments[] = {
	{"timeout", INTERVALOID, false},
};

constexpr Column apply_columns[] = {
	{"sessions", INT8OID}, {"applied", INT8OID}, {"overridden", INT8OID},
	{"failed", INT8OID},   {"pending", INT8OID},
};

constexpr long poll_ms = 5;

struct Counts
{
	std::int64_t sessions;
	std::int64_t of_state[5]; // by SessionState
};

Counts count_sessions()
{
	Counts counts = {};
	for (uint32 i = 0; i < shared->slot_count; i++)
	{
		const Slot &slot = shared_slots()[i];
		Session session;
		Wanted wanted;
		bool distributed = policies_distributed();
		if (!slot.session.read(session) || session.pid == 0 || !slot.wanted.read(wanted))
			continue;
		counts.sessions++;
		counts.of_state[static_cast<int>(session_state(session, wanted, distributed))]++;
	}
	return counts;
}

std::int64_t of(const Counts &counts, SessionState state)
{
	return counts.of_state[static_cast<int>(state)];
}

// Until the request has gone through and every session has confirmed, or time is up.
Counts wait_for(std::uint64_t request, TimestampTz deadline)
{
	for (;;)
	{
		bool distributed = pg_atomic_read_u64(&shared->distributed) >= request;
		Counts counts = count_sessions();
		if ((distributed && of(counts, SessionState::pending) == 0) ||
		    GetCurrentTimestamp() >= deadline)
			return counts;

		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, poll_ms,
		          PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

TimestampTz deadline_after(const Interval *timeout)
{
	Datum deadline = DirectFunctionCall2(timestamptz_pl_interval,
	                                     TimestampTzGetDatum(GetCurrentTimestamp()),
	                                     IntervalPGetDatum(timeout));
	return DatumGetTimestampTz(deadline);
}

// What a caller should know who sees only the counts.
void warn_of_trouble(std::uint64_t request)
{
	if (pg_atomic_read_u64(&shared->distributed) < request)
	{
		ereport(WARNING,
		        (errmsg("the policies were not re-read in time"),
		         pg_atomic_read_u32(&shared->worker) == 0
		             ? errdetail("The keepalive_guard worker is not running.")
		             : errdetail("The keepalive_guard worker has not finished.")));
		return;
	}
	switch (static_cast<PolicyState>(pg_atomic_read_u32(&shared->policy_state)))
	{
	case PolicyState::no_room:
		ereport(WARNING,
		        (errmsg("there are more policies than keepalive_guard.max_policies"),
		         errdetail("The policies that were in force before stay in force.")));
		break;
	case PolicyState::unreadable:
		ereport(WARNING,
		        (errmsg("table keepalive_policy could not be read"),
		         errdetail("The policies that were in force before stay in force. "
		                   "The server log says more.")));
		break;
	case PolicyState::reader_failed:
		ereport(
			WARNING,
			(errmsg("the policies of database \"%s\" could not be read", policy_database),
		     errdetail("%s", policies_still_in_force()),
		     errhint("The server log has the error of the keepalive_guard policy "
		             "reader.")));
		break;
	default:
		break;
	}
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_apply(PG_FUNCTION_ARGS)
{
	using namespace guard::pg;

	TupleDesc descriptor = begin_composite(fcinfo, apply_columns, apply_arguments);
	require_preload();
	TimestampTz deadline = deadline_after(PG_GETARG_INTERVAL_P(0));
	std::uint64_t request = request_update();
	Counts counts = wait_for(request, deadline);
	warn_of_trouble(request);

	RowValues<apply_columns> row;
	row.add(Int64GetDatum(counts.sessions));
	for (SessionState state : {SessionState::applied, SessionState::overridden,
	                           SessionState::failed, SessionState::pending})
		row.add(Int64GetDatum(of(counts, state)));
	return composite_row(descriptor, row);
}
