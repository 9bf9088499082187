#include "pg/postgres.hpp"

#include "pg/policy/change.hpp"

#include "pg/compat.hpp"
#include "pg/settings.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "replication/logicalworker.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
}

namespace guard::pg
{
namespace
{

// What a subtransaction has done to the policy table.
struct EditLevel
{
	EditLevel *outer;
	int nest_level;
	RowCounts rows;
};

// What the current transaction has done.
EditLevel *edit_level = nullptr; // the innermost one; in TopTransactionContext
char editor[NAMEDATALEN];
bool table_may_differ = false;
bool roles_may_differ = false;

// A subscription with two_phase has prepared an edit: any later transaction may commit
// it.
bool edits_prepared = false;

bool callbacks_registered = false;

object_access_hook_type previous_object_access_hook = nullptr;

void forget_changes()
{
	edit_level = nullptr;
	table_may_differ = roles_may_differ = false;
}

void at_transaction_end(XactEvent event, void *)
{
	switch (event)
	{
	case XACT_EVENT_PREPARE:
		edits_prepared |= edit_level != nullptr;
		forget_changes();
		break;
	case XACT_EVENT_ABORT:
		forget_changes();
		break;
	case XACT_EVENT_PRE_PREPARE:
		// The session that runs COMMIT PREPARED does not know who has edited what.  In
		// a subscription an error would stop the replication of all tables.
		if (edit_level != nullptr && !IsLogicalWorker())
			ereport(ERROR,
			        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			         errmsg("cannot PREPARE a transaction that has edited keepalive "
			                "policies")));
		break;
	default:
		break;
	}
}

void add(RowCounts &sum, const RowCounts &rows)
{
	sum.inserted += rows.inserted;
	sum.updated += rows.updated;
	sum.deleted += rows.deleted;
	sum.truncated += rows.truncated;
}

void at_subtransaction_end(SubXactEvent event, SubTransactionId, SubTransactionId, void *)
{
	const int nest_level = GetCurrentTransactionNestLevel();
	if (edit_level == nullptr || edit_level->nest_level < nest_level)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		edit_level = edit_level->outer;
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		EditLevel *outer = edit_level->outer;
		edit_level->nest_level = nest_level - 1;
		if (outer != nullptr && outer->nest_level == nest_level - 1)
		{
			add(outer->rows, edit_level->rows);
			edit_level = outer;
		}
	}
}

bool is_empty(const RowCounts &rows)
{
	return rows.inserted == 0 && rows.updated == 0 && rows.deleted == 0 &&
	       rows.truncated == 0;
}

void edits_committed(const RowCounts &rows)
{
	Edit edit = {request_update(), rows, {}, IsLogicalWorker()};
	strlcpy(edit.role, editor, sizeof(edit.role));
	if (!is_empty(rows))
		log_edit(edit);
}

// Not at XACT_EVENT_COMMIT: other processes learn of changed catalogs from
// AtEOXact_Inval(), which CommitTransaction() calls later.  A reader that runs before
// does not find a new extension.
void at_resource_release(ResourceReleasePhase phase, bool is_commit, bool is_top_level,
                         void *)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_commit || !is_top_level)
		return;
	if (roles_may_differ)
		call_for_attention();
	if (edit_level != nullptr)
		edits_committed(edit_level->rows);
	else if (table_may_differ || edits_prepared)
		request_reading();
	forget_changes();
}

void register_callbacks()
{
	if (!callbacks_registered)
	{
		RegisterXactCallback(at_transaction_end, nullptr);
		RegisterSubXactCallback(at_subtransaction_end, nullptr);
		RegisterResourceReleaseCallback(at_resource_release, nullptr);
		callbacks_registered = true;
	}
}

void table_may_differ_here()
{
	register_callbacks();
	table_may_differ = true;
}

// The worker may be waiting for the database or the extension, or have lost it.  Without
// its trigger the table may have been edited unnoticed.
bool concerns_policies(ObjectAccessType access, Oid class_id, Oid object_id)
{
	if (access != OAT_POST_CREATE && access != OAT_DROP && access != OAT_POST_ALTER)
		return false;
	switch (class_id)
	{
	case DatabaseRelationId:
		return true;
	case ExtensionRelationId:
		return in_policy_database();
	case RelationRelationId:
		return access == OAT_POST_ALTER && in_policy_database() &&
		       is_policy_table(object_id);
	case TriggerRelationId:
		return access != OAT_POST_CREATE && in_policy_database();
	default:
		return false;
	}
}

void on_object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id,
                      void *argument)
{
	if (previous_object_access_hook)
		previous_object_access_hook(access, class_id, object_id, sub_id, argument);

	if (concerns_policies(access, class_id, object_id))
		table_may_differ_here();
}

} // namespace

bool in_policy_database()
{
	const char *here =
		OidIsValid(MyDatabaseId) ? get_database_name(MyDatabaseId) : nullptr;
	return here != nullptr && strcmp(here, policy_database) == 0;
}

bool is_policy_table(Oid relation)
{
	const Oid extension = getExtensionOfObject(RelationRelationId, relation);
	return OidIsValid(extension) &&
	       extension == get_extension_oid("keepalive_guard", true);
}

void policies_edited_here(const RowCounts &rows)
{
	register_callbacks();
	const int nest_level = GetCurrentTransactionNestLevel();
	if (edit_level == nullptr)
	{
		const char *name = GetUserNameFromId(GetSessionUserId(), true);
		strlcpy(editor, name ? name : "", sizeof(editor));
	}
	if (edit_level == nullptr || edit_level->nest_level < nest_level)
	{
		auto *level = static_cast<EditLevel *>(
			MemoryContextAllocZero(TopTransactionContext, sizeof(EditLevel)));
		level->outer = edit_level;
		level->nest_level = nest_level;
		edit_level = level;
	}
	add(edit_level->rows, rows);
}

bool has_edited_policies_here()
{
	return edit_level != nullptr;
}

void roles_changed_here()
{
	register_callbacks();
	roles_may_differ = true;
}

void prepared_transaction_committed_here()
{
	roles_changed_here();
	if (in_policy_database())
		table_may_differ_here();
}

void install_object_access_hook()
{
	previous_object_access_hook = object_access_hook;
	object_access_hook = on_object_access;
}

} // namespace guard::pg
