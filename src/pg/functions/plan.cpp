// keepalive_plan()
#include "pg/postgres.hpp"

#include "model/plan.hpp"
#include "pg/functions/intent.hpp"
#include "pg/functions/policy_table.hpp"
#include "pg/functions/rows.hpp"
#include "pg/settings.hpp"
#include "pg/shared/snapshot.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "access/htup_details.h"

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
	Intent intent = intent_of(fcinfo);
	intent.end_slow_readers = PG_GETARG_BOOL(2);

	const guard::Plan plan = make_plan(intent, watch_interval, kernel_limits());
	if (plan.error != PlanError::none)
		refuse_intent(plan, intent, watch_interval, fcinfo->flinfo->fn_oid);
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
