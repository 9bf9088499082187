// The trigger function of keepalive_policy: refuses invalid rows, and notes what a
// transaction changes.
#include "pg/postgres.hpp"

#include "pg/compat.hpp"
#include "pg/policy/change.hpp"
#include "pg/policy/likely_mistakes.hpp"
#include "pg/policy/row.hpp"
#include "pg/settings.hpp"
#include "pg/shared/state.hpp"
#include "pg/sql_definition.hpp"

extern "C"
{
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "replication/logicalworker.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

	PG_FUNCTION_INFO_V1(keepalive_policy_guard);
}

namespace guard::pg
{
namespace
{

// Whether `last_warned` was in another transaction.
bool is_new_transaction(TransactionId *last_warned)
{
	const TransactionId now = GetTopTransactionId();
	if (*last_warned == now)
		return false;
	*last_warned = now;
	return true;
}

// Policies count in one database only; elsewhere an edit would be a mistake.
void refuse_other_database()
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	                errmsg("keepalive policies cannot be edited in database \"%s\"",
	                       get_database_name(MyDatabaseId)),
	                errdetail("The policies of this cluster are those in database \"%s\" "
	                          "(keepalive_guard.database).",
	                          policy_database),
	                errhint("Connect to database \"%s\" and edit keepalive_policy there.",
	                        policy_database)));
}

// An error would stop the replication of all tables.
void warn_other_database()
{
	static TransactionId warned = InvalidTransactionId;
	if (is_new_transaction(&warned))
		ereport(
			WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		     errmsg("keepalive policies that are replicated to database \"%s\" have no "
		            "effect",
		            get_database_name(MyDatabaseId)),
		     errdetail("The policies of this cluster are those in database \"%s\" "
		               "(keepalive_guard.database).",
		               policy_database),
		     errhint("Remove table keepalive_policy from the publication.")));
}

void warn_replicated_truncate()
{
	ereport(WARNING,
	        (errmsg("logical replication truncates table keepalive_policy"),
	         errhint("If this is not intended, remove table keepalive_policy from the "
	                 "publication.")));
}

void warn_not_preloaded()
{
	static TransactionId warned = InvalidTransactionId;
	static CommandId warned_command = InvalidCommandId;

	const CommandId command = GetCurrentCommandId(false);
	if (!is_new_transaction(&warned) && command == warned_command)
		return;
	warned_command = command;
	ereport(
		WARNING,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
	     errmsg("keepalive policies are not in force: keepalive_guard is not preloaded"),
	     errhint("Add keepalive_guard to shared_preload_libraries and restart the "
	             "server.")));
}

[[noreturn]] void raise_problem(Relation relation, const char *policy,
                                const RowProblem &problem)
{
	ereport(ERROR,
	        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
	         errmsg("invalid value for column \"%s\" of keepalive policy \"%s\": %s",
	                problem.column, policy, problem.value),
	         errdetail("%s", problem.detail),
	         problem.hint ? errhint("%s", problem.hint) : 0,
	         errtablecol(relation, problem.number)));
	pg_unreachable();
}

// Whether the row may be stored.  Raises an error if not; in a subscription, where that
// would stop the replication of all tables, warns and returns false.
bool check_row(Relation relation, HeapTuple tuple, bool is_replicated)
{
	PolicyColumns columns;
	PolicyRow row;
	RowProblem problem;
	const char *unusable;
	TupleDesc descriptor = RelationGetDescr(relation);

	if (!find_policy_columns(descriptor, &columns, &unusable))
	{
		if (is_replicated)
			return true; // the policy reader tells of it
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
		                errmsg("table \"%s\" has no column \"%s\" of the expected type",
		                       RelationGetRelationName(relation), unusable),
		                errhint_version_mismatch()));
	}
	if (read_policy_row(tuple, descriptor, columns, &row, &problem))
		return true;
	if (!is_replicated)
		raise_problem(relation, row.policy.name, problem);
	ereport(WARNING,
	        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
	         errmsg("skipping replicated keepalive policy \"%s\": invalid value for "
	                "column \"%s\": %s",
	                row.policy.name, problem.column, problem.value),
	         errdetail("%s", problem.detail),
	         problem.hint ? errhint("%s", problem.hint) : 0,
	         errtablecol(relation, problem.number)));
	return false;
}

