#include "pg/postgres.hpp"

#include "pg/worker/reader.hpp"

#include "pg/clock.hpp"
#include "pg/compat.hpp"
#include "pg/policy/change.hpp"
#include "pg/policy/table.hpp"
#include "pg/settings.hpp"
#include "pg/shared/state.hpp"
#include "pg/worker/background_worker.hpp"

extern "C"
{
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/extension.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"
}

namespace guard::pg
{
namespace
{

// How long the reader stays after an edit: long enough to serve a burst of
// edits, and well below the 5 s for which DROP DATABASE waits
// (CountOtherDBBackends).  Also how often it looks on a standby.
constexpr long linger_ms = 1000;

// A relation has changed that may be, or be about to become, the policy table.
bool table_changed = true;

void on_relation_change(Datum, Oid)
{
	table_changed = true;
}

void on_database_change(Datum, compat::SysCacheId, uint32)
{
	table_changed = true;
}

// A standby learns of changed roles only in this way.
void on_role_change(Datum, compat::SysCacheId, uint32)
{
	call_for_attention();
}

// From then on the table is read again and again.
void note_trigger(bool always_fires)
{
	const uint32 unnoticed = !always_fires;
	if (pg_atomic_exchange_u32(&shared->edits_unnoticed, unnoticed) < unnoticed)
		ereport(LOG,
		        (errmsg("keepalive_guard: the triggers of table keepalive_policy do not "
		                "always fire"),
		         errdetail("The table is read every second, but its rows are not checked "
		                   "when they are edited."),
		         errhint("Use ALTER TABLE ... ENABLE ALWAYS TRIGGER; keepalive_check() "
		                 "has the statements.")));
}

// Logs problems once, however often they are read.
bool read_table(Relation table, PolicyList *list)
{
	bool is_read = read_policy_table(table, shared->policy_room, DEBUG2, list);
	if (list->problems != 0 && list->problems != shared->problems)
	{
		*list = {};
		is_read = read_policy_table(table, shared->policy_room, LOG, list);
	}
	shared->problems = list->problems;
	return is_read;
}

bool edits_outstanding()
{
	return pg_atomic_read_u64(&shared->compiled) < pg_atomic_read_u64(&shared->edited);
}

void log_state(PolicyState state, const PolicyList &list)
{
	auto previous = static_cast<PolicyState>(pg_atomic_read_u32(&shared->policy_state));
	// The line about a committed edit has the number of policies (edits.hpp).
	const bool is_other_count = state == PolicyState::compiled &&
	                            list.enabled != shared->policy_count &&
	                            !edits_outstanding();
	if (state == previous && state != PolicyState::no_room && !is_other_count)
		return;

	switch (state)
	{
	case PolicyState::compiled:
		ereport(LOG, (errmsg_plural(
						 "keepalive_guard: %u keepalive policy of database \"%s\" is "
						 "in force",
						 "keepalive_guard: %u keepalive policies of database \"%s\" "
						 "are in force",
						 list.enabled, list.enabled, policy_database)));
		break;
	case PolicyState::no_extension:
		ereport(
			LOG,
			(errmsg("keepalive_guard: waiting for CREATE EXTENSION keepalive_guard in "
		            "database \"%s\"",
		            policy_database)));
		break;
	case PolicyState::no_table:
		ereport(LOG,
		        (errmsg("keepalive_guard: extension keepalive_guard in database \"%s\" "
		                "has no table keepalive_policy",
		                policy_database),
		         errdetail("%s", policies_still_in_force()),
		         errhint("The table was renamed, moved to another schema or removed "
		                 "from the extension.")));
		break;
	case PolicyState::unreadable:
		ereport(LOG, (errmsg("keepalive_guard: table keepalive_policy of database \"%s\" "
		                     "could not be read",
		                     policy_database),
		              errdetail("%s", policies_still_in_force())));
		break;
	case PolicyState::no_room:
		ereport(
			LOG,
			(errmsg("keepalive_guard: %u keepalive policies are more than "
		            "keepalive_guard.max_policies (%u)",
		            list.count, shared->policy_room),
		     errdetail("%s", policies_still_in_force()),
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
	if (!in_policy_database())
		proc_exit(0); // it was renamed, as a standby sees it
	pgstat_report_activity(STATE_RUNNING, "reading keepalive policies");

	PolicyList list = {};
	PolicyState state;
	bool trigger_fires = true;
	Oid oid = policy_table();
	Relation table = OidIsValid(oid) ? try_relation_open(oid, AccessShareLock) : nullptr;
	// After the lock: an older snapshot does not see the rows that a transaction inserts
	// after its TRUNCATE, and the table would be empty.
	PushActiveSnapshot(GetTransactionSnapshot());
	if (table == nullptr)
		state = OidIsValid(get_extension_oid("keepalive_guard", true))
		            ? PolicyState::no_table
		            : PolicyState::no_extension;
	else
	{
		state =
			read_table(table, &list) ? PolicyState::compiled : PolicyState::unreadable;
		trigger_fires = trigger_always_fires(table);
		relation_close(table, AccessShareLock);
	}
	note_trigger(trigger_fires);
	if (state == PolicyState::compiled && list.count > shared->policy_room)
		state = PolicyState::no_room;

	log_state(state, list);
	pg_atomic_fetch_add_u64(&shared->readings, 1);
	shared->policies_found = list.count;
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
	CacheRegisterSyscacheCallback(DATABASEOID, on_database_change, 0);
	CacheRegisterSyscacheCallback(AUTHOID, on_role_change, 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, on_role_change, 0);

	// The worker has a reason to start a reader, if only that the last one has failed.
	bool has_read = false;
	std::int64_t linger_until = 0;
	for (;;)
	{
		take_interrupts();
		notice_end_of_recovery();
		bool standby = RecoveryInProgress();
		if (standby)
			AcceptInvalidationMessages();
		const bool edits_unnoticed = pg_atomic_read_u32(&shared->edits_unnoticed) != 0;
		if (!has_read || out_of_date() || (standby && (table_changed || edits_unnoticed)))
		{
			if (edits_outstanding())
				linger_until = monotonic_ms() + linger_ms;
			read_policies();
		}
		has_read = true;

		// The worker limits how often the table is read for other reasons than an edit.
		const std::int64_t now = monotonic_ms();
		if (!standby && (now >= linger_until || (out_of_date() && !edits_outstanding())))
			break;
		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
		          standby ? linger_ms : static_cast<long>(linger_until - now),
		          PG_WAIT_EXTENSION);
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
