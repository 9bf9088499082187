// keepalive_tcp_info()
#include "pg/postgres.hpp"

#include "kernel/tcp_info.hpp"
#include "pg/functions/rows.hpp"
#include "pg/functions/session_list.hpp"

#include <string_view>

extern "C"
{
	PG_FUNCTION_INFO_V1(keepalive_tcp_info);
}

namespace guard::pg
{
namespace
{

// The SQL type that holds all values of a field; of rates, the greatest stands for
// "unlimited".
constexpr Oid type_of(const TcpInfoField &field)
{
	const std::string_view name = field.name;
	if (name == "pacing_rate" || name == "max_pacing_rate")
		return NUMERICOID;
	return field.size >= 4 ? INT8OID : INT4OID;
}

constexpr std::size_t first_field = 5; // after pid and both ends

constexpr auto tcp_info_columns = []
{
	std::array<Column, first_field + tcp_info_fields.size() + 1 + memory_figure_count>
		columns = {{
			{"pid", INT4OID},
			{"local_addr", INETOID},
			{"local_port", INT4OID},
			{"remote_addr", INETOID},
			{"remote_port", INT4OID},
		}};
	std::size_t next = first_field;
	for (const TcpInfoField &field : tcp_info_fields)
		columns[next++] = {field.name, type_of(field)};
	columns[next++] = {"congestion", TEXTOID};
	for (const char *name : memory_figure_names)
		columns[next++] = {name, INT8OID};
	return columns;
}();

void add_facts(RowValues<tcp_info_columns> &row, const SocketFacts &facts)
{
	for (const TcpInfoField &field : tcp_info_fields)
	{
		std::optional<std::uint64_t> value = value_of(facts.info, field);
		if (value)
			row.add(unsigned_datum(*value, type_of(field)));
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

	ReturnSetInfo *result = begin_rows(fcinfo, tcp_info_columns);

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
						   add_facts(row, facts);
					   }
					   row.add_remaining_nulls();
					   put_row(result, row);
				   });
	return 0;
}
