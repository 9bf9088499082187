#include "pg/postgres.hpp"

#include "pg/worker/worker.hpp"

#include "pg/clock.hpp"
#include "pg/compat.hpp"
#include "pg/setting_records.hpp"
#include "pg/settings.hpp"
#include "pg/shared/edits.hpp"
#include "pg/shared/state.hpp"
#include "pg/worker/attempts.hpp"
#include "pg/worker/background_worker.hpp"
#include "pg/worker/distribution.hpp"
#include "pg/worker/pace.hpp"
#include "pg/worker/reader.hpp"
#include "pg/worker/watcher.hpp"

#include <algorithm>

extern "C"
{
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"
}

namespace guard::pg
{
namespace
{

// How long to wait until the next try at what waits for somebody else.
constexpr long retry_ms = 500;

BackgroundWorkerHandle *reader = nullptr;
Attempts attempts;
int refused_starts = 0;          // of the policy reader, in a row
std::int64_t reader_started = 0; // by monotonic_ms()
Pace reader_pace;

// Scans pg_database as get_database_list() in autovacuum.c does: a process without
// a database may have no index to look names up in.
bool database_exists()
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void)GetTransactionSnapshot();

	Relation catalog = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(catalog, 0, nullptr);
	bool exists = false;
	while (HeapTuple tuple = heap_getnext(scan, ForwardScanDirection))
	{
		auto *database = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
		if (strcmp(NameStr(database->datname), policy_database) == 0)
			exists = true;
	}
	table_endscan(scan);
	table_close(catalog, AccessShareLock);

	CommitTransactionCommand();
	return exists;
}

// Whether a policy reader runs: one that this process has started, or one that outlives
// the worker that has started it.
bool reader_runs()
{
	if (reader == nullptr)
		return pg_atomic_read_u32(&shared->reader) != 0;
	pid_t pid;
	if (GetBackgroundWorkerPid(reader, &pid) != BGWH_STOPPED)
		return true;
	pfree(reader);
	reader = nullptr;
	reader_pace.run_took(reader_started, monotonic_ms());
	return pg_atomic_read_u32(&shared->reader) != 0;
}

bool waits_for_database()
{
	return pg_atomic_read_u32(&shared->policy_state) ==
	       static_cast<uint32>(PolicyState::no_database);
}

void no_database(std::uint64_t request)
{
	if (!waits_for_database())
		ereport(LOG, (errmsg("keepalive_guard: waiting for database \"%s\" to exist",
		                     policy_database),
		              errhint("Its table keepalive_policy counts for the whole cluster "
		                      "(keepalive_guard.database).")));
	pg_atomic_write_u32(&shared->edits_unnoticed, 0);
	publish_policies(nullptr, nullptr, 0, 0, PolicyState::no_database, request);
}

// A single failure is no reason for alarm: the database may have been dropped, or
// somebody has terminated the reader.
void reader_failed()
{
	if (attempts.failed() < 2)
		return;
	if (pg_atomic_read_u32(&shared->policy_state) !=
	    static_cast<uint32>(PolicyState::reader_failed))
		ereport(LOG,
		        (errmsg("keepalive_guard: the policy reader cannot read the policies "
		                "of database \"%s\", trying again",
		                policy_database),
		         errdetail("%s", policies_still_in_force()),
		         errhint("The server log has the policy reader's error.")));
	keep_policies(PolicyState::reader_failed, attempts.last_request());
}

// Without the trigger no edit requests a reading.  Returns how long to wait until the
// next request, in ms; -1: no need.
long read_unnoticed_edits()
{
	constexpr std::int64_t interval_ms = 1000;
	static std::int64_t last_request = 0;
	if (pg_atomic_read_u32(&shared->edits_unnoticed) == 0 || RecoveryInProgress() ||
	    attempts.failed() != 0)
		return -1;
	const std::int64_t now = monotonic_ms();
	if (now - last_request >= interval_ms)
	{
		request_reading();
		last_request = now;
	}
	return static_cast<long>(last_request + interval_ms - now);
}

void no_room_for_reader()
{
	// The first time it may be that a reader which has just exited still has its place.
	if (++refused_starts == 2)
		ereport(
			LOG,
			(errmsg("keepalive_guard: could not start the policy reader, trying again"),
		     errhint("Increase max_worker_processes, to two more than "
		             "max_parallel_workers at least.")));
}

// Has the policies read if they may have changed.  Returns how long to wait until
// the next call, in ms; -1: until the latch is set.
long have_policies_read()
{
	// Read before the database is looked up, so that no request gets lost.
	std::uint64_t request = pg_atomic_read_u64(&shared->requested);
	if (reader_runs())
		return -1;
	if (attempts.end(pg_atomic_read_u64(&shared->readings)))
		reader_failed();
	if (pg_atomic_read_u64(&shared->compiled) >= request && attempts.failed() == 0 &&
	    !RecoveryInProgress())
		return -1;

	if (!database_exists())
	{
		attempts.forget_failures();
		// On a standby nobody tells that the database has gone, or has come.
		if (pg_atomic_read_u64(&shared->compiled) < request || !waits_for_database())
			no_database(request);
		return RecoveryInProgress() ? retry_ms : -1;
	}

	const std::int64_t now = monotonic_ms();
	if (long rest = attempts.rest(now, request))
		return rest;
	const bool is_edited =
		pg_atomic_read_u64(&shared->compiled) < pg_atomic_read_u64(&shared->edited);
	if (long rest = is_edited ? 0 : reader_pace.rest(now))
		return rest;
	const std::uint64_t readings = pg_atomic_read_u64(&shared->readings);
	if (!start_policy_reader(&reader))
	{
		no_room_for_reader();
		return retry_ms;
	}
	attempts.begin(now, request, readings);
	refused_starts = 0;
	reader_started = now;
	return -1;
}

