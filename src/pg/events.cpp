#include "pg/postgres.hpp"

#include "pg/events.hpp"

#include "kernel/socket_options.hpp"
#include "pg/datums.hpp"
#include "pg/preload.hpp"
#include "pg/session.hpp"
#include "pg/settings.hpp"
#include "pg/statistics.hpp"
#include "pg/watch.hpp"

#include <algorithm>

extern "C"
{
#include "catalog/pg_authid.h"
#include "common/ip.h"
#include "funcapi.h"
#include "libpq/libpq.h"
#include "pgstat.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/timestamp.h"

	PG_FUNCTION_INFO_V1(keepalive_events);
}

namespace guard::pg
{
namespace
{

constexpr int event_columns = 20;

struct Ring
{
	LWLock *lock;
	std::uint64_t written; // so far; the next one goes to written % max_events
	Event events[FLEXIBLE_ARRAY_MEMBER];
};

Ring *ring = nullptr;

void add_event(const Event &event)
{
	LWLockAcquire(ring->lock, LW_EXCLUSIVE);
	ring->events[ring->written % max_events] = event;
	ring->written++;
	LWLockRelease(ring->lock);
}

// As pg_stat_get_activity() in pgstatfuncs.c.
const char *state_name(std::uint8_t state)
{
	switch (state)
	{
	case STATE_IDLE:
		return "idle";
	case STATE_RUNNING:
		return "active";
	case STATE_IDLEINTRANSACTION:
		return "idle in transaction";
	case STATE_FASTPATH:
		return "fastpath function call";
	case STATE_IDLEINTRANSACTION_ABORTED:
		return "idle in transaction (aborted)";
	case STATE_DISABLED:
		return "disabled";
	default:
		return nullptr;
	}
}

bool is_idle(BackendState state)
{
	return state == STATE_IDLE || state == STATE_IDLEINTRANSACTION ||
	       state == STATE_IDLEINTRANSACTION_ABORTED;
}

// What pg_stat_activity shows of this backend; nullptr before it does (pgstat_bestart).
const PgBackendStatus *my_entry()
{
	return MyBEEntry != nullptr && MyBEEntry->st_procpid == MyProcPid ? MyBEEntry
	                                                                  : nullptr;
}

PathEnd path_end(Cause cause)
{
	switch (cause)
	{
	case Cause::client_closed:
	case Cause::client_vanished:
		return PathEnd::client_spoke;
	case Cause::keepalive_timeout:
	case Cause::user_timeout:
	case Cause::dead_after:
		return PathEnd::unanswered;
	case Cause::reset:
		return PathEnd::reset;
	default:
		return PathEnd::none;
	}
}

// What pg_stat_activity shows of this backend.
void take_activity(Event &event)
{
	if (my_entry() == nullptr || event.cause == Cause::authentication_failed)
		return;
	event.role = MyBEEntry->st_userid;
	event.state = MyBEEntry->st_state;
	if (MyBEEntry->st_xact_start_timestamp != 0)
		event.transaction_us = event.ended_at - MyBEEntry->st_xact_start_timestamp;
}

Event new_event(Port *port, Cause cause)
{
	Event event = {};
	event.ended_at = GetCurrentTimestamp();
	event.pid = MyProcPid;
	event.cause = cause;
	event.kind = am_walsender ? BackendKind::replication : BackendKind::client;
	strlcpy(event.role_name, port->user_name ? port->user_name : "", name_bytes);
	strlcpy(event.application_name, application_name ? application_name : "", name_bytes);
	event.connected_us = event.ended_at - MyStartTimestamp;
	event.transaction_us = not_known;
	return event;
}

std::int64_t silent_ms(const TcpInfo &info)
{
	return std::min(info.last_data_recv, info.last_ack_recv);
}

char *client_text(const Event &event)
{
	if (event.transport == Transport::unix_socket)
		return pstrdup("[local]");
	Endpoint client = unmapped(event.client);
	char *address = TextDatumGetCString(DirectFunctionCall1(
		network_host, address_datum(client.family, client.address.data())));
	return psprintf("%s:%u", address, client.port);
}

// PostgreSQL says "could not receive data from client" at best.
void log_lost(const Event &event)
{
	if (!log_lost_connections || !is_lost(event.cause))
		return;

	char silence[64] = "";
	if (event.info.received > 0)
		snprintf(silence, sizeof(silence), ", silent for %.3f s",
		         silent_ms(event.info) / 1000.0);
	// With track_activities off, nobody knows of any.
	char transaction[64] = "";
	if (event.transaction_us == not_known && event.state != STATE_DISABLED)
		strlcpy(transaction, ", no transaction open", sizeof(transaction));
	else if (event.transaction_us != not_known)
		snprintf(transaction, sizeof(transaction), ", transaction open for %.3f s",
		         event.transaction_us / 1e6);
	const char *state = state_name(event.state);
	ereport(LOG_SERVER_ONLY,
	        (errmsg("lost connection to client %s: %s, policy %s%s%s%s%s",
	                client_text(event), cause_name(event.cause),
	                event.governed ? "\"" : "none", event.governed ? event.policy : "",
	                event.governed ? "\"" : "", silence, transaction),
	         errdetail("%s%s%s", state ? state : "no state", event.detail[0] ? "; " : "",
	                   event.detail),
	         errhidestmt(true), errhidecontext(true)));
}

char failed_authentication[detail_bytes];

void add_failed_authentication(int, Datum)
{
	Event event = new_event(MyProcPort, Cause::authentication_failed);
	if (MyProcPort->database_name != nullptr)
		strlcpy(event.database, MyProcPort->database_name, name_bytes);
	event.transport = MyProcPort->raddr.addr.ss_family == AF_UNIX ? Transport::unix_socket
	                                                              : Transport::tcp;
	SocketId socket = {};
	if (event.transport == Transport::tcp)
		read_socket_id(MyProcPort->sock, socket);
	event.client = socket.remote;
	strlcpy(event.detail, failed_authentication, detail_bytes);
	add_event(event);
	count_end("", event.cause);
}

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

void add_if_received(RowValues<event_columns> &row, const Event &event, size_t offset,
                     std::uint64_t value)
{
	if (event.info.received >= offset + sizeof(value))
		row.add(Int64GetDatum(static_cast<std::int64_t>(value)));
	else
		row.add_null();
}

void add_kernel_view(RowValues<event_columns> &row, const Event &event)
{
	if (event.info.received == 0)
	{
		row.add_nulls_to(row.count + 5);
		return;
	}
	row.add(Int32GetDatum(event.info.probes));
	row.add(Int32GetDatum(event.info.retransmits));
	row.add(Float8GetDatum(event.info.rtt / 1000.0));
	add_if_received(row, event, offsetof(TcpInfo, bytes_sent), event.info.bytes_sent);
	add_if_received(row, event, offsetof(TcpInfo, bytes_received),
	                event.info.bytes_received);
}

void add_row(ReturnSetInfo *result, const Event &event)
{
	RowValues<event_columns> row;
	row.add(TimestampTzGetDatum(event.ended_at));
	row.add(Int32GetDatum(event.pid));
	row.add_text(cause_name(event.cause));
	row.add_text(event.governed ? event.policy : nullptr);
	row.add_name(event.database[0] ? event.database : nullptr);
	row.add_name(event.role_name[0] ? event.role_name : nullptr);
	row.add_text(event.application_name);
	row.add_text(event.kind == BackendKind::replication ? "walsender" : "client backend");
	add_socket(row, event);
	row.add(microseconds_datum(event.connected_us));
	if (event.info.received > 0)
		row.add(interval_datum(silent_ms(event.info)));
	else
		row.add_null();
	row.add_text(state_name(event.state));
	if (event.transaction_us == not_known)
		row.add_null();
	else
		row.add(microseconds_datum(event.transaction_us));
	add_kernel_view(row, event);
	row.add_text(event.detail[0] ? event.detail : nullptr);
	tuplestore_putvalues(result->setResult, result->setDesc, row.values, row.nulls);
}

} // namespace

Size events_size()
{
	return add_size(offsetof(Ring, events), mul_size(max_events, sizeof(Event)));
}

void init_events(LWLock *lock)
{
	bool found;
	ring = static_cast<Ring *>(
		ShmemInitStruct("keepalive_guard events", events_size(), &found));
	if (found)
		return;
	ring->lock = lock;
	ring->written = 0;
}

Event *copy_events(int *count)
{
	auto *copy = static_cast<Event *>(
		palloc_extended(max_events * sizeof(Event), MCXT_ALLOC_HUGE));
	LWLockAcquire(ring->lock, LW_SHARED);
	std::uint64_t written = ring->written;
	*count = static_cast<int>(std::min<std::uint64_t>(written, max_events));
	for (int i = 0; i < *count; i++)
		copy[i] = ring->events[(written - 1 - i) % max_events];
	LWLockRelease(ring->lock);
	return copy;
}

PathEvidence path_evidence_of(const Session &session, BackendState state,
                              std::int64_t state_ms, const TcpInfo &info, PathEnd end)
{
	if (session.transport != Transport::tcp || !is_idle(state) || info.received == 0)
		return {PathOutcome::untold, 0};
	IdlePath path = {};
	path.quiet = std::min<std::int64_t>(state_ms, info.last_data_sent);
	path.options_changed = monotonic_ms() - session.probes_changed;
	path.silent = silent_ms(info);
	if (session.keepalive)
		path.keepalive_idle =
			session.in_force[static_cast<int>(Setting::keepalives_idle)] *
			INT64CONST(1000);
	path.unanswered = info.probes;
	path.end = end;
	return path_evidence(path);
}

void record_end(const Session &session, const Wanted &wanted, const Ending &ending,
                Port *port)
{
	Event event = new_event(port, ending.cause);
	event.transport = session.transport;
	event.governed = wanted.governed;
	strlcpy(event.policy, wanted.policy, name_bytes);
	strlcpy(event.database, session.database, name_bytes);
	event.client = session.socket.remote;
	event.info = ending.info;
	if (my_entry() != nullptr)
		event.path = path_evidence_of(
			session, MyBEEntry->st_state,
			(event.ended_at - MyBEEntry->st_state_start_timestamp) / 1000, ending.info,
			path_end(ending.cause));
	strlcpy(event.detail, ending.detail, detail_bytes);
	take_activity(event);

	add_event(event);
	count_end(wanted.governed ? wanted.policy : "", ending.cause);
	log_lost(event);
}

void record_failed_authentication(const char *message)
{
	if (failed_authentication[0] == '\0' && shared != nullptr)
	{
		strlcpy(failed_authentication, message[0] ? message : "?", detail_bytes);
		before_shmem_exit(add_failed_authentication, 0);
	}
}

} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_events(PG_FUNCTION_ARGS)
{
	using namespace guard::pg;

	require_preload();
	InitMaterializedSRF(fcinfo, 0);
	auto *result = reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
	bool sees_all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);

	int count;
	const Event *events = copy_events(&count);
	for (int i = 0; i < count; i++)
		if (sees_all || (OidIsValid(events[i].role) &&
		                 has_privs_of_role(GetUserId(), events[i].role)))
			add_row(result, events[i]);
	return 0;
}
