#include "pg/postgres.hpp"

#include "pg/policy/change.hpp"

#include "pg/shared/state.hpp"

extern "C"
{
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "utils/resowner.h"
}

namespace guard::pg
{
namespace
{

bool update_wanted = false;
bool policies_edited = false;
bool callbacks_registered = false;

object_access_hook_type previous_object_access_hook = nullptr;

void forget_changes()
{
	update_wanted = policies_edited = false;
}

void at_transaction_end(XactEvent event, void *)
{
	switch (event)
	{
	case XACT_EVENT_ABORT:
	case XACT_EVENT_PREPARE:
		forget_changes();
		break;
	case XACT_EVENT_PRE_PREPARE:
		// COMMIT PREPARED may run in any session, where nobody would tell the
		// worker; as for LISTEN and NOTIFY.
		if (policies_edited)
			ereport(ERROR,
			        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			         errmsg("cannot PREPARE a transaction that has edited keepalive "
			                "policies")));
		break;
	default:
		break;
	}
}

// Not at XACT_EVENT_COMMIT: others learn of changed catalogs from AtEOXact_Inval(), which
// CommitTransaction() calls later.  A reader that is told before takes a new extension
// for missing.
void at_resource_release(ResourceReleasePhase phase, bool is_commit, bool is_top_level,
                         void *)
{
	if (!update_wanted || phase != RESOURCE_RELEASE_AFTER_LOCKS || !is_commit ||
	    !is_top_level)
		return;
	forget_changes();
	request_update();
}

void update_after_commit()
{
	if (!callbacks_registered)
	{
		RegisterXactCallback(at_transaction_end, nullptr);
		RegisterResourceReleaseCallback(at_resource_release, nullptr);
		callbacks_registered = true;
	}
	update_wanted = true;
}

// The worker may be waiting for the database or the extension, or have lost it.  And a
// role's name and, from CREATE ROLE on, its memberships decide which policy matches.
bool concerns_policies(Oid class_id)
{
	return class_id == ExtensionRelationId || class_id == DatabaseRelationId ||
	       class_id == AuthIdRelationId;
}

void on_object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id,
                      void *argument)
{
	if (previous_object_access_hook)
		previous_object_access_hook(access, class_id, object_id, sub_id, argument);

	if (concerns_policies(class_id) &&
	    (access == OAT_POST_CREATE || access == OAT_DROP || access == OAT_POST_ALTER))
		update_after_commit();
}

} // namespace

void policies_edited_here()
{
	update_after_commit();
	policies_edited = true;
}

void memberships_changed_here()
{
	update_after_commit();
}

void install_object_access_hook()
{
	previous_object_access_hook = object_access_hook;
	object_access_hook = on_object_access;
}

} // namespace guard::pg
