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
	if (IsA(statement->utilityStmt, GrantRoleStmt))
		memberships_changed_here();
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
