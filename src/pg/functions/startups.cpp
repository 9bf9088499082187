// keepalive_startups(): how sessions started, for keepalive_check().  PgBouncer starts
// its connections without any setting, and later sets what its client has chosen;
// libraries of clients put application_name and others into the startup packet.
#include "pg/postgres.hpp"

#include "pg/functions/rows.hpp"
#include "pg/functions/session_list.hpp"

extern "C"
{
#include "utils/timestamp.h"

	PG_FUNCTION_INFO_V1(keepalive_startups);
}

namespace guard::pg
{
namespace
{

constexpr Column startup_columns[] = {
	{"pid", INT4OID},
	{"backend_start", TIMESTAMPTZOID},
	{"plain", BOOLOID},
};

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_startups(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, startup_columns);
	visit_sessions({},
	               [&](const ListedSession &listed, const SocketFacts &)
	               {
					   if (listed.slot == nullptr || !listed.visible)
						   return;
					   RowValues<startup_columns> row;
					   row.add(Int32GetDatum(listed.session.pid));
					   row.add(TimestampTzGetDatum(listed.session.started));
					   row.add(BoolGetDatum(listed.session.plain_startup));
					   put_row(result, row);
				   });
	return 0;
}
