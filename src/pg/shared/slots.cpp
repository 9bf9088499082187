#include "pg/postgres.hpp"

#include "pg/shared/slots.hpp"

namespace guard::pg
{

bool belongs_to(const Slot &slot, const Session &session)
{
	const volatile Session &now = slot.session.value;
	pg_read_barrier();
	return now.pid == session.pid && now.started == session.started;
}

bool needs_watching(const Session &session, const Wanted &wanted)
{
	const ComposedSettings &settings = wanted.settings;
	return session.pid != 0 && session.transport == Transport::tcp &&
	       (settings.dead_after_ms() != 0 || settings.stall_timeout_ms() != 0 ||
	        settings.log_dead_after_ms != 0 || settings.log_stall_timeout_ms != 0);
}

} // namespace guard::pg
