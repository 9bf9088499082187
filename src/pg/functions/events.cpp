// keepalive_events()
#include "pg/postgres.hpp"

#include "pg/functions/preload.hpp"
#include "pg/functions/rows.hpp"
#include "pg/shared/events.hpp"

extern "C"
{
#include "catalog/pg_authid.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

	PG_FUNCTION_INFO_V1(keepalive_events);
}

namespace guard::pg
{
namespace
{

constexpr Column event_columns[] = {
	{"ended_at", TIMESTAMPTZOID},
	{"pid", INT4OID},
	{"cause", TEXTOID},
	{"policies", TEXTARRAYOID},
	{"datname", NAMEOID},
	{"usename", NAMEOID},
	{"application_name", TEXTOID},
	{"backend_type", TEXTOID},
	{"client_addr", INETOID},
	{"client_port", INT4OID},
	{"connected_for", INTERVALOID},
	{"silent_for", INTERVALOID},
	{"state", TEXTOID},
	{"transaction_age", INTERVALOID},
	{"unanswered_probes", INT4OID},
	{"retransmits", INT4OID},
	{"rtt_ms", FLOAT8OID},
	{"bytes_sent", INT8OID},
	{"bytes_received", INT8OID},
	{"detail", TEXTOID},
};

void add_socket(RowValues<event_columns> &row, const Event &event)
{
	Endpoint client = unmapped(event.client);
	if (client.family != 0)
	{
		row.add(address_datum(client.family, client.address.data()));
		row.add(Int32GetDatum(client.port));
	}
	else
	{
		row.add_null();
		row.add(Int32GetDatum(-1));
	}
}

void add_if_known(RowValues<event_columns> &row, std::int64_t bytes)
{
	if (bytes != not_known)
		row.add(Int64GetDatum(bytes));
	else
		row.add_null();
}

void add_kernel_view(RowValues<event_columns> &row, const Event &event)
{
	if (!event.tcp.known)
	{
		row.add_nulls(5);
		return;
	}
	row.add(Int32GetDatum(event.tcp.probes));
	row.add(Int32GetDatum(event.tcp.retransmits));
	row.add(Float8GetDatum(event.tcp.rtt / 1000.0));
	add_if_known(row, event.tcp.bytes_sent);
	add_if_known(row, event.tcp.bytes_received);
}

void add_row(ReturnSetInfo *result, const Event &event)
{
	RowValues<event_columns> row;
	row.add(TimestampTzGetDatum(event.ended_at));
	row.add(Int32GetDatum(event.pid));
	row.add_text(cause_name(event.cause));
	row.add_policies(policies_of(event));
	row.add_name(event.database[0] ? event.database : nullptr);
	row.add_name(event.role_name[0] ? event.role_name : nullptr);
	row.add_text(event.application_name);
	row.add_text(event.kind == BackendKind::replication ? "walsender" : "client backend");
	add_socket(row, event);
	row.add(microseconds_datum(event.connected_us));
	if (event.tcp.known)
		row.add(interval_datum(event.tcp.silent_ms));
	else
		row.add_null();
	row.add_text(state_name(event.state));
	if (event.transaction_us == not_known)
		row.add_null();
	else
		row.add(microseconds_datum(event.transaction_us));
	add_kernel_view(row, event);
	row.add_text(*detail_of(event) ? detail_of(event) : nullptr);
	put_row(result, row);
}

bool is_visible(Oid role)
{
	return OidIsValid(role) && has_privs_of_role(GetUserId(), role);
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_events(PG_FUNCTION_ARGS)
{
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, event_columns);
	require_preload();
	const bool sees_all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
	EventWalk walk;
	begin_walk(walk, sees_all ? nullptr : is_visible);
	while (const Event *event = next_event(walk))
		add_row(result, *event);
	return 0;
}
