// keepalive_apply()
#include "pg/postgres.hpp"

#include "pg/clock.hpp"
#include "pg/functions/preload.hpp"
#include "pg/functions/rows.hpp"
#include "pg/functions/session_state.hpp"
#include "pg/policy/change.hpp"
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
	{"failed", INT8OID},   {"pending", INT8OID}, {"without_policy", INT8OID},
};

constexpr long poll_ms = 5;

struct Counts
{
	std::int64_t sessions;
	std::int64_t of_state[5]; // by SessionState
};

// The version of its settings that each session is to confirm, by slot.
struct Awaited
{
	std::int32_t pid;
	std::int64_t started;
	std::uint32_t version;
	bool is_unknown; // it has not got there: the slot's present version counts
};

// What the request has led to; later requests may lead to more.
Awaited *awaited_versions()
{
	auto *awaited = static_cast<Awaited *>(palloc_extended(
		shared->slot_count * sizeof(Awaited), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO));
	for (uint32 i = 0; i < shared->slot_count; i++)
	{
		const Slot &slot = shared_slots()[i];
		Session session;
		Wanted wanted;
		const bool overdue = is_overdue(slot);
		if (read_slot(slot, session, wanted) == SlotState::unreadable || overdue)
			awaited[i].is_unknown = true;
		else
			awaited[i] = {session.pid, session.started, wanted.version, false};
	}
	return awaited;
}

bool has_confirmed(const Session &session, const Awaited &awaited)
{
	if (awaited.is_unknown)
		return false;
	if (session.pid != awaited.pid || session.started != awaited.started)
		return true; // it began after the request
	return session.applied >= awaited.version;
}

// `awaited` is nullptr as long as the request has not been distributed.
Counts count_sessions(const Awaited *awaited)
{
	Counts counts = {};
	for (uint32 i = 0; i < shared->slot_count; i++)
	{
		const Slot &slot = shared_slots()[i];
		Session session;
		Wanted wanted;
		const bool overdue = is_overdue(slot);
		const SlotState slot_state = read_slot(slot, session, wanted);
		if (slot_state == SlotState::free)
			continue;
		if (awaited != nullptr && has_confirmed(session, awaited[i]))
			wanted.version = session.applied;
		counts.sessions++;
		const SessionState state =
			overdue || slot_state == SlotState::unreadable
				? SessionState::pending
				: session_state(session, wanted, awaited != nullptr);
		counts.of_state[static_cast<int>(state)]++;
	}
	return counts;
}

std::int64_t of(const Counts &counts, SessionState state)
{
	return counts.of_state[static_cast<int>(state)];
}

bool is_distributed(std::uint64_t request)
{
	bool distributed = pg_atomic_read_u64(&shared->distributed) >= request;
	pg_read_barrier();
	return distributed;
}

// Until the request has gone through and every session has confirmed, or time is up.
// Requests that come later do not prolong it.
Counts wait_for(std::uint64_t request, std::int64_t deadline)
{
	const Awaited *awaited = nullptr;
	for (;;)
	{
		if (awaited == nullptr && is_distributed(request))
			awaited = awaited_versions();
		Counts counts = count_sessions(awaited);
		if ((awaited != nullptr && of(counts, SessionState::pending) == 0) ||
		    monotonic_ms() >= deadline)
			return counts;
		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, poll_ms,
		          PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

// Months count by the calendar.
std::int64_t deadline_after(const Interval *timeout)
{
	const TimestampTz now = GetCurrentTimestamp();
	Datum end = DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now),
	                                IntervalPGetDatum(timeout));
	const TimestampTz ends = DatumGetTimestampTz(end);
	if (TIMESTAMP_NOT_FINITE(ends))
		return ends < now ? 0 : PG_INT64_MAX;
	return monotonic_ms() + (ends - now) / 1000;
}

void warn_of_uncommitted_changes()
{
	if (has_edited_policies_here())
		ereport(WARNING,
		        (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
		         errmsg("uncommitted changes of keepalive policies are not applied"),
		         errhint("Commit them. Committed changes are applied without a call of "
		                 "keepalive_apply().")));
}

// What a caller should know who sees only the counts.
void warn_of_trouble(std::uint64_t request)
{
	if (!is_distributed(request))
	{
		ereport(WARNING,
		        (errmsg("timed out waiting for policies to be reloaded"),
		         pg_atomic_read_u32(&shared->worker) == 0
		             ? errdetail("The keepalive_guard worker is not running.")
		             : errdetail("The keepalive_guard worker has not finished.")));
		return;
	}
	switch (static_cast<PolicyState>(pg_atomic_read_u32(&shared->policy_state)))
	{
	case PolicyState::no_database:
		ereport(WARNING,
		        (errmsg("no keepalive policies are in force"),
		         errdetail("Database \"%s\" (keepalive_guard.database) does not exist.",
		                   policy_database)));
		break;
	case PolicyState::no_extension:
		ereport(WARNING,
		        (errmsg("no keepalive policies are in force"),
		         errdetail("Database \"%s\" (keepalive_guard.database) has no extension "
		                   "keepalive_guard.",
		                   policy_database)));
		break;
	case PolicyState::no_table:
		ereport(WARNING,
		        (errmsg("extension keepalive_guard in database \"%s\" has no table "
		                "keepalive_policy",
		                policy_database),
		         errdetail("%s", policies_still_in_force()),
		         errhint("The table was renamed, moved to another schema or removed "
		                 "from the extension.")));
		break;
	case PolicyState::no_room:
		ereport(WARNING, (errmsg("%u keepalive policies are more than "
		                         "keepalive_guard.max_policies (%u)",
		                         shared->policies_found, shared->policy_room),
		                  errdetail("%s", policies_still_in_force()),
		                  errhint("Increase keepalive_guard.max_policies and restart the "
		                          "server.")));
		break;
	case PolicyState::unreadable:
		ereport(WARNING, (errmsg("table keepalive_policy could not be read"),
		                  errdetail("%s", policies_still_in_force()),
		                  errhint("The server log says which column is not as "
		                          "expected.")));
		break;
	case PolicyState::reader_failed:
		ereport(
			WARNING,
			(errmsg("the policies of database \"%s\" could not be read", policy_database),
		     errdetail("%s", policies_still_in_force()),
		     errhint("The server log has the error of the keepalive_guard policy "
		             "reader.")));
		break;
	case PolicyState::not_read:
	case PolicyState::compiled:
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
	warn_of_uncommitted_changes();
	std::int64_t deadline = deadline_after(PG_GETARG_INTERVAL_P(0));
	std::uint64_t request = request_update();
	Counts counts = wait_for(request, deadline);
	warn_of_trouble(request);

	RowValues<apply_columns> row;
	row.add(Int64GetDatum(counts.sessions));
	for (SessionState state :
	     {SessionState::applied, SessionState::overridden, SessionState::failed,
	      SessionState::pending, SessionState::ungoverned})
		row.add(Int64GetDatum(of(counts, state)));
	return composite_row(descriptor, row);
}
