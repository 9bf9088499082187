#include "pg/postgres.hpp"

#include "pg/functions/session_list.hpp"

#include "pg/endpoint.hpp"
#include "pg/functions/read_report.hpp"
#include "pg/functions/session_state.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "catalog/pg_authid.h"
#include "postmaster/postmaster.h"
#include "storage/procarray.h"
#include "utils/acl.h"
}

namespace guard::pg
{
namespace
{

// With slots, so many sessions at a time as the kernel is asked for in one go.  Without,
// all at once: they are found by walking through the kernel's table.
constexpr int sessions_at_a_time = 128;

// Slots and PostgreSQL's entries have the same numbers.
void find_slot(ListedSession &listed, int number)
{
	if (shared == nullptr)
		return;
	const Slot &slot = shared_slots()[number];
	Session session;
	Wanted wanted;
	listed.distributed = policies_distributed() && !is_overdue(slot);
	const SlotState state = read_slot(slot, session, wanted);
	if (state == SlotState::unreadable)
	{
		listed.unreadable = true;
		listed.wanted = wanted;
	}
	else if (session.pid == listed.session.pid &&
	         session.started == listed.backend.started)
	{
		listed.slot = &slot;
		listed.session = session;
		listed.wanted = wanted;
	}
}

// What can be said of a session without a slot.
void describe_without_slot(ListedSession &listed)
{
	Session &session = listed.session;
	session.socket = {};
	session.socket.remote = endpoint_of(listed.backend.client);
	session.transport =
		session.socket.remote.family != 0 ? Transport::tcp : Transport::unix_socket;
	session.socket.local.port = PostPortNumber;
}

template <typename T> T *array_of(int count)
{
	return static_cast<T *>(palloc(count * sizeof(T)));
}

} // namespace

Viewer current_viewer()
{
	const Oid role = GetUserId();
	return {role, has_privs_of_role(role, ROLE_PG_READ_ALL_STATS)};
}

bool list_session(int number, const Viewer &viewer, ListedSession &listed)
{
	if (!read_backend(number, listed.backend))
		return false;
	listed.session = {};
	listed.session.pid = listed.backend.pid;
	// As HAS_PGSTAT_PERMISSIONS in pgstatfuncs.c.
	listed.visible =
		viewer.sees_all || has_privs_of_role(viewer.role, listed.backend.role);
	listed.slot = nullptr;
	listed.unreadable = false;
	listed.wanted = {};
	find_slot(listed, number);
	if (listed.slot == nullptr)
		describe_without_slot(listed);
	return true;
}

const char *role_name_of(const ListedSession &listed)
{
	const char *name = GetUserNameFromId(listed.backend.role, true);
	return name != nullptr ? name : listed.session.role_name;
}

SessionWalk begin_walk(Details details)
{
	SessionWalk walk = {};
	walk.details = details;
	walk.viewer = current_viewer();
	walk.room = shared != nullptr ? sessions_at_a_time : MaxBackends;
	walk.sessions = array_of<ListedSession>(walk.room);
	walk.sockets = array_of<SessionSocket>(walk.room);
	walk.facts = array_of<SocketFacts>(walk.room);
	return walk;
}

bool next_sessions(SessionWalk &walk)
{
	for (walk.count = 0; walk.count < walk.room && walk.next < MaxBackends; walk.next++)
	{
		ListedSession &listed = walk.sessions[walk.count];
		if (!list_session(walk.next, walk.viewer, listed))
			continue;
		walk.sockets[walk.count] = {};
		if (listed.visible)
			walk.sockets[walk.count] = {listed.session.pid, listed.session.socket};
		walk.count++;
	}
	if (walk.count == 0)
		return false;
	if (walk.unreadable)
		return true;
	const ReadOutcome outcome =
		read_session_sockets(walk.sockets, walk.count, walk.facts, walk.details);
	report_reading(outcome, WARNING);
	if (outcome.kind == ReadOutcome::failed)
	{
		walk.unreadable = true;
		memset(static_cast<void *>(walk.facts), 0, walk.room * sizeof(SocketFacts));
	}
	return true;
}

bool still_there(const ListedSession &listed)
{
	if (listed.slot == nullptr)
		return BackendPidGetProc(listed.session.pid) != nullptr;
	return belongs_to(*listed.slot, listed.session);
}

} // namespace guard::pg
