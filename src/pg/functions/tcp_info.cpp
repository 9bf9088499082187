// keepalive_tcp_info()
#include "pg/postgres.hpp"

#include "kernel/tcp_info.hpp"
#include "pg/functions/datums.hpp"
#include "pg/functions/session_list.hpp"

extern "C"
{
#include "funcapi.h"

	PG_FUNCTION_INFO_V1(keepalive_tcp_info);
}

namespace guard::pg
{
namespace
{

constexpr int first_field = 5; // after pid and both ends
constexpr int field_count = tcp_info_fields.size();
constexpr int tcp_info_columns = first_field + field_count + 1 + memory_figure_count;

// The SQL function lists the fields of the table in kernel/tcp_info.hpp: an install
// script of another version may not.
void check_columns(TupleDesc columns)
{
	bool same = columns->natts == tcp_info_columns;
	for (int i = 0; same && i < field_count; i++)
		same = strcmp(NameStr(TupleDescAttr(columns, first_field + i)->attname),
		              tcp_info_fields[i].name) == 0;
	for (int i = 0; same && i < memory_figure_count; i++)
		same =
			strcmp(
				NameStr(
					TupleDescAttr(columns, first_field + field_count + 1 + i)->attname),
				memory_figure_names[i]) == 0;
	if (!same)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
		                errmsg("keepalive_tcp_info() in SQL and in the library differ"),
		                errhint("Use ALTER EXTENSION keepalive_guard UPDATE.")));
}

void add_facts(RowValues<tcp_info_columns> &row, const SocketFacts &facts,
               TupleDesc columns)
{
	for (const TcpInfoField &field : tcp_info_fields)
	{
		std::optional<std::uint64_t> value = value_of(facts.info, field);
		if (value)
			row.add(unsigned_datum(*value, TupleDescAttr(columns, row.count)->atttypid));
		else
			row.add_null();
	}
	row.add_text(facts.congestion[0] != '\0' ? facts.congestion : nullptr);
	for (int i = 0; i < facts.memory_count; i++)
		row.add(Int64GetDatum(facts.memory[i]));
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_tcp_info(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	check_columns(result->setDesc);

	visit_sessions({true, true, true},
	               [&](const ListedSession &listed, const SocketFacts &facts)
	               {
					   if (listed.visible && listed.session.transport != Transport::tcp)
						   return;
					   RowValues<tcp_info_columns> row;
					   row.add(Int32GetDatum(listed.session.pid));
					   if (listed.visible)
					   {
						   row.add_endpoint(facts.found ? facts.id.local
			                                            : listed.session.socket.local);
						   row.add_endpoint(listed.session.socket.remote);
						   add_facts(row, facts, result->setDesc);
					   }
					   row.add_nulls_to(tcp_info_columns);
					   tuplestore_putvalues(result->setResult, result->setDesc,
		                                    row.values, row.nulls);
				   });
	return 0;
}