// Tells all processes what postgresql.conf says.  Whether that is news.
bool publish_configured_values()
{
	ConfiguredValues now = configured_values();
	ConfiguredValues before;
	bool same = shared->configured.read(before) && before.value == now.value &&
	            before.source == now.source;
	if (!same)
		shared->configured.write(now);
	return !same;
}

// Whether sessions that fall back on postgresql.conf are to look at it again: a
// walsender runs no command in which PostgreSQL's own settings would follow.
bool reload()
{
	ProcessConfigFile(PGC_SIGHUP);
	bool news = publish_configured_values();
	if (pg_atomic_exchange_u32(&shared->enabled, enabled) != static_cast<uint32>(enabled))
		pg_atomic_write_u32(&shared->attention, 1);
	return news;
}

// Has sessions matched again if that may change something.  Returns how long to wait
// until the next call, in ms; -1: until the latch is set.
long bring_sessions_up_to_date(bool to_all)
{
	static Pace pace;
	static bool is_under_way = false;
	static bool to_all_next = false;
	static std::int64_t started;
	static std::uint64_t reading; // whose policies are being distributed

	to_all_next |= to_all;
	if (!is_under_way)
	{
		// In this order: what is compiled may need all that comes after it.
		const std::uint64_t compiled = pg_atomic_read_u64(&shared->compiled);
		pg_read_barrier();
		const std::uint64_t edited = pg_atomic_read_u64(&shared->edited);
		const bool attention = pg_atomic_read_u32(&shared->attention) != 0;
		if (!to_all_next && !attention &&
		    pg_atomic_read_u64(&shared->distributed) >= std::min(compiled, edited))
		{
			pg_atomic_write_u64(&shared->distributed, compiled);
			return -1;
		}
		started = monotonic_ms();
		if (long rest = pace.rest(started))
			return rest;
		pg_atomic_write_u32(&shared->attention, 0);
		pg_memory_barrier();
		reading = pg_atomic_read_u64(&shared->compiled);
		begin_distribution(to_all_next);
		to_all_next = false;
		is_under_way = true;
	}

	if (!continue_distribution())
		return 0;
	is_under_way = false;
	pg_atomic_write_u64(&shared->distributed, reading);
	pace.run_took(started, monotonic_ms());
	return 0;
}

// The shorter one of two waiting times; -1 is for ever.
long shorter(long a, long b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

void leave(int, Datum)
{
	pg_atomic_write_u32(&shared->worker, 0);
	pg_memory_barrier();
	log_remaining_edits();
}

[[noreturn]] void run()
{
	on_shmem_exit(leave, 0);
	pg_atomic_write_u32(&shared->worker, compat::my_proc_number() + 1);
	publish_configured_values();
	pg_atomic_write_u32(&shared->enabled, enabled);
	pg_atomic_write_u32(&shared->attention, 1);
	pgstat_report_activity(STATE_IDLE, nullptr);

	for (;;)
	{
		take_interrupts();
		bool to_all = false;
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			to_all = reload();
		}

		notice_end_of_recovery();
		long timeout = read_unnoticed_edits();
		timeout = shorter(timeout, have_policies_read());

		log_compiled_edits();
		timeout = shorter(timeout, bring_sessions_up_to_date(to_all));
		timeout = shorter(timeout, retry_overdue_slots());
		timeout = shorter(timeout, watch_sessions());

		int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0);
		WaitLatch(MyLatch, events, timeout, PG_WAIT_EXTENSION);
	}
}

// The postmaster looks the worker's library up by its name, and may find another file
// than the one that was preloaded.  That one has no shared memory.
void exit_if_not_preloaded()
{
	if (shared != nullptr)
		return;
	ereport(
		LOG,
		(errmsg("keepalive_guard: the library of the worker is not the preloaded one"),
	     errdetail("No policies are in force."),
	     errhint("Set shared_preload_libraries to keepalive_guard without a path, and "
	             "restart the server.")));
	proc_exit(0); // for good
}

} // namespace

void register_worker()
{
	BackgroundWorker worker =
		background_worker("keepalive_guard worker", "keepalive_guard_worker");
	worker.bgw_restart_time = 1;
	RegisterBackgroundWorker(&worker);
}

} // namespace guard::pg

extern "C" void keepalive_guard_worker(Datum)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	guard::pg::exit_if_not_preloaded();
	BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
	// InitPostgres() leaves that to processes with a database: without it a role's
	// memberships would be cached for good.
	StartTransactionCommand();
	initialize_acl();
	CommitTransactionCommand();
	guard::pg::run();
}
