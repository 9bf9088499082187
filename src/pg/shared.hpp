// What all processes of the server share: the compiled policies, one slot for
// each client backend, and the counters that tell the worker what there is to do.
#pragma once

#include "pg/postgres.hpp"

#include "kernel/socket.hpp"
#include "pg/versioned.hpp"
#include "policy/policy.hpp"

extern "C"
{
#include "storage/lwlock.h"
#include "storage/spin.h"
}

namespace guard::pg
{

// What a session should have: written by its backend at startup and from then on
// by the worker only.
struct Wanted
{
	std::uint32_t version; // counts the changes; 0: not matched yet
	bool governed;         // a policy matched; else the rest is empty
	char policy[name_bytes];
	Settings settings;
};

enum class Transport : std::uint8_t
{
	unix_socket,
	tcp,
};

// What a session is and has: written by its backend only.
struct Session
{
	std::int32_t pid;           // 0: the slot is free
	std::int64_t started;       // MyStartTimestamp, tells a reused pid
	char role_name[name_bytes]; // as authenticated
	char database[name_bytes];  // as connected; "" for a physical walsender
	BackendKind kind;
	Transport transport;
	std::uint8_t update_signal;  // 0: this backend does not listen for updates
	SocketId socket;             // TCP only
	std::uint32_t applied;       // Wanted::version that is in force
	bool keepalive;              // SO_KEEPALIVE
	std::int64_t probes_changed; // when that or TCP_KEEPIDLE did: CLOCK_MONOTONIC, ms
	SettingValues in_force;  // as the kernel has them; client_check as PostgreSQL has it
	std::uint8_t overridden; // bit per Setting: another value than the policy's
	std::uint8_t failed;     // bit per Setting: refused by the kernel
	bool keepalive_failed;   // SO_KEEPALIVE was refused
};

// Why the watcher has ended a backend.
enum class WatcherVerdict : std::uint8_t
{
	none,
	dead_after,
	stall_timeout,
};

// What the watcher (watcher.hpp) has seen of a session's peer: written by the worker
// only.  It outlives its session: it counts only where pid and started are the
// session's.  Times are of CLOCK_MONOTONIC, in ms; 0: not so.
struct Watched
{
	std::int32_t pid;
	std::int64_t started;
	std::int64_t asked_since;   // the kernel asks, and nothing was received
	std::int64_t stalled_since; // the window is closed, and nothing was acknowledged
	std::uint64_t bytes_acked;  // at stalled_since
	WatcherVerdict verdict;     // published before the backend is signalled
	std::uint8_t signals;       // how often it was signalled
	bool found;                 // the kernel has shown the socket
	std::int64_t signalled;     // when, last
};

struct alignas(64) Slot
{
	slock_t handover; // held to free the slot, and by the worker to write `wanted`
	Versioned<Session> session;
	Versioned<Wanted> wanted;
	Versioned<Watched> watched;
};
static_assert(sizeof(Slot) <= 512);

// How the last reading of the policy table ended.
enum class PolicyState : std::uint32_t
{
	not_read,     // the worker has not got there yet
	no_database,  // keepalive_guard.database does not exist
	no_extension, // ... has no extension keepalive_guard
	no_room,      // more policies than keepalive_guard.max_policies
	unreadable,   // the table is not what it should be
	compiled,
};

// postgresql.conf's (and the command line's) values, as the worker sees them.
struct ConfiguredValues
{
	SettingValues value;
	std::array<GucSource, setting_count> source;
};

struct Shared
{
	LWLock *policy_lock;           // guards policy_count, rules, policies
	pg_atomic_uint32 policy_state; // PolicyState
	pg_atomic_uint64 generation;   // of the compiled policies; grows under policy_lock

	// Requests are numbered; a stage is up to date when it has caught up.
	pg_atomic_uint64 requested;   // a change was committed, or re-reading asked for
	pg_atomic_uint64 compiled;    // ... the table was read after that request
	pg_atomic_uint64 distributed; // ... and every slot was matched again

	pg_atomic_uint32 attention; // some session's slot is to be looked at again
	pg_atomic_uint32 enabled;   // keepalive_guard.enabled as the worker has it

	pg_atomic_uint32 worker;   // proc number + 1, 0: not running
	pg_atomic_uint32 reader;   // likewise
	pg_atomic_uint32 watching; // the worker looks at sockets every watch_interval
	Versioned<ConfiguredValues> configured;
	std::uint32_t rows_skipped; // invalid rows at the last compilation

	std::uint32_t policy_count;   // those that are matched
	std::uint32_t disabled_count; // those behind them
	std::uint32_t policy_room;
	std::uint32_t slot_count;
};

// Whether the slot is still that session's: whose it is does not change while it is in
// use.
bool belongs_to(const Slot &slot, const Session &session);

extern Shared *shared; // nullptr: not preloaded

Rule *shared_rules();
Policy *shared_policies();
Slot *shared_slots();

// Hooks up the allocation; called while shared_preload_libraries is processed.
void request_shared_memory();

// Replaces the compiled policies, as read in answer to request number `request`,
// and wakes the worker.  `rules` and `policies` are in match order, the first `enabled`
// ones of them enabled.
void publish_policies(const Rule *rules, const Policy *policies, std::uint32_t enabled,
                      std::uint32_t count, PolicyState state, std::uint64_t request);

// Notes that the policies could not be replaced, and why; those in force stay.
void keep_policies(PolicyState state, std::uint64_t request);

// Numbers a new request to re-read and re-distribute the policies, and wakes the
// worker.  Returns the number.  Does nothing that can fail.
std::uint64_t request_update();

// Whether the watcher has to look at this session's socket.
bool needs_watching(const Session &session, const Wanted &wanted);

// Has the worker look at all slots again.
void call_for_attention();

// Wakes the worker and the policy reader, whichever run.
void wake_workers();

} // namespace guard::pg
