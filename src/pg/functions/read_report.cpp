#include "pg/postgres.hpp"

#include "pg/functions/read_report.hpp"

namespace guard::pg
{

void report_reading(const ReadOutcome &outcome, int elevel)
{
	static bool logged = false;

	if (outcome.kind == ReadOutcome::failed)
		ereport(elevel,
		        (errcode(ERRCODE_SYSTEM_ERROR),
		         errmsg("could not read sockets from the kernel: %s", outcome.message)));
	if (outcome.kind == ReadOutcome::refused && !logged)
	{
		logged = true;
		ereport(NOTICE,
		        (errmsg("netlink is unavailable, using /proc/net/tcp"),
		         errdetail("Netlink is refused to this server: %s.", outcome.message),
		         errhint("Allow AF_NETLINK sockets of NETLINK_SOCK_DIAG in the sandbox "
		                 "(seccomp, RestrictAddressFamilies) to see struct tcp_info.")));
	}
}

} // namespace guard::pg
