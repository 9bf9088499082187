// keepalive_sockets()
#include "pg/postgres.hpp"

#include "kernel/read_sockets.hpp"
#include "pg/compat.hpp"
#include "pg/functions/malloced.hpp"
#include "pg/functions/read_report.hpp"
#include "pg/functions/rows.hpp"

#include <algorithm>

extern "C"
{
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/postmaster.h"

	PG_FUNCTION_INFO_V1(keepalive_sockets);
}

namespace guard::pg
{
namespace
{

constexpr Column sockets_columns[] = {
	{"pid", INT4OID},          {"backend_type", TEXTOID},
	{"kind", TEXTOID},         {"local_addr", INETOID},
	{"local_port", INT4OID},   {"remote_addr", INETOID},
	{"remote_port", INT4OID},  {"tcp_state", TEXTOID},
	{"timer", TEXTOID},        {"timer_expires", INTERVALOID},
	{"recv_queue", INT8OID},   {"send_queue", INT8OID},
	{"accept_queue", INT8OID}, {"accept_queue_limit", INT8OID},
	{"rtt_ms", FLOAT8OID},
};

// The server's processes as pg_stat_activity has them, ordered by pid.
struct Processes
{
	pid_t *pids;
	BackendType *types;
	int count;
};

Processes list_processes()
{
	struct Process
	{
		pid_t pid;
		BackendType type;
	};
	int count = pgstat_fetch_stat_numbackends();
	auto *known = static_cast<Process *>(palloc((count + 1) * sizeof(Process)));
	Processes processes = {};
	for (int i = 1; i <= count; i++)
		if (LocalPgBackendStatus *status = compat::local_backend_status(i))
			known[processes.count++] = {status->backendStatus.st_procpid,
			                            status->backendStatus.st_backendType};
	std::sort(known, known + processes.count,
	          [](const Process &a, const Process &b) { return a.pid < b.pid; });

	processes.pids = static_cast<pid_t *>(palloc((count + 1) * sizeof(pid_t)));
	processes.types =
		static_cast<BackendType *>(palloc((count + 1) * sizeof(BackendType)));
	for (int i = 0; i < processes.count; i++)
	{
		processes.pids[i] = known[i].pid;
		processes.types[i] = known[i].type;
	}
	return processes;
}

// As in pg_stat_activity; nullptr for a process that is not in it, or not yet.
const char *backend_type(const Processes &processes, pid_t pid)
{
	if (pid == PostmasterPid)
		return "postmaster";
	const pid_t *end = processes.pids + processes.count;
	const pid_t *found = std::lower_bound(processes.pids, const_cast<pid_t *>(end), pid);
	if (found == end || *found != pid)
		return nullptr;
	BackendType type = processes.types[found - processes.pids];
	const char *worker =
		type == B_BG_WORKER ? GetBackgroundWorkerTypeByPid(pid) : nullptr;
	return worker != nullptr ? worker : GetBackendTypeDesc(type);
}

const char *kind_name(SocketKind kind)
{
	switch (kind)
	{
	case SocketKind::listener:
		return "listener";
	case SocketKind::client:
		return "client";
	case SocketKind::outbound:
		return "outbound";
	}
	return nullptr;
}

void add_listener(RowValues<sockets_columns> &row, const SocketFacts &facts)
{
	row.add_nulls(2); // the remote end
	row.add_text(tcp_state_name(facts.state));
	row.add_nulls(4); // timer and queues
	row.add(Int64GetDatum(facts.recv_queue));
	if (facts.send_queue > 0) // unknown to /proc
		row.add(Int64GetDatum(facts.send_queue));
}

void add_connection(RowValues<sockets_columns> &row, const SocketFacts &facts)
{
	row.add_endpoint(facts.id.remote);
	row.add_text(tcp_state_name(facts.state));
	row.add_text(timer_name(facts.timer));
	if (facts.timer == Timer::off)
		row.add_null();
	else
		row.add(interval_datum(facts.timer_expires_ms));
	row.add(Int64GetDatum(facts.recv_queue));
	row.add(Int64GetDatum(facts.send_queue));
	row.add_nulls(2); // the accept queue
	if (facts.info.received > 0)
		row.add(Float8GetDatum(facts.info.rtt / 1000.0));
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_sockets(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, sockets_columns);

	Processes processes = list_processes();
	ServerSocket **sockets = freed_with_context<ServerSocket>();
	size_t count;
	report_reading(read_server_sockets(IsUnderPostmaster ? PostmasterPid : MyProcPid,
	                                   processes.pids, processes.count, PostPortNumber,
	                                   sockets, &count),
	               ERROR);

	for (size_t i = 0; i < count; i++)
	{
		const ServerSocket &socket = (*sockets)[i];
		RowValues<sockets_columns> row;
		row.add(Int32GetDatum(socket.pid));
		row.add_text(backend_type(processes, socket.pid));
		row.add_text(kind_name(socket.kind));
		row.add_endpoint(socket.facts.id.local);
		if (socket.kind == SocketKind::listener)
			add_listener(row, socket.facts);
		else
			add_connection(row, socket.facts);
		row.add_remaining_nulls();
		put_row(result, row);
	}
	return 0;
}
