#include "pg/postgres.hpp"

#include "pg/policy/table.hpp"

#include "model/match.hpp"
#include "pg/compat.hpp"
#include "pg/policy/row.hpp"
#include "pg/shared/state.hpp"

#include <algorithm>
#include <climits>

extern "C"
{
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
}

namespace guard::pg
{
namespace
{

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

void report_skipped(int problem_level, const char *policy, const RowProblem &problem)
{
	ereport(
		problem_level,
		(errmsg("keepalive_guard: skipping keepalive policy \"%s\": invalid value for "
	            "column \"%s\": %s",
	            policy, problem.column, problem.value),
	     errdetail("%s", problem.detail)));
}

PolicyList empty_list(std::uint32_t room)
{
	PolicyList list = {};
	list.rules =
		static_cast<Rule *>(palloc_extended(room * sizeof(Rule), MCXT_ALLOC_HUGE));
	list.policies =
		static_cast<Policy *>(palloc_extended(room * sizeof(Policy), MCXT_ALLOC_HUGE));
	return list;
}

} // namespace

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

bool trigger_always_fires(Relation table)
{
	constexpr int all = TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE |
	                    TRIGGER_TYPE_TRUNCATE;
	const Oid extension = getExtensionOfObject(RelationRelationId, table->rd_id);
	// A copy, because the relation's own does not outlive a look at another catalog.
	const TriggerDesc *triggers = CopyTriggerDesc(table->trigdesc);
	int covered = 0;
	for (int i = 0; triggers != nullptr && i < triggers->numtriggers; i++)
	{
		const Trigger &trigger = triggers->triggers[i];
		if (trigger.tgenabled == TRIGGER_FIRES_ALWAYS && trigger.tgqual == nullptr &&
		    TRIGGER_FOR_BEFORE(trigger.tgtype) &&
		    getExtensionOfObject(ProcedureRelationId, trigger.tgfoid) == extension)
			covered |= trigger.tgtype;
	}
	return (covered & all) == all;
}

bool read_policy_table(Relation table, std::uint32_t room, int problem_level,
                       PolicyList *list)
{
	PolicyColumns columns;
	const char *unusable;
	if (!find_policy_columns(RelationGetDescr(table), &columns, &unusable))
	{
		ereport(problem_level,
		        (errmsg("keepalive_guard: keepalive_policy has no column \"%s\" of the "
		                "expected type",
		                unusable)));
		list->problems = string_hash(unusable, NAMEDATALEN);
		return false;
	}
	*list = empty_list(room);
	if (columns.missing != nullptr)
	{
		ereport(problem_level,
		        (errmsg("keepalive_guard: keepalive_policy has no column \"%s\"",
		                columns.missing),
		         errdetail("The policies are read without it."),
		         errhint("Execute ALTER EXTENSION keepalive_guard UPDATE.")));
		list->problems = string_hash(columns.missing, NAMEDATALEN);
	}

	MemoryContext row_context = AllocSetContextCreate(
		CurrentMemoryContext, "keepalive policy", ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *slot = table_slot_create(table, nullptr);
	TableScanDesc scan = compat::begin_scan(table, GetActiveSnapshot());
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContext previous = MemoryContextSwitchTo(row_context);
		bool should_free;
		HeapTuple tuple = ExecFetchSlotHeapTuple(slot, false, &should_free);
		PolicyRow row;
		RowProblem problem;
		if (!read_policy_row(tuple, RelationGetDescr(table), columns, &row, &problem))
		{
			// Only by hands that kept the table's trigger from running.
			report_skipped(problem_level, row.policy.name, problem);
			list->skipped++;
			list->problems = hash_combine(
				list->problems, hash_combine(string_hash(row.policy.name, name_bytes),
			                                 string_hash(problem.value, INT_MAX)));
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

void sort_in_match_order(PolicyList *list)
{
	auto *order = static_cast<std::uint32_t *>(
		palloc_extended(list->count * sizeof(std::uint32_t), MCXT_ALLOC_HUGE));
	PolicyList sorted = empty_list(list->count);

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
		sorted.rules[i] = list->rules[order[i]];
		sorted.policies[i] = list->policies[order[i]];
	}
	list->rules = sorted.rules;
	list->policies = sorted.policies;
}

PolicyList compiled_policies()
{
	PolicyList list = empty_list(shared->policy_room);
	read_policies(
		[&list](std::uint32_t enabled, std::uint32_t count)
		{
			list.enabled = enabled;
			list.count = count;
			memcpy(list.rules, shared_rules(), count * sizeof(Rule));
			memcpy(list.policies, shared_policies(), count * sizeof(Policy));
			std::for_each(list.policies, list.policies + count,
		                  [](Policy &policy) { bound(policy); });
		});
	return list;
}

} // namespace guard::pg
