#include "pg/postgres.hpp"

#include "pg/worker/reader.hpp"

#include "pg/compat.hpp"
#include "pg/policy/table.hpp"
#include "pg/settings.hpp"
#include "pg/shared/state.hpp"
#include "pg/worker/background_worker.hpp"

extern "C"
{
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"
}

namespace guard::pg
{
namespace
{

// How long the reader stays after its last reading: long enough to serve a burst of
// edits, and well below the 5 s for which DROP DATABASE waits
// (CountOtherDBBackends).  Also how often it looks on a standby.
constexpr long linger_ms = 1000;

// A relation has changed that may be, or be about to become, the policy table.
bool table_changed = true;

void on_relation_change(Datum, Oid)
{
	table_changed = true;
}

void log_state(PolicyState state, const PolicyList &list)
{
	auto previous = static_cast<PolicyState>(pg_atomic_read_u32(&shared->policy_state));
	if (state == previous && state != PolicyState::no_room)
		return;

	switch (state)
	{
	case PolicyState::compiled:
		ereport(
			LOG,
			(errmsg("keepalive_guard: %u keepalive policies of database \"%s\" are in "
		            "force",
		            list.count, policy_database)));
		break;
	case PolicyState::no_extension:
		ereport(
			LOG,
			(errmsg("keepalive_guard: waiting for CREATE EXTENSION keepalive_guard in "
		            "database \"%s\"",
		            policy_database)));
		break;
	case PolicyState::no_room:
		ereport(
			LOG,
			(errmsg("keepalive_guard: %u keepalive policies are more than "
		            "keepalive_guard.max_policies (%u)",
		            list.count, shared->policy_room),
		     errdetail("The policies that were in force before stay in force."),
		     errhint("Increase keepalive_guard.max_policies and restart the server.")));
		break;
	default:
		break;
	}
}

// One reading of the table, in a transaction of its own.
void read_policies()
{
	table_changed = false;
	std::uint64_t request = pg_atomic_read_u64(&shared->requested);

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, "reading keepalive policies");

	PolicyList list = {};
	PolicyState state;
	Oid oid = policy_table();
	Relation table = OidIsValid(oid) ? try_relation_open(oid, AccessShareLock) : nullptr;
	if (table == nullptr)
		state = PolicyState::no_extension;
	else
	{
		state = read_policy_table(table, shared->policy_room, LOG, &list)
		            ? PolicyState::compiled
		            : PolicyState::unreadable;
		relation_close(table, AccessShareLock);
	}
	if (state == PolicyState::compiled && list.count > shared->policy_room)
		state = PolicyState::no_room;

	log_state(state, list);
	pg_atomic_fetch_add_u64(&shared->readings, 1);
	shared->rows_skipped = list.skipped;
	if (state == PolicyState::compiled || state == PolicyState::no_extension)
	{
		sort_in_match_order(&list);
		publish_policies(list.rules, list.policies, list.enabled, list.count, state,
		                 request);
	}
	else
		keep_policies(state, request);

	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, nullptr);
}

bool out_of_date()
{
	return pg_atomic_read_u64(&shared->compiled) < pg_atomic_read_u64(&shared->requested);
}

// Wakes the worker, which may not be the one that has started this process.
void leave(int, Datum)
{
	uint32 mine = compat::my_proc_number() + 1;
	if (pg_atomic_compare_exchange_u32(&shared->reader, &mine, 0))
		wake_workers();
}

// Makes this process the only policy reader.  False if there is one: a worker that was
// restarted cannot know of a reader that is still being started.
bool become_the_reader()
{
	on_shmem_exit(leave, 0);
	uint32 none = 0;
	return pg_atomic_compare_exchange_u32(&shared->reader, &none,
	                                      compat::my_proc_number() + 1);
}

void run()
{
	CacheRegisterRelcacheCallback(on_relation_change, 0);

	// The worker has a reason to start a reader, if only that the last one has failed.
	bool has_read = false;
	for (;;)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		notice_end_of_recovery();
		bool standby = RecoveryInProgress();
		if (standby)
			AcceptInvalidationMessages();
		if (!has_read || out_of_date() || (standby && table_changed))
			read_policies();
		has_read = true;

		int events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
		                       linger_ms, PG_WAIT_EXTENSION);
		if ((events & WL_TIMEOUT) && !RecoveryInProgress() && !out_of_date())
			break;
	}
}

} // namespace

void notice_end_of_recovery()
{
	if (RecoveryInProgress())
		pg_atomic_write_u32(&shared->recovering, 1);
	else if (pg_atomic_exchange_u32(&shared->recovering, 0) != 0)
		request_update();
}

bool start_policy_reader(BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = background_worker("keepalive_guard policy reader",
	                                            "keepalive_guard_policy_reader");
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

} // namespace guard::pg

extern "C" void keepalive_guard_policy_reader(Datum)
{
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	// Before the connection, for which a process may have to wait.
	if (!guard::pg::become_the_reader())
		proc_exit(0);
	BackgroundWorkerInitializeConnection(guard::pg::policy_database, nullptr,
	                                     BGWORKER_BYPASS_ALLOWCONN);
	guard::pg::run();
	proc_exit(0);
}
