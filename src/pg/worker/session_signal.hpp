// Signalling the backend of a session without ever hitting another process.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared/state.hpp"

namespace guard::pg
{

enum class SignalOutcome
{
	sent,
	gone,   // the session has ended
	failed, // errno says why
};

// Signals the backend in `slot` only if it is still the session that was seen: with a
// descriptor of the process in hand its pid cannot be recycled.
SignalOutcome signal_session(const Slot &slot, const Session &seen, int number);

} // namespace guard::pg
