#include "pg/postgres.hpp"

#include "pg/session.hpp"

#include "kernel/socket_options.hpp"
#include "pg/compat.hpp"
#include "pg/ending.hpp"
#include "pg/events.hpp"
#include "pg/matching.hpp"
#include "pg/native_settings.hpp"
#include "pg/watch.hpp"

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

Slot *my_slot = nullptr;
volatile sig_atomic_t synchronization_needed = false;

namespace
{

Session session; // what my_slot shows of this backend

sigset_t mask_before_hold;

Port *port()
{
	return MyProcPort;
}

bool is_tcp()
{
	return session.transport == Transport::tcp;
}

std::uint8_t bit(Setting setting)
{
	return 1 << static_cast<int>(setting);
}

// What the session should have of every setting.  Async-signal-safe.
SettingValues effective_values(const Wanted &wanted)
{
	SettingValues values;
	for (int i = 0; i < setting_count; i++)
		values[i] = effective_value(static_cast<Setting>(i), wanted);
	return values;
}

// Compares what is in force with what should be, and publishes both.
// Async-signal-safe.
void publish(const Wanted &wanted, const SettingValues &expected,
             std::int32_t client_check)
{
	session.overridden = session.failed = 0;
	session.keepalive_failed = false;

	if (is_tcp())
	{
		Options options = {};
		read_options(port()->sock, options);
		if (session.keepalive != (options.keepalive != 0) ||
		    session.in_force[static_cast<int>(Setting::keepalives_idle)] !=
		        options.keepalives_idle)
			session.probes_changed = monotonic_ms();
		session.keepalive = options.keepalive != 0;
		session.in_force = {options.keepalives_idle, options.keepalives_interval,
		                    options.keepalives_count, options.user_timeout_ms,
		                    client_check};
		session.keepalive_failed =
			wanted.governed && wanted.settings.keepalive != Keepalive::unset &&
			session.keepalive != (wanted.settings.keepalive == Keepalive::on);
	}
	else
		session.in_force = {0, 0, 0, 0, client_check};

	for (int i = is_tcp() ? 0 : tcp_setting_count; i < setting_count; i++)
	{
		auto setting = static_cast<Setting>(i);
		if (!wanted.governed || !wanted.settings.has(setting))
			continue;
		std::int32_t in_force = session.in_force[i];
		if (in_force == resolved(setting, wanted.settings.get(setting)))
			continue;
		if (in_force == resolved(setting, expected[i]))
			session.overridden |= bit(setting);
		else
			session.failed |= bit(setting);
	}
	my_slot->session.write(session);
}

// Async-signal-safe.
void force_keepalive(const Wanted &wanted)
{
	if (!is_tcp())
		return;
	bool on = !(wanted.governed && wanted.settings.keepalive == Keepalive::off);
	if (on != session.keepalive)
		set_keepalive(port()->sock, on);
}

// Brings everything into the kernel that is not there.  Async-signal-safe.
void force_settings(const Wanted &wanted)
{
	force_keepalive(wanted);

	for (int i = is_tcp() ? 0 : tcp_setting_count; i < setting_count; i++)
	{
		auto setting = static_cast<Setting>(i);
		force_setting(setting, effective_value(setting, wanted), port());
	}
}

void have_worker_signal_again()
{
	session.applied = 0;
	my_slot->session.write(session);
	call_for_attention();
}

// The worker has new wishes, and this backend may sit anywhere.  Only system calls
// that are async-signal-safe, and plain memory.
void on_update_signal(int)
{
	int saved_errno = errno;
	Wanted wanted;

	// If the worker is writing again, it will signal again.
	if (my_slot != nullptr && my_slot->wanted.read(wanted))
	{
		force_settings(wanted);
		session.applied = wanted.version;
		publish(wanted, effective_values(wanted), variable_value(Setting::client_check));
		synchronization_needed = true;
	}
	errno = saved_errno;
}

// A real-time signal that nobody in this process has claimed; 0 if there is none.
// C libraries take theirs from below SIGRTMIN, so the search starts at the top.
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

void record_session(int, Datum)
{
	if (my_slot == nullptr)
		return;
	if (session.update_signal != 0)
		signal(session.update_signal, SIG_IGN);
	Wanted wanted = {};
	my_slot->wanted.read(wanted);
	record_end(session, wanted, weigh_ending(session, port()), port());
}

// Comes after all that might go wrong in other callbacks: a slot that outlived its
// process would have the worker signal whoever gets the pid next.
void release_slot(int, Datum)
{
	if (my_slot == nullptr)
		return;
	Slot *slot = my_slot;
	my_slot = nullptr;
	session = {};
	SpinLockAcquire(&slot->handover);
	slot->session.write(session);
	slot->wanted.write({});
	SpinLockRelease(&slot->handover);
}

// Runs `work` so that an error in it is logged and not raised: the connection must
// not suffer.  False after an error.
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

