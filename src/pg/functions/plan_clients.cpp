// keepalive_plan_clients()
#include "pg/postgres.hpp"

#include "model/client_plan.hpp"
#include "pg/functions/intent.hpp"
#include "pg/functions/rows.hpp"
#include "pg/settings.hpp"
#include "pg/shared/snapshot.hpp"

extern "C"
{
#include "utils/array.h"

	PG_FUNCTION_INFO_V1(keepalive_plan_clients);
}

namespace guard::pg
{
namespace
{

constexpr Argument plan_clients_arguments[] = {
	{"detect_within", INTERVALOID, false},
	{"path_idle_timeout", INTERVALOID, true},
};

constexpr Column plan_clients_columns[] = {
	{"client", TEXTOID},
	{"settings", TEXTOID},
	{"needs", TEXTOID},
	{"covers", TEXTARRAYOID},
	{"detects_idle", INTERVALOID},
	{"detects_busy", INTERVALOID},
	{"detects_connecting", INTERVALOID},
	{"limits", TEXTOID},
	{"source", TEXTOID},
};

Datum covers(const ClientPlan &client, std::int64_t within)
{
	Datum states[3];
	int count = 0;
	const auto add = [&](const Duration &latest, const char *state)
	{
		if (latest && *latest <= within)
			states[count++] = CStringGetTextDatum(state);
	};
	add(client.idle, "idle");
	add(client.busy, "busy");
	add(client.connecting, "connecting");
	return PointerGetDatum(
		construct_array(states, count, TEXTOID, -1, false, TYPALIGN_INT));
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_plan_clients(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result =
		begin_rows(fcinfo, plan_clients_columns, plan_clients_arguments);
	const Intent intent = intent_of(fcinfo);

	// The guard does not watch clients, so its being off does not matter.
	const int looks = watch_interval > 0 ? watch_interval : 1000;
	const guard::Plan plan = make_plan(intent, looks, kernel_limits());
	if (plan.error != PlanError::none)
		refuse_intent(plan, intent, looks, fcinfo->flinfo->fn_oid);

	ClientPlan client;
	for (size_t i = 0; i < client_plan_count(); i++)
	{
		if (!client_plan(plan, i, &client))
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
		RowValues<plan_clients_columns> row;
		row.add_text(client.client);
		row.add_text(client.settings);
		row.add_text(client.needs);
		row.add(covers(client, intent.detect_within));
		row.add_interval_or_null(client.idle);
		row.add_interval_or_null(client.busy);
		row.add_interval_or_null(client.connecting);
		row.add_text(client.limits);
		row.add_text(client.source);
		put_row(result, row);
	}
	return 0;
}
