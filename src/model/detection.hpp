// How long it takes to notice a peer that has disappeared silently.
#pragma once

#include <cstdint>
#include <tuple>

#include "model/duration.hpp"
#include "model/tcp_timing.hpp"

namespace guard
{

// The settings that detect a dead peer of one TCP connection.  0 means off, except for
// idle, interval and count, which must already contain the system's default.
struct DetectionSettings
{
	bool keepalive;                 // SO_KEEPALIVE
	std::int32_t idle_s;            // TCP_KEEPIDLE, > 0
	std::int32_t interval_s;        // TCP_KEEPINTVL, > 0
	std::int32_t count;             // TCP_KEEPCNT, > 0
	std::int32_t user_timeout_ms;   // TCP_USER_TIMEOUT
	std::int32_t client_check_ms;   // client_connection_check_interval
	std::int32_t dead_after_ms;     // the guard's, see asking() in verdict.hpp
	std::int32_t stall_timeout_ms;  // the guard's
	std::int32_t watch_interval_ms; // keepalive_guard.watch_interval; 0: no guard
};

inline bool operator==(const DetectionSettings &a, const DetectionSettings &b) noexcept
{
	auto all = [](const DetectionSettings &w)
	{
		return std::tie(w.keepalive, w.idle_s, w.interval_s, w.count, w.user_timeout_ms,
		                w.client_check_ms, w.dead_after_ms, w.stall_timeout_ms,
		                w.watch_interval_ms);
	};
	return all(a) == all(b);
}

// The time from the peer's disappearance to the end of the backend, best and worst
// case; never, if only the backend's own next use of the socket can end it.  The worst
// case includes that the kernel's timers may be late, but not that a process may have to
// wait for a CPU on a loaded machine.
struct Detection
{
	// Nothing is in flight and the backend waits for its client, in or out of a
	// transaction: when the kernel gives the connection up, the backend ends at once.
	Span idle;
	// Nothing is in flight and the backend is executing.  It may not use its socket for
	// hours, so it ends at the first client check after the kernel has given the
	// connection up; if that check is off, the worst case is never.
	Span working;
	// Data is in flight and the backend waits for its client, reading or writing.
	Span in_flight;
	// Data is in flight and the backend is executing: as in_flight, but ended by a client
	// check as in working.  In SQL: detects_busy.
	Span busy;
	// The peer had closed its window, alive or dead, and the backend waits to write.
	// The best case may be 0: user_timeout and stall_timeout count from the moment when
	// the window was closed.
	Span stalled;
	// The window is open, and the backend may write something at any time after the
	// disappearance: data that is written while keepalive probes are unanswered stops
	// these, and retransmission begins from zero.  Includes all of the above but stalled.
	Span late_write;
};

// `rto` is the assumed retransmission timeout, without back-off, in ms.  If the round
// trip is longer than that, the worst cases do not hold.
Detection detection(const DetectionSettings &settings, const KernelLimits &limits,
                    Millis rto = tcp_timeout_init) noexcept;

} // namespace guard
