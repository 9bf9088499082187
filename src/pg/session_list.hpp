// The sessions that the reading functions are about, as PostgreSQL and the guard's
// slots know them.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared.hpp"

extern "C"
{
#include "utils/backend_status.h"
}

namespace guard::pg
{

struct ListedSession
{
	const LocalPgBackendStatus *status; // good for this transaction (pgstat's snapshot)
	const Slot *slot;                   // nullptr: the guard does not know the session
	// Copies.  Without a slot: the transport, the client's end and the server's port, as
	// PostgreSQL knows them, and nothing wanted.
	Session session;
	Wanted wanted;
	bool visible; // the caller may see the details, as in pg_stat_activity
};

struct SessionList
{
	ListedSession *sessions; // palloc'd
	int count;
};

// All client backends and walsenders.
SessionList list_sessions();

// Whether the session is still the one in its slot; without a slot, whether its process
// is still a backend.
bool still_there(const ListedSession &listed);

} // namespace guard::pg
