// The sessions that the reading functions are about, as PostgreSQL, the guard's slots
// and the kernel know them.
#pragma once

#include "pg/postgres.hpp"

#include "kernel/read_sockets.hpp"
#include "pg/backend_entry.hpp"
#include "pg/shared/slots.hpp"

extern "C"
{
#include "utils/memutils.h"
}

namespace guard::pg
{

struct ListedSession
{
	Backend backend;
	const Slot *slot; // nullptr: the guard does not know the session
	bool unreadable;  // without a slot: the guard knows it, but cannot read its slot now
	// Copies.  Without a slot: the pid, the transport, the client's end and the server's
	// port, as PostgreSQL knows them, and nothing wanted unless `unreadable`.
	Session session;
	Wanted wanted;
	bool distributed; // policies_distributed() before the copies were taken
	bool visible;     // the caller may see the details, as in pg_stat_activity
};

// Who asks about sessions.
struct Viewer
{
	Oid role;
	bool sees_all; // pg_read_all_stats
};
Viewer current_viewer();

// Fills `listed` with the session that has this number (from 0, below MaxBackends);
// false if there is none.
bool list_session(int number, const Viewer &viewer, ListedSession &listed);

// The name of its role, which may have been renamed or dropped since it logged in.
const char *role_name_of(const ListedSession &listed);

// A walk through all client backends and walsenders, some at a time: so its memory is
// small and stays in the processor's caches.
struct SessionWalk
{
	Details details;
	Viewer viewer;
	bool unreadable; // the kernel cannot be asked: what it knows is missing
	int next;        // backend number to go on with
	int room;        // of the arrays
	int count;       // in the arrays
	ListedSession *sessions;
	SessionSocket *sockets;
	// As of find_session_sockets(); nothing is read for sessions that are not visible or
	// have no TCP socket.
	SocketFacts *facts;
};

SessionWalk begin_walk(Details details);

// Fills the arrays with the next sessions; false if there are no more.
bool next_sessions(SessionWalk &walk);

// Whether the session is still the one in its slot; without a slot, whether its process
// is still a backend.
bool still_there(const ListedSession &listed);

// Calls visit(session, facts) for every session that is still there.  What it palloc's
// lasts until it returns.
template <typename Visit> void visit_sessions(Details details, Visit visit)
{
	SessionWalk walk = begin_walk(details);
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "keepalive sessions", ALLOCSET_DEFAULT_SIZES);
	while (next_sessions(walk))
		for (int i = 0; i < walk.count; i++)
		{
			if (!still_there(walk.sessions[i]))
				continue;
			MemoryContext caller = MemoryContextSwitchTo(context);
			visit(walk.sessions[i], walk.facts[i]);
			MemoryContextSwitchTo(caller);
			MemoryContextReset(context);
		}
	MemoryContextDelete(context);
}

} // namespace guard::pg
