#include "pg/postgres.hpp"

#include "pg/shared/state.hpp"

#include "pg/settings.hpp"

extern "C"
{
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
}

namespace guard::pg
{

Shared *shared = nullptr;

namespace
{

// The parts follow each other, each on a cache line of its own.
Size rules_offset()
{
	return CACHELINEALIGN(sizeof(Shared));
}

Size policies_offset()
{
	return add_size(rules_offset(), CACHELINEALIGN(mul_size(max_policies, sizeof(Rule))));
}

Size slots_offset()
{
	return add_size(policies_offset(),
	                CACHELINEALIGN(mul_size(max_policies, sizeof(Policy))));
}

void wake(pg_atomic_uint32 *proc_plus_one)
{
	uint32 proc = pg_atomic_read_u32(proc_plus_one);
	if (proc != 0)
		SetLatch(&ProcGlobal->allProcs[proc - 1].procLatch);
}

// Whether a reading has brought what is compiled already.
bool are_compiled(const Rule *rules, const Policy *policies, std::uint32_t enabled,
                  std::uint32_t count)
{
	return pg_atomic_read_u64(&shared->generation) != 0 &&
	       shared->policy_count == enabled && shared->disabled_count == count - enabled &&
	       (count == 0 ||
	        (memcmp(shared_rules(), rules, count * sizeof(Rule)) == 0 &&
	         memcmp(shared_policies(), policies, count * sizeof(Policy)) == 0));
}

void raise_to(pg_atomic_uint64 *number, std::uint64_t to)
{
	std::uint64_t now = pg_atomic_read_u64(number);
	while (now < to && !pg_atomic_compare_exchange_u64(number, &now, to))
		;
}

template <typename T> T *part(Size offset)
{
	return reinterpret_cast<T *>(reinterpret_cast<char *>(shared) + offset);
}

} // namespace

Rule *shared_rules()
{
	return part<Rule>(rules_offset());
}
Policy *shared_policies()
{
	return part<Policy>(policies_offset());
}
Slot *shared_slots()
{
	return part<Slot>(slots_offset());
}

Size state_size()
{
	return add_size(slots_offset(), mul_size(MaxBackends, sizeof(Slot)));
}

void init_state(LWLock *policy_lock)
{
	bool found;
	shared =
		static_cast<Shared *>(ShmemInitStruct("keepalive_guard", state_size(), &found));
	if (found)
		return;
	memset(static_cast<void *>(shared), 0, state_size());
	shared->policy_lock = policy_lock;
	pg_atomic_init_u32(&shared->policy_state, static_cast<uint32>(PolicyState::not_read));
	pg_atomic_init_u64(&shared->policy_changes, 0);
	pg_atomic_init_u64(&shared->generation, 0);
	pg_atomic_init_u64(&shared->changed_at, 0);
	pg_atomic_init_u64(&shared->requested, 1); // the first reading
	pg_atomic_init_u64(&shared->edited, 1);
	pg_atomic_init_u64(&shared->compiled, 0);
	pg_atomic_init_u64(&shared->readings, 0);
	pg_atomic_init_u64(&shared->distributed, 0);
	pg_atomic_init_u32(&shared->edits_unnoticed, 0);
	pg_atomic_init_u32(&shared->attention, 0);
	pg_atomic_init_u32(&shared->enabled, enabled);
	pg_atomic_init_u32(&shared->worker, 0);
	pg_atomic_init_u32(&shared->reader, 0);
	pg_atomic_init_u32(&shared->recovering, 0);
	pg_atomic_init_u32(&shared->watching, 0);
	shared->configured.init();
	shared->policy_room = max_policies;
	shared->slot_count = MaxBackends;
	for (uint32 i = 0; i < shared->slot_count; i++)
	{
		SpinLockInit(&shared_slots()[i].handover);
		shared_slots()[i].session.init();
		shared_slots()[i].wanted.init();
		shared_slots()[i].observation.init();
		pg_atomic_init_u32(&shared_slots()[i].overdue, 0);
	}
}

void publish_policies(const Rule *rules, const Policy *policies, std::uint32_t enabled,
                      std::uint32_t count, PolicyState state, std::uint64_t request)
{
	Assert(count <= shared->policy_room);
	LWLockAcquire(shared->policy_lock, LW_EXCLUSIVE);
	if (!are_compiled(rules, policies, enabled, count))
	{
		pg_atomic_fetch_add_u64(&shared->policy_changes, 1);
		if (count > 0)
		{
			memcpy(shared_rules(), rules, count * sizeof(Rule));
			memcpy(shared_policies(), policies, count * sizeof(Policy));
		}
		shared->policy_count = enabled;
		shared->disabled_count = count - enabled;
		pg_atomic_fetch_add_u64(&shared->policy_changes, 1);
		pg_atomic_fetch_add_u64(&shared->generation, 1);
		pg_atomic_write_u64(&shared->changed_at, GetCurrentTimestamp());
		pg_atomic_write_u32(&shared->attention, 1);
	}
	LWLockRelease(shared->policy_lock);
	keep_policies(state, request);
}

void keep_policies(PolicyState state, std::uint64_t request)
{
	pg_atomic_write_u32(&shared->policy_state, static_cast<uint32>(state));
	pg_write_barrier();
	pg_atomic_write_u64(&shared->compiled, request);
	wake(&shared->worker);
}

const char *policies_still_in_force()
{
	const std::uint32_t count = shared->policy_count;
	if (count == 0)
		return "No policy is in force.";
	if (count == 1)
		return "The policy that was read before stays in force.";
	return psprintf("The %u policies that were read before stay in force.", count);
}

void wake_workers()
{
	wake(&shared->worker);
	wake(&shared->reader);
}

void call_for_attention()
{
	pg_atomic_write_u32(&shared->attention, 1);
	wake_workers();
}

std::uint64_t request_update()
{
	// Whoever sees the request is to see that it comes from an edit.
	uint64 last = pg_atomic_read_u64(&shared->requested);
	do
		raise_to(&shared->edited, last + 1);
	while (!pg_atomic_compare_exchange_u64(&shared->requested, &last, last + 1));
	wake_workers();
	return last + 1;
}

void request_reading()
{
	pg_atomic_add_fetch_u64(&shared->requested, 1);
	wake_workers();
}

bool policies_distributed()
{
	bool distributed =
		pg_atomic_read_u64(&shared->distributed) >= pg_atomic_read_u64(&shared->edited);
	pg_read_barrier();
	return distributed;
}

} // namespace guard::pg
