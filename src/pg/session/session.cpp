#include "pg/postgres.hpp"

#include "pg/session/session.hpp"

#include "kernel/socket_options.hpp"
#include "pg/compat.hpp"
#include "pg/policy/matching.hpp"
#include "pg/session/ending.hpp"
#include "pg/session/guc_hooks.hpp"
#include "pg/session/own_slot.hpp"
#include "pg/session/record.hpp"
#include "pg/setting_records.hpp"
#include "pg/shared/state.hpp"

#include <csignal>

extern "C"
{
#include "access/xact.h"
#include "libpq/libpq.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
}

namespace guard::pg
{
namespace
{

// Async-signal-safe.
void apply_keepalive(const Wanted &wanted)
{
	if (!own_is_tcp())
		return;
	const bool on = !wanted.settings.keepalive_off();
	if (on != own_session.keepalive)
		set_keepalive(MyProcPort->sock, on);
}

// Brings all values into force that are not.  Async-signal-safe.
void apply_all_to_socket(const Wanted &wanted)
{
	apply_keepalive(wanted);

	apply_to_socket(effective_values(wanted), MyProcPort);
}

// The worker has new settings for this session, which may be anywhere in the code: only
// async-signal-safe system calls and plain memory are allowed here.
void on_update_signal(int)
{
	int saved_errno = errno;
	Wanted wanted;

	// If the worker is writing, it sends another signal afterwards.
	if (my_slot != nullptr && my_slot->wanted.read(wanted))
	{
		apply_all_to_socket(wanted);
		own_session.applied = wanted.version;
		publish_in_force(wanted);
		synchronization_needed = true;
	}
	errno = saved_errno;
}

// Finds a real-time signal that nothing in this process uses; 0 if there is none.  The
// search starts at the top because C libraries use the lowest ones.
int install_update_signal()
{
	for (int number = SIGRTMAX; number >= SIGRTMIN; number--)
	{
		struct sigaction action = {};
		if (sigaction(number, nullptr, &action) != 0 || (action.sa_flags & SA_SIGINFO) ||
		    action.sa_handler != SIG_DFL)
			continue;

		action = {};
		action.sa_handler = on_update_signal;
		action.sa_flags = SA_RESTART;
		sigfillset(&action.sa_mask);
		if (sigaction(number, &action, nullptr) == 0)
			return number;
	}
	ereport(LOG,
	        (errmsg("keepalive_guard: no real-time signal is free; policy changes reach "
	                "this session only when it reconnects")));
	return 0;
}

// Waits for a worker that has been preempted while it writes: Versioned::read() would
// give up, and the session would be recorded without policies.
Wanted last_wanted()
{
	SpinLockAcquire(&my_slot->handover);
	Wanted wanted = my_slot->wanted.value;
	SpinLockRelease(&my_slot->handover);
	bound(wanted);
	return wanted;
}

void record_session(int, Datum)
{
	if (my_slot == nullptr)
		return;
	if (own_session.update_signal != 0)
		signal(own_session.update_signal, SIG_IGN);
	record_end(own_session, last_wanted(), classify_disconnect(own_session, MyProcPort),
	           MyProcPort);
}

// Runs after all other callbacks, whatever errors they raise: if the slot stayed in use
// after the end of its process, the worker would signal the next process with that pid.
void release_slot(int, Datum)
{
	if (my_slot == nullptr)
		return;
	Slot *slot = my_slot;
	my_slot = nullptr;
	own_session = {};
	SpinLockAcquire(&slot->handover);
	slot->session.write(own_session);
	slot->wanted.write({});
	SpinLockRelease(&slot->handover);
}

// Runs `work`; an error in it is logged and not raised, because it must not end the
// connection.  False after an error.
template <typename Work> bool fail_open(Work work)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	BeginInternalSubTransaction(nullptr);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work();
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		ErrorData *error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		ereport(LOG, (errcode(error->sqlerrcode),
		              errmsg("keepalive_guard could not find this session's policy: %s",
		                     error->message)));
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

void find_wanted(Wanted *wanted, std::uint64_t *generation)
{
	*generation = pg_atomic_read_u64(&shared->generation);
	if (!pg_atomic_read_u32(&shared->enabled) || *generation == 0)
		return;

	Connection connection = connection_of(own_session, own_session.role_name);
	if (!compose_policies(connection, InvalidOid, false, wanted, generation) &&
	    !fail_open(
			[&] { compose_policies(connection, InvalidOid, true, wanted, generation); }))
		static_cast<Composition &>(*wanted) = {};
}

} // namespace

void synchronize_settings()
{
	if (my_slot == nullptr)
		return;

	hold_updates();
	synchronization_needed = false;
	Wanted wanted;
	if (!my_slot->wanted.read(wanted))
	{
		release_updates();
		return;
	}
	PG_TRY();
	{
		apply_native_settings(wanted);
		apply_all_to_socket(wanted);
		own_session.applied = wanted.version;
		publish_in_force(wanted);
	}
	PG_FINALLY();
	{
		release_updates();
	}
	PG_END_TRY();
}

void begin_session(Port *port)
{
	int number = compat::my_backend_number();
	if (number < 0 || static_cast<uint32>(number) >= shared->slot_count)
		return;

	own_session = {};
	own_session.pid = MyProcPid;
	own_session.started = MyStartTimestamp;
	strlcpy(own_session.database,
	        am_walsender && !am_db_walsender ? "" : port->database_name, name_bytes);
	strlcpy(own_session.role_name, port->user_name, name_bytes);
	own_session.kind = am_walsender ? BackendKind::replication : BackendKind::client;
	own_session.transport =
		port->raddr.addr.ss_family == AF_UNIX ? Transport::unix_socket : Transport::tcp;
	own_session.plain_startup =
		port->guc_options == NIL && port->cmdline_options == nullptr;
	if (own_is_tcp())
	{
		read_socket_id(port->sock, own_session.socket);
		own_session.keepalive = true;
		remember_system_defaults(port);
	}

	my_slot = &shared_slots()[number];
	on_shmem_exit(release_slot, 0);
	before_shmem_exit(record_session, 0); // while the socket is open
	own_session.update_signal = install_update_signal();
	wrap_sigterm_handler();

	Wanted wanted = {};
	std::uint64_t generation;
	uint32 enabled = pg_atomic_read_u32(&shared->enabled);
	wanted.version = 1;
	find_wanted(&wanted, &generation);
	my_slot->wanted.write(wanted);
	synchronize_settings();

	// The worker skips slots that are not in use.  It may have skipped this one while it
	// distributed newer policies or another value of keepalive_guard.enabled.
	pg_memory_barrier();
	if (generation != pg_atomic_read_u64(&shared->generation) ||
	    enabled != pg_atomic_read_u32(&shared->enabled))
	{
		call_for_attention();
	}
	if (needs_watching(own_session, wanted) && pg_atomic_read_u32(&shared->watching) == 0)
		wake_workers();
}

} // namespace guard::pg
