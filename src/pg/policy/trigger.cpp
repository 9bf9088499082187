// The trigger of keepalive_policy: refuses what is no policy, and has committed
// changes tell the worker.
#include "pg/postgres.hpp"

#include "pg/compat.hpp"
#include "pg/policy/change.hpp"
#include "pg/policy/row.hpp"
#include "pg/settings.hpp"
#include "pg/shared/state.hpp"
#include "pg/sql_definition.hpp"

extern "C"
{
#include "access/xact.h"
#include "commands/trigger.h"
#include "utils/inval.h"
#include "utils/rel.h"

	PG_FUNCTION_INFO_V1(keepalive_policy_guard);
}

namespace guard::pg
{
namespace
{

// Policies count in one database only; elsewhere an edit would be a mistake.
void check_database()
{
	const char *here = get_database_name(MyDatabaseId);
	if (here == nullptr || strcmp(here, policy_database) != 0)
		ereport(ERROR,
		        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		         errmsg("keepalive policies cannot be edited in database \"%s\"",
		                here ? here : ""),
		         errdetail("The policies of this cluster are those in database \"%s\" "
		                   "(keepalive_guard.database).",
		                   policy_database),
		         errhint("Connect to database \"%s\" and edit keepalive_policy there.",
		                 policy_database)));
}

// Once for each command.
void warn_not_preloaded()
{
	static TransactionId warned_transaction = InvalidTransactionId;
	static CommandId warned_command = InvalidCommandId;

	TransactionId transaction = GetTopTransactionId();
	CommandId command = GetCurrentCommandId(false);
	if (transaction == warned_transaction && command == warned_command)
		return;
	warned_transaction = transaction;
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

void check_row(Relation relation, HeapTuple tuple)
{
	PolicyColumns columns;
	PolicyRow row;
	RowProblem problem;
	const char *missing;
	TupleDesc descriptor = RelationGetDescr(relation);

	if (!find_policy_columns(descriptor, &columns, &missing))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
		                errmsg("table \"%s\" has no column \"%s\" of the expected type",
		                       RelationGetRelationName(relation), missing),
		                errhint_version_mismatch()));
	if (!read_policy_row(tuple, descriptor, columns, &row, &problem))
		raise_problem(relation, row.policy.name, problem);
}

Datum guard_table(TriggerData *trigger)
{
	Relation relation = trigger->tg_relation;

	if (shared == nullptr)
		warn_not_preloaded();
	else
	{
		check_database();
		policies_edited_here();
	}

	// A standby's policy reader learns of the change from this message.
	CacheInvalidateRelcache(relation);

	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		return Datum(0);
	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		return PointerGetDatum(trigger->tg_trigtuple);

	HeapTuple row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple
	                                                           : trigger->tg_trigtuple;
	check_row(relation, row);
	return PointerGetDatum(row);
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_policy_guard(PG_FUNCTION_ARGS)
{
	guard::pg::check_definition(fcinfo, TRIGGEROID);
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
		                errmsg("keepalive_policy_guard: must be called as a trigger")));
	return guard::pg::guard_table(reinterpret_cast<TriggerData *>(fcinfo->context));
}
