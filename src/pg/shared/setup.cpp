#include "pg/postgres.hpp"

#include "pg/shared/setup.hpp"

#include "pg/shared/edits.hpp"
#include "pg/shared/events.hpp"
#include "pg/shared/state.hpp"
#include "pg/shared/statistics.hpp"

extern "C"
{
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
}

namespace guard::pg
{
namespace
{

constexpr char tranche_name[] = "keepalive_guard";

// Numbers of the locks in the tranche.
enum Lock
{
	policy_lock,
	statistics_lock,
	lock_count,
};

shmem_request_hook_type previous_request_hook = nullptr;
shmem_startup_hook_type previous_startup_hook = nullptr;

void request()
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(add_size(state_size(), PG_CACHE_LINE_SIZE));
	RequestAddinShmemSpace(add_size(edits_size(), PG_CACHE_LINE_SIZE));
	RequestAddinShmemSpace(events_size());
	RequestAddinShmemSpace(statistics_size());
	RequestNamedLWLockTranche(tranche_name, lock_count);
}

void startup()
{
	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	LWLockPadded *locks = GetNamedLWLockTranche(tranche_name);
	init_state(&locks[policy_lock].lock);
	init_edits();
	init_events();
	init_statistics(&locks[statistics_lock].lock);
	LWLockRelease(AddinShmemInitLock);
}

} // namespace

void request_shared_memory()
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
}

} // namespace guard::pg
