// What a connection shows about the path to its client: whether a device on it forgets
// idle connections.
#pragma once

#include <cstdint>

#include "model/duration.hpp"

namespace guard
{

// How a connection ended, as far as the path is concerned.
enum class PathEnd : std::uint8_t
{
	none,         // it has not ended, or the server ended it
	client_spoke, // Terminate or FIN arrived
	unanswered,   // keepalive probes were not answered
	reset,        // RST arrived
};

// An idle connection, at its end or now.  All times are in milliseconds, back from then.
struct IdlePath
{
	Millis quiet;            // since the server last sent data or worked for the client
	Millis options_changed;  // since SO_KEEPALIVE or TCP_KEEPIDLE last changed
	Millis silent;           // since something was received
	Millis keepalive_idle;   // TCP_KEEPIDLE; 0: SO_KEEPALIVE is off
	std::uint8_t unanswered; // keepalive probes
	PathEnd end;
};

enum class PathOutcome : std::uint8_t
{
	unknown,
	survived, // something of the client's came through after the path had been idle
	lost,     // the first probe after it got no answer, or a reset
	reset,    // a reset came without a probe: from the client or a device
};

struct PathEvidence
{
	PathOutcome outcome;
	// The path was idle for this long, at least.  A probe is late by up to an eighth of
	// it (the kernel's timer wheel).
	Millis idle_for;
};

const char *path_outcome_name(PathOutcome outcome) noexcept; // nullptr for unknown

// For a connection that is idle now, or was idle at its end.  Survivals of less than a
// second are unknown: they say nothing about idle timeouts.
//
// It cannot see the client's own keepalive probes, which keep the path busy too:
// tcp_validate_incoming() discards them, and nothing in tcp_info changes but segs_in.
PathEvidence path_evidence(const IdlePath &path) noexcept;

} // namespace guard
