#include "pg/postgres.hpp"

#include "pg/functions/session_state.hpp"

namespace guard::pg
{

SessionState session_state(const Session &session, const Wanted &wanted, bool distributed)
{
	if (!wanted.governed() && session.applied == wanted.version)
		return SessionState::ungoverned;
	if (session.applied != wanted.version || !distributed)
		return SessionState::pending;
	if (session.failed != 0 || session.keepalive_failed)
		return SessionState::failed;
	return session.overridden != 0 ? SessionState::overridden : SessionState::applied;
}

const char *session_state_name(SessionState state)
{
	switch (state)
	{
	case SessionState::ungoverned:
		return nullptr;
	case SessionState::applied:
		return "applied";
	case SessionState::overridden:
		return "overridden";
	case SessionState::failed:
		return "failed";
	case SessionState::pending:
		return "pending";
	}
	return nullptr;
}

} // namespace guard::pg
