#include "pg/postgres.hpp"

#include "pg/session/record.hpp"

#include "pg/endpoint.hpp"
#include "pg/session/lost_connection.hpp"
#include "pg/shared/path_evidence.hpp"
#include "pg/shared/state.hpp"
#include "pg/shared/statistics.hpp"

extern "C"
{
#include "libpq/libpq.h"
#include "pgstat.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "utils/backend_status.h"
#include "utils/timestamp.h"
}

namespace guard::pg
{
namespace
{

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
	event.transport =
		port->raddr.addr.ss_family == AF_UNIX ? Transport::unix_socket : Transport::tcp;
	// The socket forgets its client's address with a reset.
	event.client = endpoint_of(port->raddr);
	event.kind = am_walsender ? BackendKind::replication : BackendKind::client;
	strlcpy(event.role_name, port->user_name ? port->user_name : "", name_bytes);
	strlcpy(event.application_name, application_name ? application_name : "", name_bytes);
	event.connected_us = event.ended_at - MyStartTimestamp;
	event.transaction_us = not_known;
	return event;
}

char failed_authentication[detail_bytes];

void add_failed_authentication(int, Datum)
{
	Event event = new_event(MyProcPort, Cause::authentication_failed);
	if (MyProcPort->database_name != nullptr)
		strlcpy(event.database, MyProcPort->database_name, name_bytes);
	set_detail(event, failed_authentication);
	add_event(event);
	count_end({}, event.cause);
}

} // namespace

void record_end(const Session &session, const Wanted &wanted, const Ending &ending,
                Port *port)
{
	Event event = new_event(port, ending.cause);
	set_policies(event, wanted.policies);
	strlcpy(event.database, session.database, name_bytes);
	event.tcp = tcp_figures(ending.info);
	if (my_entry() != nullptr)
		event.path = path_evidence_of(
			session, MyBEEntry->st_state,
			(event.ended_at - MyBEEntry->st_state_start_timestamp) / 1000, ending.info,
			path_end(ending.cause));
	set_detail(event, ending.detail);
	take_activity(event);

	add_event(event);
	count_end(wanted.policies, ending.cause);
	log_lost_connection(event);
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
