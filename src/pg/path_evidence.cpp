// keepalive_path_evidence(): what ended connections tell of the paths to their clients;
// the view keepalive_paths_observed draws the conclusions.
#include "pg/postgres.hpp"

#include "pg/datums.hpp"
#include "pg/events.hpp"
#include "pg/preload.hpp"

extern "C"
{
#include "funcapi.h"

	PG_FUNCTION_INFO_V1(keepalive_path_evidence);
}

namespace guard::pg
{
namespace
{

// A connection tells whether its path survived idleness if something of the client's
// came through after it, or nothing did, or a reset.
bool is_evidence(const Event &event, bool *lost)
{
	if (event.client.family == 0 || event.idle_ms == not_known)
		return false;
	switch (event.cause)
	{
	case Cause::client_closed:
	case Cause::client_vanished:
		*lost = false;
		return true;
	case Cause::reset:
	case Cause::keepalive_timeout:
		*lost = true;
		return true;
	default:
		return false;
	}
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_path_evidence(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	require_preload();
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	int count;
	const Event *events = copy_events(&count);
	for (int i = 0; i < count; i++)
	{
		bool lost;
		if (!is_evidence(events[i], &lost))
			continue;
		Endpoint client = unmapped(events[i].client);
		RowValues<3> row;
		row.add(address_datum(client.family, client.address.data()));
		row.add(interval_datum(events[i].idle_ms));
		row.add(BoolGetDatum(lost));
		tuplestore_putvalues(result->setResult, result->setDesc, row.values, row.nulls);
	}
	return 0;
}
