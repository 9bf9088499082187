#include "pg/postgres.hpp"

#include "pg/shared/events.hpp"

#include "pg/settings.hpp"

#include <algorithm>

extern "C"
{
#include "storage/shmem.h"
}

namespace guard::pg
{
namespace
{

struct Ring
{
	LWLock *lock;
	std::uint64_t written; // so far; the next one goes to written % max_events
	Event events[FLEXIBLE_ARRAY_MEMBER];
};

Ring *ring = nullptr;

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

void add_event(const Event &event)
{
	LWLockAcquire(ring->lock, LW_EXCLUSIVE);
	ring->events[ring->written % max_events] = event;
	ring->written++;
	LWLockRelease(ring->lock);
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

} // namespace guard::pg
