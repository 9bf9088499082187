#include "pg/postgres.hpp"

#include "pg/session/command_hooks.hpp"

#include "pg/policy/change.hpp"
#include "pg/session/own_slot.hpp"
#include "pg/session/session.hpp"

extern "C"
{
#include "access/xact.h"
#include "executor/executor.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/timeout.h"
}

namespace guard::pg
{
namespace
{

ExecutorStart_hook_type previous_executor_start = nullptr;
ProcessUtility_hook_type previous_process_utility = nullptr;

// The flag is all that a query pays for.
inline void synchronize()
{
	// Settings cannot be changed in parallel mode; the next command will do.
	if (likely(!synchronization_needed) || IsInParallelMode())
		return;
	synchronize_settings();

	// start_xact_command() has run before the new interval was known.
	if (client_connection_check_interval > 0 && MyProcPort != nullptr &&
	    !get_timeout_active(CLIENT_CONNECTION_CHECK_TIMEOUT))
		enable_timeout_after(CLIENT_CONNECTION_CHECK_TIMEOUT,
		                     client_connection_check_interval);
}

bool has_members(const AlterRoleStmt *statement)
{
	for (int i = 0; i < list_length(statement->options); i++)
		if (strcmp(list_nth_node(DefElem, statement->options, i)->defname,
		           "rolemembers") == 0)
			return true; // ALTER GROUP ... ADD USER
	return false;
}

// A role's name and memberships decide which policies match; what else ALTER ROLE changes
// does not.
bool changes_roles(const Node *statement)
{
	switch (nodeTag(statement))
	{
	case T_GrantRoleStmt:
	case T_CreateRoleStmt:
	case T_DropRoleStmt:
		return true;
	case T_AlterRoleStmt:
		return has_members(reinterpret_cast<const AlterRoleStmt *>(statement));
	case T_RenameStmt:
		return reinterpret_cast<const RenameStmt *>(statement)->renameType == OBJECT_ROLE;
	default:
		return false;
	}
}

bool commits_prepared(const Node *statement)
{
	return IsA(statement, TransactionStmt) &&
	       reinterpret_cast<const TransactionStmt *>(statement)->kind ==
	           TRANS_STMT_COMMIT_PREPARED;
}

void executor_start(QueryDesc *query, int flags)
{
	synchronize();
	if (previous_executor_start)
		previous_executor_start(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

void process_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
                     ProcessUtilityContext context, ParamListInfo parameters,
                     QueryEnvironment *environment, DestReceiver *destination,
                     QueryCompletion *completion)
{
	synchronize();
	if (changes_roles(statement->utilityStmt))
		roles_changed_here();
	else if (commits_prepared(statement->utilityStmt))
		prepared_transaction_committed_here();
	if (previous_process_utility)
		previous_process_utility(statement, query, read_only_tree, context, parameters,
		                         environment, destination, completion);
	else
		standard_ProcessUtility(statement, query, read_only_tree, context, parameters,
		                        environment, destination, completion);
}

} // namespace

void install_command_hooks()
{
	previous_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	previous_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}

} // namespace guard::pg
