// keepalive_ended(): how many connections ended for each cause, whatever their policies.
#include "pg/postgres.hpp"

#include "pg/functions/preload.hpp"
#include "pg/functions/rows.hpp"
#include "pg/shared/statistics.hpp"

extern "C"
{
	PG_FUNCTION_INFO_V1(keepalive_ended);
}

namespace guard::pg
{
namespace
{

constexpr Column ended_columns[] = {
	{"cause", TEXTOID},
	{"lost", BOOLOID},
	{"connections", INT8OID},
};

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_ended(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, ended_columns);
	require_preload();
	const Totals totals = copy_totals();
	for (int i = 0; i < cause_count; i++)
	{
		const auto cause = static_cast<Cause>(i);
		if (cause == Cause::would_end)
			continue; // no end
		RowValues<ended_columns> row;
		row.add_text(cause_name(cause));
		row.add(BoolGetDatum(is_lost(cause)));
		row.add(Int64GetDatum(totals.ended[i]));
		put_row(result, row);
	}
	return 0;
}
