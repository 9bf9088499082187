#include "pg/postgres.hpp"

#include "pg/shared/would_end.hpp"

#include "pg/backend_entry.hpp"
#include "pg/shared/events.hpp"
#include "pg/shared/statistics.hpp"

extern "C"
{
#include "utils/timestamp.h"
}

namespace guard::pg
{

void record_would_end(std::uint32_t number, const Session &session, const Wanted &wanted,
                      const char *policy, const TcpInfo &info, const char *detail)
{
	Event event = {};
	event.ended_at = GetCurrentTimestamp();
	event.pid = session.pid;
	event.cause = Cause::would_end;
	event.kind = session.kind;
	event.transport = session.transport;
	event.client = session.socket.remote;
	event.connected_us = event.ended_at - session.started;
	event.transaction_us = not_known;
	event.tcp = tcp_figures(info);
	strlcpy(event.database, session.database, name_bytes);
	strlcpy(event.role_name, session.role_name, name_bytes);
	Backend backend;
	if (read_backend(number, backend) && backend.pid == session.pid &&
	    backend.started == session.started)
	{
		event.role = backend.role;
		event.state = backend.state;
		strlcpy(event.application_name, backend.application_name, name_bytes);
		if (backend.transaction_start != 0)
			event.transaction_us = event.ended_at - backend.transaction_start;
	}
	set_policies(event, wanted.policies);
	set_detail(event, detail);
	add_event(event);

	PolicyNames counted = {};
	counted.count = 1;
	strlcpy(counted.name[0], policy, name_bytes);
	count_end(counted, event.cause);
}

} // namespace guard::pg
