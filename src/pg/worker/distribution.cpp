#include "pg/postgres.hpp"

#include "pg/worker/distribution.hpp"

#include "pg/backend_entry.hpp"
#include "pg/clock.hpp"
#include "pg/policy/matching.hpp"
#include "pg/shared/state.hpp"
#include "pg/worker/session_signal.hpp"

extern "C"
{
#include "access/xact.h"
#include "utils/memutils.h"
}

namespace guard::pg
{
namespace
{

// After that the worker sees to its other tasks, of which the watcher must not be late.
constexpr std::int64_t longest_turn_ms = 50;

std::uint32_t next_slot = 0;
bool signal_all = false;

// A session that is stopped while it writes its slot must not lose a change, nor one that
// could not be signalled: they are tried again so often.
constexpr long overdue_ms = 100;
std::uint32_t overdue_slots = 0;
std::int64_t next_try = 0;

// The session's role as PostgreSQL shows it, which may have been renamed since;
// InvalidOid as long as the session is starting.
Oid role_of(const Session &session, std::uint32_t number)
{
	Backend backend;
	const bool is_shown = read_backend(number, backend) && backend.pid == session.pid &&
	                      backend.started == session.started;
	return is_shown ? backend.role : InvalidOid;
}

Wanted wanted_for(const Session &session, std::uint32_t number)
{
	Wanted wanted = {};
	if (!pg_atomic_read_u32(&shared->enabled))
		return wanted;
	Oid role = role_of(session, number);
	const char *name = OidIsValid(role) ? GetUserNameFromId(role, true) : nullptr;
	if (name == nullptr)
		name = session.role_name; // it is starting, or its role was dropped

	std::uint64_t generation;
	compose_policies(connection_of(session, name), role, true, &wanted, &generation);
	return wanted;
}

bool same(const Wanted &a, const Wanted &b)
{
	return memcmp(static_cast<const Composition *>(&a),
	              static_cast<const Composition *>(&b), sizeof(Composition)) == 0;
}

// Has the backend in `slot` look at what it should have.  False if there was no room for
// that, and it is to be tried again.
bool call_session(const Slot &slot, const Session &seen)
{
	static int logged = 0;
	if (seen.update_signal == 0 ||
	    signal_session(slot, seen, seen.update_signal) != SignalOutcome::failed)
		return true;
	const int error = errno;
	const bool again = error == EMFILE || error == ENFILE || error == ENOMEM;
	if (error != logged)
		ereport(
			LOG,
			(errmsg("keepalive_guard: could not signal a session: %m"),
		     again ? errdetail("Until it can, policy changes do not reach that session.")
		           : errdetail("Policy changes do not reach connected sessions.")));
	logged = error;
	return !again;
}

// False if the session has ended meanwhile: what it should have is not for the one that
// has its slot now, which writes there itself as it starts.
bool write_wanted(Slot &slot, const Session &seen, const Wanted &wanted)
{
	SpinLockAcquire(&slot.handover);
	bool is_there = belongs_to(slot, seen);
	if (is_there)
		slot.wanted.write(wanted);
	SpinLockRelease(&slot.handover);
	return is_there;
}

void set_overdue(Slot &slot, bool overdue)
{
	const std::uint32_t flag = overdue ? 1 : 0;
	if (pg_atomic_read_u32(&slot.overdue) == flag)
		return;
	overdue_slots += overdue ? 1 : -1;
	pg_atomic_exchange_u32(&slot.overdue, flag); // a full barrier
}

void distribute_to(std::uint32_t number, bool always)
{
	Slot &slot = shared_slots()[number];
	Session session;
	Wanted current;
	const SlotState state = read_slot(slot, session, current);
	if (state == SlotState::unreadable)
	{
		set_overdue(slot, true);
		return;
	}
	bool done = true;
	if (state == SlotState::readable)
	{
		Wanted next = wanted_for(session, number);
		if (!same(current, next))
		{
			next.version = current.version + 1;
			if (write_wanted(slot, session, next))
				done = call_session(slot, session);
		}
		else if (always || session.applied != current.version)
			done = call_session(slot, session);
	}
	set_overdue(slot, !done);
}

MemoryContext begin_turn()
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	return AllocSetContextCreate(CurrentMemoryContext, "keepalive distribution",
	                             ALLOCSET_DEFAULT_SIZES);
}

void visit(std::uint32_t number, bool always, MemoryContext context)
{
	MemoryContext previous = MemoryContextSwitchTo(context);
	distribute_to(number, always);
	MemoryContextSwitchTo(previous);
	MemoryContextReset(context);
	CHECK_FOR_INTERRUPTS();
}

} // namespace

void begin_distribution(bool to_all)
{
	next_slot = 0;
	signal_all = to_all;
	// An earlier worker may have left some.
	overdue_slots = 0;
	for (std::uint32_t i = 0; i < shared->slot_count; i++)
		overdue_slots += is_overdue(shared_slots()[i]) ? 1 : 0;
}

bool continue_distribution()
{
	const std::int64_t until = monotonic_ms() + longest_turn_ms;
	MemoryContext context = begin_turn();
	while (next_slot < shared->slot_count && monotonic_ms() < until)
		visit(next_slot++, signal_all, context);
	CommitTransactionCommand();
	return next_slot == shared->slot_count;
}

long retry_overdue_slots()
{
	if (overdue_slots == 0)
		return -1;
	const std::int64_t now = monotonic_ms();
	if (now < next_try)
		return next_try - now;

	MemoryContext context = begin_turn();
	for (std::uint32_t i = 0; i < shared->slot_count; i++)
		if (is_overdue(shared_slots()[i]))
			visit(i, true, context);
	CommitTransactionCommand();
	next_try = monotonic_ms() + overdue_ms;
	return overdue_slots == 0 ? -1 : overdue_ms;
}

} // namespace guard::pg
