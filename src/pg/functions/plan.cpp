// keepalive_plan()
#include "pg/postgres.hpp"

#include "model/plan.hpp"
#include "pg/functions/policy_table.hpp"
#include "pg/functions/rows.hpp"
#include "pg/settings.hpp"
#include "pg/shared/snapshot.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "access/htup_details.h"
#include "common/int.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

	PG_FUNCTION_INFO_V1(keepalive_plan);
}

namespace guard::pg
{
namespace
{

constexpr Argument plan_arguments[] = {
	{"detect_within", INTERVALOID, false},
	{"path_idle_timeout", INTERVALOID, true},
	{"end_slow_readers", BOOLOID, false},
};

constexpr Column plan_columns[] = {
	{"tcp_keepalives_idle", INTERVALOID},
	{"tcp_keepalives_interval", INTERVALOID},
	{"tcp_keepalives_count", INT4OID},
	{"tcp_user_timeout", INTERVALOID},
	{"client_connection_check_interval", INTERVALOID},
	{"dead_after", INTERVALOID},
	{"stall_timeout", INTERVALOID},
	{"earliest_idle", INTERVALOID},
	{"detects_idle", INTERVALOID},
	{"earliest_busy", INTERVALOID},
	{"detects_busy", INTERVALOID},
	{"earliest_late_write", INTERVALOID},
	{"detects_late_write", INTERVALOID},
	{"earliest_stalled", INTERVALOID},
	{"detects_stalled", INTERVALOID},
	{"probes_per_hour", INT4OID},
	{"libpq_options", TEXTOID},
	{"sysctl", TEXTOID},
	{"policy", TEXTOID},
};

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

// function: keepalive_plan() itself.
[[noreturn]] void refuse(const Plan &plan, const Intent &intent, Oid function)
{
	const char *minimum = interval_text(plan.minimum);
	switch (plan.error)
	{
	case PlanError::detect_too_soon:
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("a dead client cannot be found within %s",
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

// The plan itself does not need it.
void warn_without_preload()
{
	ereport(WARNING,
	        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	         errmsg("keepalive_guard is not loaded via shared_preload_libraries"),
	         errdetail("The policy will be in force once it is.  The plan assumes a "
	                   "keepalive_guard.watch_interval of %d ms.",
	                   watch_interval),
	         errhint("Add keepalive_guard to shared_preload_libraries and restart the "
	                 "server.")));
}

void add_span(RowValues<plan_columns> &row, const Span &span)
{
	row.add_interval_or_null(span.earliest);
	row.add_interval_or_null(span.latest);
}

void add_settings(RowValues<plan_columns> &row, const DetectionSettings &settings)
{
	row.add(interval_datum(settings.idle_s * INT64CONST(1000)));
	row.add(interval_datum(settings.interval_s * INT64CONST(1000)));
	row.add(Int32GetDatum(settings.count));
	row.add(interval_datum(settings.user_timeout_ms));
	row.add(interval_datum(settings.client_check_ms));
	row.add(interval_datum(settings.dead_after_ms));
	if (settings.stall_timeout_ms == 0)
		row.add_null();
	else
		row.add(interval_datum(settings.stall_timeout_ms));
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_plan(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	TupleDesc descriptor = begin_composite(fcinfo, plan_columns, plan_arguments);
	Intent intent = {
		milliseconds_of(PG_GETARG_INTERVAL_P(0), "detect_within"), {}, PG_GETARG_BOOL(2)};
	if (!PG_ARGISNULL(1))
		intent.path_idle_timeout =
			milliseconds_of(PG_GETARG_INTERVAL_P(1), "path_idle_timeout");

	const guard::Plan plan = make_plan(intent, watch_interval, kernel_limits());
	if (plan.error != PlanError::none)
		refuse(plan, intent, fcinfo->flinfo->fn_oid);
	PlanTexts texts;
	if (!plan_texts(plan, intent, policy_table_name(fcinfo->flinfo->fn_oid), &texts))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	if (shared == nullptr)
		warn_without_preload();

	RowValues<plan_columns> row;
	add_settings(row, plan.settings);
	add_span(row, plan.detection.idle);
	add_span(row, plan.detection.busy);
	add_span(row, plan.detection.late_write);
	add_span(row, plan.detection.stalled);
	row.add(Int32GetDatum(plan.probes_per_hour));
	row.add_text(texts.libpq_options);
	row.add_text(texts.sysctl_lines);
	row.add_text(texts.policy_insert);
	return composite_row(descriptor, row);
}
