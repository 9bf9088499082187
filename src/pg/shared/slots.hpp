// One slot for each client backend: what its session should have, what it is and has,
// and what the watcher has seen of its client.
#pragma once

#include "pg/postgres.hpp"

#include "kernel/socket.hpp"
#include "model/effective.hpp"
#include "pg/shared/versioned.hpp"

extern "C"
{
#include "storage/spin.h"
}

namespace guard::pg
{

// What a session should have: written by its backend at startup and from then on
// by the worker only.
struct Wanted : Composition
{
	std::uint32_t version; // counts the changes; 0: not matched yet
};

inline void bound(Wanted &wanted)
{
	PolicyNames &policies = wanted.policies;
	policies.count = Min(policies.count, most_sources);
	for (auto &name : policies.name)
		bound_text(name);
	for (std::uint8_t &source : wanted.settings.source)
		source = Min(source, most_sources - 1);
	// The kernel and SET refuse what is too large.
	for (std::int32_t &value : wanted.settings.value)
		value = Max(value, 0);
}

enum class Transport : std::uint8_t
{
	unix_socket,
	tcp,
};

// What a session is and has: written by its backend only.
struct Session
{
	std::int32_t pid;     // 0: the slot is free
	std::int64_t started; // MyStartTimestamp: tells sessions with the same pid apart
	char role_name[name_bytes]; // as authenticated
	char database[name_bytes];  // as connected; "" for a physical walsender
	BackendKind kind;
	Transport transport;
	bool plain_startup;          // the startup packet had no setting
	std::uint8_t update_signal;  // 0: this backend has no handler for updates
	SocketId socket;             // TCP only
	std::uint32_t applied;       // Wanted::version that is in force
	bool keepalive;              // SO_KEEPALIVE
	std::int64_t probes_changed; // when that or TCP_KEEPIDLE did: CLOCK_MONOTONIC, ms
	SettingValues in_force;  // as the kernel has them; client_check as PostgreSQL has it
	Choices choices;         // of the session, its role, database and options
	std::uint8_t overridden; // bit per Setting: chosen against the policies
	std::uint8_t failed;     // bit per Setting: refused by the kernel
	bool keepalive_failed;   // SO_KEEPALIVE was refused
};

inline void bound(Session &session)
{
	bound_text(session.role_name);
	bound_text(session.database);
}

// Why the watcher has ended a backend.
enum class WatcherVerdict : std::uint8_t
{
	none,
	dead_after,
	stall_timeout,
};

// What the watcher (watcher.hpp) has seen of a session's client: written by the worker
// only.  It stays after the end of its session, and is valid only where pid and started
// are those of the session.  Times are of CLOCK_MONOTONIC, in ms; 0: none.
struct PeerObservation
{
	std::int32_t pid;
	std::int64_t started;
	std::int64_t asked_since;     // the kernel asks, and nothing was received
	std::int64_t stalled_since;   // the window is closed, and nothing was acknowledged
	std::uint64_t bytes_acked;    // at stalled_since
	std::uint8_t answered_probes; // see ConnectionSnapshot
	WatcherVerdict verdict;       // published before the backend is signalled
	std::int32_t decided_by;      // pid of the worker that came to the verdict
	std::uint8_t signals;         // how often it was signalled
	bool found;                   // the kernel has shown the socket
	std::uint8_t would_end;       // bit per WatcherVerdict: log_only has told of it
	std::int64_t signalled;       // when, last
};

struct alignas(64) Slot
{
	// Held to free the slot, by the worker to write `wanted`, and to read the last one.
	slock_t handover;
	Versioned<Session> session;
	Versioned<Wanted> wanted;
	Versioned<PeerObservation> observation;
	pg_atomic_uint32 overdue; // the worker could not read or signal it, and comes back
};
static_assert(sizeof(Slot) <= 1280);

enum class SlotState : std::uint8_t
{
	free,
	unreadable, // its process, or the worker, is stopped while it writes
	readable,
};

// Copies what is in the slot; what cannot be read is zero.
SlotState read_slot(const Slot &slot, Session &session, Wanted &wanted);

// Whether the worker is still to bring the slot up to date, whatever the copies say that
// are taken after this.
bool is_overdue(const Slot &slot);

// Whether the slot is still that session's.  It has no other owner until it is freed.
bool belongs_to(const Slot &slot, const Session &session);

// Whether the watcher has to look at this session's socket.
bool needs_watching(const Session &session, const Wanted &wanted);

} // namespace guard::pg
