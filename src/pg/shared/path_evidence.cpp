#include "pg/postgres.hpp"

#include "pg/shared/path_evidence.hpp"

#include "pg/clock.hpp"

#include <algorithm>

namespace guard::pg
{
namespace
{

bool is_idle(BackendState state)
{
	return state == STATE_IDLE || state == STATE_IDLEINTRANSACTION ||
	       state == STATE_IDLEINTRANSACTION_ABORTED;
}

} // namespace

PathEvidence path_evidence_of(const Session &session, BackendState state,
                              std::int64_t state_ms, const TcpInfo &info, PathEnd end)
{
	if (session.transport != Transport::tcp || !is_idle(state) || info.received == 0)
		return {PathOutcome::unknown, 0};
	IdlePath path = {};
	path.quiet = std::min<std::int64_t>(state_ms, info.last_data_sent);
	path.options_changed = monotonic_ms() - session.probes_changed;
	path.silent = silent_for(info);
	if (session.keepalive)
		path.keepalive_idle =
			session.in_force[static_cast<int>(Setting::keepalives_idle)] *
			INT64CONST(1000);
	path.unanswered = info.probes;
	path.end = end;
	return path_evidence(path);
}

} // namespace guard::pg
