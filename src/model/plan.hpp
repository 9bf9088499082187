// Computes settings from an intent.
#pragma once

#include <cstdint>
#include <string>

#include "model/detection.hpp"
#include "model/duration.hpp"
#include "model/tcp_timing.hpp"

namespace guard
{

struct Intent
{
	Millis detect_within;       // > 0
	Duration path_idle_timeout; // > 0; never: no path forgets a silent connection
	bool end_slow_readers;      // also living clients that read nothing for detect_within
};

enum class PlanError : std::uint8_t
{
	none,
	not_watching,      // keepalive_guard.watch_interval is 0
	detect_too_soon,   // detect_within is below `minimum`
	path_too_forgetful // path_idle_timeout is below `minimum`
};

struct Plan
{
	PlanError error;
	Millis minimum; // the least that is possible, with the last two errors; else 0

	// The rest is defined only if there is no error.
	DetectionSettings settings;
	// Each worst case is within the intent, provided that the path's retransmission
	// timeout stays within tcp_timeout_init; but `stalled` may be later unless the intent
	// is to end slow readers.
	Detection detection;
	std::int32_t probes_per_hour; // at most, for an idle living peer
	// What is left of detect_within for the kernel's timers.
	Millis promise;
	// For hosts without keepalive_guard, whose kernel's limits are not known:
	// TCP_USER_TIMEOUT and the time to connect for the client's own side, and the sysctls
	// tcp_retries2 and tcp_syn_retries.
	std::int32_t client_user_timeout_ms;
	std::int32_t client_connect_timeout_s;
	std::int32_t tcp_retries2;
	std::int32_t tcp_syn_retries;
};

// The longest time in which a program notices that its own timer has ended, after
// `timer`.
Millis with_margin(Millis timer);

// The settings that detect a dead peer within intent.detect_within in every state, unless
// it had closed its window before, and that send probes often enough for
// intent.path_idle_timeout.
Plan make_plan(const Intent &intent, std::int32_t watch_interval_ms,
               const KernelLimits &limits) noexcept;

// The same for the client's side, as a libpq connection string.  The client side has no
// dead_after, so it takes a user timeout, which also ends the connection to a living
// server that does not read what it was sent for that long (COPY FROM waiting for a
// lock).
std::string libpq_options(const Plan &plan);

// The same for all programs of a host, as lines of sysctl.conf.  Data in flight and
// connecting are covered, a closed window is not.
std::string sysctl_lines(const Plan &plan);

// The same as a statement that adds a policy named after the intent to `table`, or
// updates it.  `table` is used as it is: the caller has quoted and qualified it.
std::string policy_insert(const Plan &plan, const Intent &intent,
                          const std::string &table = "keepalive_policy");

struct PlanTexts
{
	char libpq_options[256];
	char sysctl_lines[256];
	char policy_insert[1024];
};

// All three, for callers that must not get an exception; false if one is too long or
// there is not enough memory.
bool plan_texts(const Plan &plan, const Intent &intent, const char *table,
                PlanTexts *texts) noexcept;

} // namespace guard
