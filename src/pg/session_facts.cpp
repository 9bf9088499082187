#include "pg/postgres.hpp"

#include "pg/session_facts.hpp"

namespace guard::pg
{

SocketFacts *facts_of_sessions(const SessionList &list, Details details)
{
	auto *wanted =
		static_cast<SessionSocket *>(palloc0((list.count + 1) * sizeof(SessionSocket)));
	auto *facts =
		static_cast<SocketFacts *>(palloc0((list.count + 1) * sizeof(SocketFacts)));
	for (int i = 0; i < list.count; i++)
		if (list.sessions[i].visible)
			wanted[i] = {list.sessions[i].session.pid, list.sessions[i].session.socket};
	report_reading(read_session_sockets(wanted, list.count, facts, details));
	return facts;
}

void report_reading(const ReadOutcome &outcome)
{
	static bool told = false;

	if (outcome.kind == ReadOutcome::failed)
		ereport(ERROR,
		        (errcode(ERRCODE_SYSTEM_ERROR),
		         errmsg("could not read sockets from the kernel: %s", outcome.message)));
	if (outcome.kind == ReadOutcome::refused && !told)
	{
		told = true;
		ereport(NOTICE,
		        (errmsg("sockets are read from /proc/net/tcp, which does not have all"),
		         errdetail("Netlink is refused to this server: %s.", outcome.message),
		         errhint("Allow AF_NETLINK sockets of NETLINK_SOCK_DIAG in the sandbox "
		                 "(seccomp, RestrictAddressFamilies) to see struct tcp_info.")));
	}
}

} // namespace guard::pg
