#include "pg/postgres.hpp"

#include "pg/worker/background_worker.hpp"

extern "C"
{
#include "storage/ipc.h"
#include "storage/latch.h"
}

namespace guard::pg
{

BackgroundWorker background_worker(const char *name, const char *function)
{
	BackgroundWorker worker = {};
	strlcpy(worker.bgw_name, name, BGW_MAXLEN);
	strlcpy(worker.bgw_type, name, BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "keepalive_guard", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	return worker;
}

void take_interrupts()
{
	ResetLatch(MyLatch);
	if (ProcDiePending)
		proc_exit(1);
	CHECK_FOR_INTERRUPTS();
}

} // namespace guard::pg
