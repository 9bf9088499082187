// keepalive_listeners(): the accept queues, without the cost of keepalive_sockets().
#include "pg/postgres.hpp"

#include "kernel/read_sockets.hpp"
#include "pg/functions/malloced.hpp"
#include "pg/functions/read_report.hpp"
#include "pg/functions/rows.hpp"

extern "C"
{
	PG_FUNCTION_INFO_V1(keepalive_listeners);
}

namespace guard::pg
{
namespace
{

constexpr Column listeners_columns[] = {
	{"local_port", INT4OID},
	{"accept_queue", INT8OID},
	{"accept_queue_limit", INT8OID},
};

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_listeners(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, listeners_columns);

	ServerSocket **sockets = freed_with_context<ServerSocket>();
	size_t count;
	report_reading(
		read_listeners(IsUnderPostmaster ? PostmasterPid : MyProcPid, sockets, &count),
		ERROR);

	for (size_t i = 0; i < count; i++)
	{
		const SocketFacts &facts = (*sockets)[i].facts;
		RowValues<listeners_columns> row;
		row.add(Int32GetDatum(facts.id.local.port));
		row.add(Int64GetDatum(facts.recv_queue));
		if (facts.send_queue > 0) // unknown to /proc
			row.add(Int64GetDatum(facts.send_queue));
		row.add_remaining_nulls();
		put_row(result, row);
	}
	return 0;
}
