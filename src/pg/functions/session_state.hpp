// How far a session's policy is in force.
#pragma once

#include "pg/shared/state.hpp"

namespace guard::pg
{

enum class SessionState
{
	ungoverned,
	applied,    // what the policy sets is in force
	overridden, // something else is in force, because somebody may choose it
	failed,     // the kernel refused something
	pending,    // the session has not confirmed yet, or policies are still being read
};

// Of copies from a slot; `distributed` is policies_distributed() from before they were
// taken.
SessionState session_state(const Session &session, const Wanted &wanted,
                           bool distributed);

// keepalive_status()'s word for it; nullptr for ungoverned.
const char *session_state_name(SessionState state);

} // namespace guard::pg
