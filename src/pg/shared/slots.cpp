#include "pg/postgres.hpp"

#include "pg/shared/slots.hpp"

namespace guard::pg
{

SlotState read_slot(const Slot &slot, Session &session, Wanted &wanted)
{
	const bool has_session = slot.session.read(session);
	if (has_session && session.pid == 0)
		return SlotState::free;
	const bool has_wanted = slot.wanted.read(wanted);
	if (!has_session)
		session = {};
	if (!has_wanted)
		wanted = {};
	return has_session && has_wanted ? SlotState::readable : SlotState::unreadable;
}

bool is_overdue(const Slot &slot)
{
	const bool overdue =
		pg_atomic_read_u32(const_cast<pg_atomic_uint32 *>(&slot.overdue)) != 0;
	pg_read_barrier();
	return overdue;
}

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
