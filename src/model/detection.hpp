// How long a peer that has disappeared without a word goes unnoticed.
#pragma once

#include <cstdint>
#include <tuple>

#include "model/duration.hpp"
#include "model/tcp_timing.hpp"

namespace guard
{

// What watches over one TCP connection.  0 switches off, but for idle, interval and
// count: there the system's default has to be filled in already.
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
// case; never, if nothing but the backend's own next use of the socket can end it.  The
// worst case includes the kernel's timers being late, but not the time that a loaded
// machine needs to run a process that is ready to run.
struct Detection
{
	// Nothing is in flight and the backend waits for its client, in or out of a
	// transaction: the kernel's verdict ends it at once.
	Span idle;
	// Nothing is in flight and the backend is at work.  It may not touch its socket for
	// hours, so the kernel's verdict ends it with the next client check; if that is off,
	// the worst case is never.
	Span working;
	// Data is in flight and the backend waits for its client, reading or writing.
	Span in_flight;
	// Data is in flight and the backend is at work: as in_flight, with what is said of
	// working.  SQL's detects_busy.
	Span busy;
	// The peer had closed its window, alive or dead, and the backend waits to write.
	// The earliest case may be 0: user_timeout and stall_timeout count from the closing.
	Span stalled;
	// The window is open, whatever the backend writes after the disappearance: data
	// written while keepalive probes go unanswered stops these, and retransmission
	// begins from zero.  Includes all of the above but stalled.
	Span late_write;
};

// `rto` is the retransmission timeout to reckon with, without back-off, in ms; with a
// longer round trip than that the worst cases do not hold.
Detection detection(const DetectionSettings &settings, const KernelLimits &limits,
                    Millis rto = tcp_timeout_init) noexcept;

} // namespace guard
