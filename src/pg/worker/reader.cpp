#include "pg/postgres.hpp"

#include "pg/worker/reader.hpp"

#include "model/match.hpp"
#include "pg/compat.hpp"
#include "pg/policy/row.hpp"
#include "pg/settings.hpp"
#include "pg/shared/state.hpp"
#include "pg/worker/background_worker.hpp"

#include <algorithm>

extern "C"
{
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/tuptable.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
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

Oid extension_schema(Oid extension)
{
	Relation catalog = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(extension));
	SysScanDesc scan =
		systable_beginscan(catalog, ExtensionOidIndexId, true, nullptr, 1, &key);
	HeapTuple tuple = systable_getnext(scan);
	Oid schema = HeapTupleIsValid(tuple)
	                 ? reinterpret_cast<Form_pg_extension>(GETSTRUCT(tuple))->extnamespace
	                 : InvalidOid;
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return schema;
}

// The extension's own table, not one that somebody put in its place.
Oid policy_table()
{
	Oid extension = get_extension_oid("keepalive_guard", true);
	if (!OidIsValid(extension))
		return InvalidOid;
	Oid table = get_relname_relid("keepalive_policy", extension_schema(extension));
	if (!OidIsValid(table) || get_rel_relkind(table) != RELKIND_RELATION ||
	    getExtensionOfObject(RelationRelationId, table) != extension)
		return InvalidOid;
	return table;
}

struct PolicyList
{
	Rule *rules;
	Policy *policies;
	std::uint32_t count;   // may be more than there is room for
	std::uint32_t enabled; // of those
	std::uint32_t skipped;
};

void log_skipped(const char *policy, const RowProblem &problem)
{
	ereport(
		LOG,
		(errmsg("keepalive_guard: skipping keepalive policy \"%s\": invalid value for "
	            "column \"%s\": %s",
	            policy, problem.column, problem.value),
	     errdetail("%s", problem.detail)));
}

// Reads the rows as plain data: a heap scan runs no code of a user's.
bool scan_table(Relation table, PolicyList *list)
{
	PolicyColumns columns;
	const char *missing;
	if (!find_policy_columns(RelationGetDescr(table), &columns, &missing))
	{
		ereport(LOG,
		        (errmsg("keepalive_guard: keepalive_policy has no column \"%s\" of the "
		                "expected type",
		                missing)));
		return false;
	}

	std::uint32_t room = shared->policy_room;
	list->rules =
		static_cast<Rule *>(palloc_extended(room * sizeof(Rule), MCXT_ALLOC_HUGE));
	list->policies =
		static_cast<Policy *>(palloc_extended(room * sizeof(Policy), MCXT_ALLOC_HUGE));

	MemoryContext row_context = AllocSetContextCreate(
		CurrentMemoryContext, "keepalive policy", ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *slot = table_slot_create(table, nullptr);
	TableScanDesc scan = compat::begin_scan(table, GetActiveSnapshot());
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext previous = MemoryContextSwitchTo(row_context);
		bool should_free;
		HeapTuple tuple = ExecFetchSlotHeapTuple(slot, false, &should_free);
		PolicyRow row;
		RowProblem problem;
		if (!read_policy_row(tuple, RelationGetDescr(table), columns, &row, &problem))
		{
			// Only by hands that kept the table's trigger from running.
			log_skipped(row.policy.name, problem);
			list->skipped++;
		}
		else
		{
			if (list->count < room)
			{
				list->rules[list->count] = row.rule;
				list->policies[list->count] = row.policy;
			}
			list->count++;
			list->enabled += row.rule.enabled;
		}
		MemoryContextSwitchTo(previous);
		MemoryContextReset(row_context);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return true;
}

// Those that are not enabled come last.
void sort_in_match_order(PolicyList *list)
{
	auto *order = static_cast<std::uint32_t *>(
		palloc_extended(list->count * sizeof(std::uint32_t), MCXT_ALLOC_HUGE));
	auto *rules = static_cast<Rule *>(
		palloc_extended(list->count * sizeof(Rule) + 1, MCXT_ALLOC_HUGE));
	auto *policies = static_cast<Policy *>(
		palloc_extended(list->count * sizeof(Policy) + 1, MCXT_ALLOC_HUGE));

	for (std::uint32_t i = 0; i < list->count; i++)
		order[i] = i;
	std::sort(order, order + list->count,
	          [list](std::uint32_t a, std::uint32_t b)
	          {
				  if (list->rules[a].enabled != list->rules[b].enabled)
					  return list->rules[a].enabled;
				  return before(list->rules[a], list->policies[a], list->rules[b],
		                        list->policies[b]);
			  });
	for (std::uint32_t i = 0; i < list->count; i++)
	{
		rules[i] = list->rules[order[i]];
		policies[i] = list->policies[order[i]];
	}
	list->rules = rules;
	list->policies = policies;
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
		state =
			scan_table(table, &list) ? PolicyState::compiled : PolicyState::unreadable;
		table_close(table, AccessShareLock);
	}
	if (state == PolicyState::compiled && list.count > shared->policy_room)
		state = PolicyState::no_room;

	log_state(state, list);
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

	for (;;)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		notice_end_of_recovery();
		bool standby = RecoveryInProgress();
		if (standby)
			AcceptInvalidationMessages();
		if (out_of_date() || (standby && table_changed))
			read_policies();

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