// Once the row is stored: INSERT ... ON CONFLICT checks the row that it does not insert
// too.
void check_stored_row(Relation relation, HeapTuple tuple)
{
	PolicyColumns columns;
	PolicyRow row;
	RowProblem problem;
	const char *missing;
	if (find_policy_columns(RelationGetDescr(relation), &columns, &missing) &&
	    read_policy_row(tuple, RelationGetDescr(relation), columns, &row, &problem))
		warn_of_likely_mistakes(row);
}

// For the server log.
std::int64_t count_rows(Relation relation)
{
	std::int64_t count = 0;
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = compat::begin_scan(relation, snapshot);
	TupleTableSlot *slot = table_slot_create(relation, nullptr);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		count++;
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	return count;
}

// What happens to the rows: known of a TRUNCATE before it, of others after it, when it is
// certain (ON CONFLICT, other triggers).
RowCounts rows_of(const TriggerData *trigger)
{
	RowCounts rows = {};
	const TriggerEvent event = trigger->tg_event;
	if (TRIGGER_FIRED_BY_TRUNCATE(event))
		rows.truncated = count_rows(trigger->tg_relation);
	else if (TRIGGER_FIRED_AFTER(event))
	{
		rows.inserted = TRIGGER_FIRED_BY_INSERT(event);
		rows.updated = TRIGGER_FIRED_BY_UPDATE(event);
		rows.deleted = TRIGGER_FIRED_BY_DELETE(event);
	}
	return rows;
}

// Not one to which somebody else has attached the function.  Asked once for a statement.
bool is_own_table(FmgrInfo *trigger_function, Relation relation)
{
	static char yes;
	if (trigger_function->fn_extra != nullptr)
		return true;
	if (!is_policy_table(RelationGetRelid(relation)))
		return false;
	trigger_function->fn_extra = &yes;
	return true;
}

Datum guard_table(FmgrInfo *function, TriggerData *trigger)
{
	Relation relation = trigger->tg_relation;
	const bool is_replicated = IsLogicalWorker();
	const TriggerEvent event = trigger->tg_event;
	HeapTuple row =
		TRIGGER_FIRED_BY_UPDATE(event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	const Datum store = TRIGGER_FIRED_FOR_ROW(event) ? PointerGetDatum(row) : Datum(0);
	const Datum skip = Datum(0);

	if (!is_own_table(function, relation))
	{
		if (is_replicated)
			return store;
		ereport(ERROR,
		        (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
		         errmsg("function \"keepalive_policy_guard\" can only be a trigger "
		                "of table keepalive_policy")));
	}

	if (shared == nullptr)
		warn_not_preloaded();
	else if (in_policy_database())
		policies_edited_here(rows_of(trigger));
	else if (TRIGGER_FIRED_AFTER(event))
		return store;
	else if (is_replicated)
	{
		warn_other_database();
		return store;
	}
	else
		refuse_other_database();

	// A standby's policy reader learns of the change from this message.
	CacheInvalidateRelcache(relation);

	if (is_replicated && TRIGGER_FIRED_BY_TRUNCATE(event))
		warn_replicated_truncate();
	if (!TRIGGER_FIRED_FOR_ROW(event) || TRIGGER_FIRED_BY_DELETE(event))
		return store;
	if (TRIGGER_FIRED_AFTER(event))
		check_stored_row(relation, row);
	else if (!check_row(relation, row, is_replicated))
		return skip;
	return store;
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_policy_guard(PG_FUNCTION_ARGS)
{
	guard::pg::check_definition(fcinfo, TRIGGEROID);
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
		                errmsg("keepalive_policy_guard: must be called as a trigger")));
	return guard::pg::guard_table(fcinfo->flinfo,
	                              reinterpret_cast<TriggerData *>(fcinfo->context));
}
