#include "pg/postgres.hpp"

#include "pg/worker/watcher.hpp"

#include "kernel/read_sockets.hpp"
#include "model/effective.hpp"
#include "pg/clock.hpp"
#include "pg/settings.hpp"
#include "pg/shared/events.hpp"
#include "pg/shared/snapshot.hpp"
#include "pg/shared/state.hpp"
#include "pg/shared/would_end.hpp"
#include "pg/text.hpp"
#include "pg/worker/session_signal.hpp"

#include <algorithm>
#include <csignal>

extern "C"
{
#include "utils/memutils.h"
}

namespace guard::pg
{
namespace
{

// When a backend gets another SIGTERM.  One whose send buffer was full while it was
// computing, or while it sent WAL, blocks in sending its last message, where only that
// ends it (ProcessClientWriteInterrupt).
constexpr std::int64_t second_signal_ms = 1000;
constexpr std::uint8_t most_signals = 2;

// How long a backend has to exit.  If it is still there after that, nothing ends it.
constexpr std::int64_t patience_ms = 10000;

// The kernel counts times in jiffies, and a reply takes a moment.
constexpr std::int64_t rounding_ms = 20;

struct WatchedSession
{
	Slot *slot;
	Session session;
	Wanted wanted;
};

// Room for every slot, of which only what is needed is ever touched.
WatchedSession *watched_sessions = nullptr;
SocketId *sockets = nullptr;
SocketFacts *facts = nullptr;

// A look that is later than this finds a machine, or a worker, that was stopped for a
// while: what clients did not answer in that time may be the machine's own fault.
constexpr std::int64_t longest_delay_ms = 5000;

std::int64_t next_look = 0;
std::int64_t last_look = 0;
bool was_stopped = false;

template <typename T> T *room_for(std::uint32_t count)
{
	return static_cast<T *>(MemoryContextAllocHuge(TopMemoryContext, count * sizeof(T)));
}

// Only what is cheap to see: most sessions need no watching.
bool may_need_watching(const Slot &slot)
{
	const Session &session = slot.session.value;
	const ComposedSettings &settings = slot.wanted.value.settings;
	auto look = [](const std::int32_t &number)
	{
		return *const_cast<const volatile std::int32_t *>(&number);
	};
	return look(session.pid) != 0 && (look(settings.value[item_dead_after]) != 0 ||
	                                  look(settings.value[item_stall_timeout]) != 0 ||
	                                  look(settings.log_dead_after_ms) != 0 ||
	                                  look(settings.log_stall_timeout_ms) != 0);
}

// Sets *unreadable if there may be more of them.
std::uint32_t find_watched_sessions(bool *unreadable)
{
	if (watched_sessions == nullptr)
	{
		watched_sessions = room_for<WatchedSession>(shared->slot_count);
		sockets = room_for<SocketId>(shared->slot_count);
		facts = room_for<SocketFacts>(shared->slot_count);
	}
	std::uint32_t count = 0;
	*unreadable = false;
	for (std::uint32_t i = 0; i < shared->slot_count; i++)
	{
		Slot &slot = shared_slots()[i];
		if (!may_need_watching(slot))
			continue;
		WatchedSession &watched = watched_sessions[count];
		watched.slot = &slot;
		if (read_slot(slot, watched.session, watched.wanted) == SlotState::unreadable)
			*unreadable = true;
		else if (needs_watching(watched.session, watched.wanted))
			sockets[count++] = watched.session.socket;
	}
	return count;
}

bool read_facts(const SocketId *wanted, std::uint32_t count, SocketFacts *answers)
{
	static bool logged = false;
	const ReadOutcome outcome = read_sockets(wanted, count, answers, Details{});
	if (outcome.kind != ReadOutcome::ok && !logged)
		ereport(LOG,
		        (errmsg("keepalive_guard: could not read sockets from the kernel: %s",
		                outcome.message),
		         errdetail("dead_after and stall_timeout are not enforced until this is "
		                   "resolved.")));
	logged = outcome.kind != ReadOutcome::ok;
	return !logged;
}

std::uint8_t bit(WatcherVerdict verdict)
{
	return 1 << static_cast<int>(verdict);
}

// What is known of the peer after a look, by what was known before.
PeerObservation observed(const WatchedSession &watched, const SocketFacts &now_seen,
                         std::int64_t now, const KernelLimits &limits)
{
	PeerObservation observation = {};
	if (!watched.slot->observation.read(observation) ||
	    observation.pid != watched.session.pid ||
	    observation.started != watched.session.started)
	{
		observation = {};
		observation.pid = watched.session.pid;
		observation.started = watched.session.started;
	}
	if (!now_seen.found)
	{
		// The kernel has given up, or was told by a reset: nothing more is going to be
		// received.  But a socket of which the kernel has never shown anything may be of
		// a kind that it does not show.
		if (observation.found && observation.asked_since == 0)
			observation.asked_since = now;
		return observation;
	}
	observation.found = true;
	if (was_stopped)
		observation.asked_since = observation.stalled_since = 0;
	if (now_seen.info.received == 0)
		return observation;

	const ConnectionSnapshot snapshot =
		snapshot_of(now_seen, watched.session, observation);
	const DetectionSettings settings =
		detection_settings_of(watched.session.in_force, watched.session.keepalive,
	                          watched.wanted.settings, watch_interval);
	const std::int64_t last_receipt = now - silent_for(snapshot);
	const bool asks = asking(snapshot, settings, limits);
	observation.answered_probes = asks ? 0 : now_seen.info.probes;
	if (!asks)
		observation.asked_since = 0;
	else if (observation.asked_since == 0 ||
	         last_receipt > observation.asked_since + rounding_ms)
	{
		observation.asked_since = now; // this question is a new one
		observation.would_end &= ~bit(WatcherVerdict::dead_after);
	}
	else
		observation.asked_since = std::max(observation.asked_since, last_receipt);

	// A reader that is merely slow has read something since, though its window may be
	// closed at every look.
	const std::uint64_t acknowledged = now_seen.info.bytes_acked;
	if (!zero_window(snapshot))
		observation.stalled_since = 0;
	else if (observation.stalled_since == 0 || observation.bytes_acked != acknowledged)
	{
		observation.stalled_since = now;
		observation.bytes_acked = acknowledged;
		observation.would_end &= ~bit(WatcherVerdict::stall_timeout);
	}
	return observation;
}

bool is_over(std::int32_t timeout, std::int64_t since, std::int64_t now)
{
	return timeout != 0 && since != 0 && now - since >= timeout;
}

WatcherVerdict judged(const WatchedSession &watched, const PeerObservation &observation,
                      std::int64_t now)
{
	const ComposedSettings &settings = watched.wanted.settings;
	if (is_over(settings.dead_after_ms(), observation.asked_since, now))
		return WatcherVerdict::dead_after;
	if (is_over(settings.stall_timeout_ms(), observation.stalled_since, now))
		return WatcherVerdict::stall_timeout;
	return WatcherVerdict::none;
}

double seconds(std::int64_t milliseconds)
{
	return milliseconds / 1000.0;
}

int evidence(const WatchedSession &watched, const SocketFacts &seen)
{
	const EndpointText client = endpoint_text(watched.session.socket.remote);
	if (!seen.found)
		return errdetail("Client %s: the kernel has given up the connection.",
		                 client.text);
	const TcpInfo &info = seen.info;
	return errdetail("Client %s: silent for %.3f s, state %s, timer %s, "
	                 "%d unanswered probes, %d retransmits, %u bytes to send, "
	                 "%u packets unacknowledged.",
	                 client.text, seconds(silent_for(info)), tcp_state_name(seen.state),
	                 timer_name(seen.timer), info.probes, info.retransmits,
	                 seen.send_queue, info.unacked);
}

void log_ending(const WatchedSession &watched, const PeerObservation &observation,
                const SocketFacts &seen, std::int64_t now)
{
	const ComposedSettings &settings = watched.wanted.settings;
	if (observation.verdict == WatcherVerdict::dead_after)
		ereport(
			DEBUG1,
			(errmsg("keepalive_guard: terminating session with PID %d: client has not "
		            "answered for %.3f s (dead_after %.3f s "
		            "of policy \"%s\")",
		            watched.session.pid, seconds(now - observation.asked_since),
		            seconds(settings.dead_after_ms()),
		            watched.wanted.source_of(item_dead_after)),
		     evidence(watched, seen)));
	else
		ereport(DEBUG1,
		        (errmsg("keepalive_guard: terminating session with PID %d: client has "
		                "read nothing for %.3f s (stall_timeout %.3f s of policy \"%s\")",
		                watched.session.pid, seconds(now - observation.stalled_since),
		                seconds(settings.stall_timeout_ms()),
		                watched.wanted.source_of(item_stall_timeout)),
		         evidence(watched, seen)));
}

// A signal that the kernel refuses does not count: insist() sends another one.
void terminate(const WatchedSession &watched, PeerObservation observation,
               std::int64_t now)
{
	static int logged = 0;
	// First: the event of a backend that exits at once has the verdict as its cause.
	observation.signals++;
	observation.signalled = now;
	watched.slot->observation.write(observation);
	if (signal_session(*watched.slot, watched.session, SIGTERM) != SignalOutcome::failed)
	{
		logged = 0;
		return;
	}
	const int error = errno;
	observation.signals--;
	watched.slot->observation.write(observation);
	if (error != logged)
		ereport(LOG, (errmsg("keepalive_guard: could not terminate session with PID %d: "
		                     "%m",
		                     watched.session.pid),
		              errdetail("The worker tries again every second.")));
	logged = error;
}

// A backend that should exit has not yet.
void insist(const WatchedSession &watched, PeerObservation observation, std::int64_t now)
{
	const std::int64_t waited = now - observation.signalled;
	if (observation.signals < most_signals)
	{
		if (waited >= second_signal_ms)
			terminate(watched, observation, now);
		return;
	}
	if (observation.signals > most_signals || waited < patience_ms - second_signal_ms)
		return;
	observation.signals++;
	watched.slot->observation.write(observation);
	ereport(LOG, (errmsg("keepalive_guard: session with PID %d did not exit within "
	                     "%lld s of SIGTERM",
	                     watched.session.pid, static_cast<long long>(patience_ms / 1000)),
	              errdetail(
					  "It executes code that does not process signals: code that holds a "
					  "lightweight lock or does not check for interrupts, or the "
					  "kernel's.")));
}

// Logs, records and counts what a policy that is log_only would have ended: once for each
// time that the client stopped answering or reading.
void tell_would_end(const WatchedSession &watched, PeerObservation &observation,
                    const SocketFacts &seen, std::int64_t now, WatcherVerdict verdict,
                    std::int32_t timeout, std::int64_t since, int source)
{
	if (since == 0)
		observation.would_end &= ~bit(verdict);
	if (!is_over(timeout, since, now) || (observation.would_end & bit(verdict)))
		return;
	observation.would_end |= bit(verdict);
	const char *policy =
		watched.wanted.policies.name[watched.wanted.settings.source[source]];
	const bool dead = verdict == WatcherVerdict::dead_after;
	char detail[detail_bytes];
	snprintf(detail, sizeof(detail), "%s of policy \"%s\": client has %s for %.3f s",
	         dead ? "dead_after" : "stall_timeout", text_for_log(policy),
	         dead ? "not answered" : "read nothing", seconds(now - since));
	record_would_end(watched.slot - shared_slots(), watched.session, watched.wanted,
	                 policy, seen.info, detail);
	if (log_lost_connections)
		ereport(LOG, (errmsg("keepalive_guard: log_only: would have ended the session "
		                     "with PID %d by %s",
		                     watched.session.pid, detail),
		              evidence(watched, seen)));
}

void tell_would_end(const WatchedSession &watched, PeerObservation &observation,
                    const SocketFacts &seen, std::int64_t now)
{
	const ComposedSettings &settings = watched.wanted.settings;
	tell_would_end(watched, observation, seen, now, WatcherVerdict::dead_after,
	               settings.log_dead_after_ms, observation.asked_since,
	               source_log_dead_after);
	tell_would_end(watched, observation, seen, now, WatcherVerdict::stall_timeout,
	               settings.log_stall_timeout_ms, observation.stalled_since,
	               source_log_stall_timeout);
}

void look_at(const WatchedSession &watched, const SocketFacts &seen, std::int64_t now,
             const KernelLimits &limits)
{
	PeerObservation observation = observed(watched, seen, now, limits);
	if (observation.verdict != WatcherVerdict::none)
	{
		insist(watched, observation, now);
		return;
	}
	tell_would_end(watched, observation, seen, now);
	watched.slot->observation.write(observation);
	if (judged(watched, observation, now) == WatcherVerdict::none)
		return;

	// The answer may have come since.
	SocketFacts at_last = {};
	if (!read_facts(&watched.session.socket, 1, &at_last))
		return;
	now = monotonic_ms();
	observation = observed(watched, at_last, now, limits);
	observation.verdict = judged(watched, observation, now);
	if (observation.verdict == WatcherVerdict::none)
	{
		watched.slot->observation.write(observation);
		return;
	}
	observation.decided_by = MyProcPid;
	log_ending(watched, observation, at_last, now);
	terminate(watched, observation, now);
}

// The sessions to look at.  When there is none, the next one has to wake the worker,
// and either this sees that session or that session sees `watching`.
std::uint32_t sessions_to_watch()
{
	bool unreadable;
	std::uint32_t count = find_watched_sessions(&unreadable);
	if (count == 0 && !unreadable && pg_atomic_exchange_u32(&shared->watching, 0) != 0)
		count = find_watched_sessions(&unreadable);
	if (count != 0 || unreadable)
		pg_atomic_write_u32(&shared->watching, 1);
	return count;
}

} // namespace

long watch_sessions()
{
	if (watch_interval == 0)
	{
		pg_atomic_write_u32(&shared->watching, 0);
		last_look = 0;
		return -1;
	}
	std::int64_t now = monotonic_ms();
	if (pg_atomic_read_u32(&shared->watching) != 0)
	{
		next_look = std::min(next_look, now + watch_interval);
		if (now < next_look)
			return next_look - now;
	}

	const std::uint32_t count = sessions_to_watch();
	if (count == 0)
	{
		last_look = 0;
		if (pg_atomic_read_u32(&shared->watching) == 0)
			return -1;
		next_look = now + watch_interval;
		return watch_interval;
	}
	if (read_facts(sockets, count, facts))
	{
		now = monotonic_ms();
		was_stopped =
			last_look != 0 && now - last_look > watch_interval + longest_delay_ms;
		last_look = now;
		const KernelLimits limits = kernel_limits();
		for (std::uint32_t i = 0; i < count; i++)
		{
			look_at(watched_sessions[i], facts[i], now, limits);
			CHECK_FOR_INTERRUPTS();
		}
		was_stopped = false;
	}
	next_look = now + watch_interval;
	return watch_interval;
}

} // namespace guard::pg