	Connection connection = connection_of(session, session.role_name);
	Policy policy;
	PolicySearch search = find_policy_at_once(connection, &policy, generation);
	if (search == PolicySearch::ask_postgres)
		fail_open(
			[&]
			{
				if (find_policy(connection, InvalidOid, &policy, generation))
					search = PolicySearch::found;
			});
	if (search == PolicySearch::found)
	{
		wanted->governed = true;
		strlcpy(wanted->policy, policy.name, name_bytes);
		wanted->settings = policy.settings;
	}
}

} // namespace

void hold_updates()
{
	sigset_t held;
	sigemptyset(&held);
	if (session.update_signal != 0)
		sigaddset(&held, session.update_signal);
	sigprocmask(SIG_BLOCK, &held, &mask_before_hold);
}

void release_updates()
{
	sigprocmask(SIG_SETMASK, &mask_before_hold, nullptr);
}

void publish_assigned(const Wanted &wanted, Setting setting, std::int32_t expected,
                      std::int32_t variable)
{
	bool is_check = setting == Setting::client_check;
	publish(wanted, effective_values(wanted),
	        is_check ? variable : variable_value(Setting::client_check));

	if (expected == variable)
		return;
	synchronization_needed = true;
	// The kernel has what is expected; but this variable will not have it.
	if (is_check)
		have_worker_signal_again();
}

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
		force_settings(wanted);
		session.applied = wanted.version;
		publish(wanted, effective_values(wanted), variable_value(Setting::client_check));
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

	session = {};
	session.pid = MyProcPid;
	session.started = MyStartTimestamp;
	strlcpy(session.database, am_walsender && !am_db_walsender ? "" : port->database_name,
	        name_bytes);
	strlcpy(session.role_name, port->user_name, name_bytes);
	session.kind = am_walsender ? BackendKind::replication : BackendKind::client;
	session.transport =
		port->raddr.addr.ss_family == AF_UNIX ? Transport::unix_socket : Transport::tcp;
	if (is_tcp())
	{
		read_socket_id(port->sock, session.socket);
		session.keepalive = true;
		remember_system_defaults(port);
	}

	my_slot = &shared_slots()[number];
	on_shmem_exit(release_slot, 0);
	before_shmem_exit(record_session, 0); // while the socket is open
	session.update_signal = install_update_signal();
	watch_for_termination();

	Wanted wanted = {};
	std::uint64_t generation;
	uint32 enabled = pg_atomic_read_u32(&shared->enabled);
	wanted.version = 1;
	find_wanted(&wanted, &generation);
	my_slot->wanted.write(wanted);
	synchronize_settings();

	// The worker passes over slots that are not in use yet; it may have passed this
	// one with newer policies, or with keepalive_guard.enabled as it is now.
	pg_memory_barrier();
	if (generation != pg_atomic_read_u64(&shared->generation) ||
	    enabled != pg_atomic_read_u32(&shared->enabled))
	{
		call_for_attention();
	}
	if (needs_watching(session, wanted) && pg_atomic_read_u32(&shared->watching) == 0)
		wake_workers();
}

} // namespace guard::pg
