#include "pg/postgres.hpp"

#include "pg/functions/datums.hpp"
#include "pg/functions/intent.hpp"

extern "C"
{
#include "common/int.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
}

namespace guard::pg
{
namespace
{

const char *interval_text(std::int64_t milliseconds)
{
	return DatumGetCString(
		DirectFunctionCall1(interval_out, interval_datum(milliseconds)));
}

// An argument in milliseconds: whole ones, positive, at most a century.
std::int64_t milliseconds_of(const Interval *interval, const char *name)
{
	constexpr std::int64_t longest = INT64CONST(36525) * USECS_PER_DAY;
	std::int64_t microseconds;
	bool good = interval->month == 0 &&
	            !pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &microseconds) &&
	            !pg_add_s64_overflow(microseconds, interval->time, &microseconds) &&
	            microseconds >= 1000 && microseconds <= longest;
	if (!good)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("invalid value for argument \"%s\": %s", name,
		                DatumGetCString(DirectFunctionCall1(
							interval_out, IntervalPGetDatum(interval)))),
		         interval->month != 0
		             ? errdetail("Months and years have no fixed length.")
		             : errdetail("The value must be between 1 ms and 36525 days.")));
	return microseconds / 1000;
}

} // namespace

Intent intent_of(FunctionCallInfo fcinfo)
{
	Intent intent = {
		milliseconds_of(PG_GETARG_INTERVAL_P(0), "detect_within"), {}, false};
	if (!PG_ARGISNULL(1))
		intent.path_idle_timeout =
			milliseconds_of(PG_GETARG_INTERVAL_P(1), "path_idle_timeout");
	return intent;
}

void refuse_intent(const Plan &plan, const Intent &intent, int watch_interval,
                   Oid function)
{
	const char *minimum = interval_text(plan.minimum);
	switch (plan.error)
	{
	case PlanError::detect_too_soon:
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("a dead client or server cannot be found within %s",
		                interval_text(intent.detect_within)),
		         errdetail("The minimum is %s while keepalive_guard.watch_interval is "
		                   "%d ms.",
		                   minimum, watch_interval),
		         errhint("Try %s('%s').",
		                 DatumGetCString(
							 DirectFunctionCall1(regprocout, ObjectIdGetDatum(function))),
		                 minimum)));
	case PlanError::path_too_forgetful:
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("keepalive probes cannot keep a path open that drops idle "
		                       "connections after %s",
		                       interval_text(*intent.path_idle_timeout)),
		                errdetail("The minimum is %s: the shortest tcp_keepalives_idle "
		                          "is one second.",
		                          minimum)));
	default:
		ereport(ERROR,
		        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		         errmsg("cannot make a plan while keepalive_guard.watch_interval is 0"),
		         errdetail("Without dead_after, no settings find a dead client in every "
		                   "state without ending living clients."),
		         errhint("Set keepalive_guard.watch_interval to 1s and reload.")));
	}
}

} // namespace guard::pg
