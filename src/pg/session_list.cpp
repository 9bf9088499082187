#include "pg/postgres.hpp"

#include "pg/session_list.hpp"

#include "pg/compat.hpp"

#include <algorithm>

#include <netinet/in.h>

extern "C"
{
#include "catalog/pg_authid.h"
#include "pgstat.h"
#include "postmaster/postmaster.h"
#include "storage/procarray.h"
#include "utils/acl.h"
}

namespace guard::pg
{
namespace
{

struct SlotOfPid
{
	std::int32_t pid;
	const Slot *slot;
};

bool by_pid(const SlotOfPid &a, const SlotOfPid &b)
{
	return a.pid < b.pid;
}

// The slots in use, ordered by pid.
SlotOfPid *slots_in_use(int *count)
{
	*count = 0;
	if (shared == nullptr)
		return nullptr;
	auto *slots =
		static_cast<SlotOfPid *>(palloc(shared->slot_count * sizeof(SlotOfPid)));
	for (uint32 i = 0; i < shared->slot_count; i++)
	{
		const Slot &slot = shared_slots()[i];
		// A hint only: find_slot() looks again.
		std::int32_t pid =
			*const_cast<const volatile std::int32_t *>(&slot.session.value.pid);
		if (pid != 0)
			slots[(*count)++] = {pid, &slot};
	}
	std::sort(slots, slots + *count, by_pid);
	return slots;
}

void find_slot(ListedSession &listed, const SlotOfPid *slots, int count)
{
	const PgBackendStatus &backend = listed.status->backendStatus;
	const SlotOfPid *end = slots + count;
	const SlotOfPid *found =
		std::lower_bound(slots, end, SlotOfPid{backend.st_procpid, nullptr}, by_pid);
	if (found == end || found->pid != backend.st_procpid)
		return;
	Session session;
	if (found->slot->session.read(session) && session.pid == backend.st_procpid &&
	    session.started == backend.st_proc_start_timestamp &&
	    found->slot->wanted.read(listed.wanted))
	{
		listed.slot = found->slot;
		listed.session = session;
	}
}

// The client's end as PostgreSQL has it; without family for a Unix socket.
Endpoint client_endpoint(const SockAddr &client)
{
	Endpoint endpoint = {};
	if (client.addr.ss_family == AF_INET)
	{
		const auto &v4 = reinterpret_cast<const sockaddr_in &>(client.addr);
		endpoint.family = 4;
		endpoint.port = ntohs(v4.sin_port);
		memcpy(endpoint.address.data(), &v4.sin_addr, sizeof(v4.sin_addr));
	}
	else if (client.addr.ss_family == AF_INET6)
	{
		const auto &v6 = reinterpret_cast<const sockaddr_in6 &>(client.addr);
		endpoint.family = 6;
		endpoint.port = ntohs(v6.sin6_port);
		memcpy(endpoint.address.data(), &v6.sin6_addr, sizeof(v6.sin6_addr));
	}
	return endpoint;
}

// What can be said of a session without a slot.
void describe_without_slot(ListedSession &listed)
{
	const PgBackendStatus &backend = listed.status->backendStatus;
	Session &session = listed.session;
	session.pid = backend.st_procpid;
	session.socket.remote = client_endpoint(backend.st_clientaddr);
	session.transport =
		session.socket.remote.family != 0 ? Transport::tcp : Transport::unix_socket;
	session.socket.local.port = PostPortNumber;
}

} // namespace

SessionList list_sessions()
{
	int slot_count;
	SlotOfPid *slots = slots_in_use(&slot_count);

	// As HAS_PGSTAT_PERMISSIONS in pgstatfuncs.c.
	Oid user = GetUserId();
	bool sees_all = has_privs_of_role(user, ROLE_PG_READ_ALL_STATS);

	int backends = pgstat_fetch_stat_numbackends();
	SessionList list = {};
	list.sessions =
		static_cast<ListedSession *>(palloc0((backends + 1) * sizeof(ListedSession)));
	for (int i = 1; i <= backends; i++)
	{
		LocalPgBackendStatus *status = compat::local_backend_status(i);
		if (status == nullptr || (status->backendStatus.st_backendType != B_BACKEND &&
		                          status->backendStatus.st_backendType != B_WAL_SENDER))
			continue;
		ListedSession &listed = list.sessions[list.count++];
		listed.status = status;
		listed.visible =
			sees_all || has_privs_of_role(user, status->backendStatus.st_userid);
		find_slot(listed, slots, slot_count);
		if (listed.slot == nullptr)
			describe_without_slot(listed);
	}
	return list;
}

bool still_there(const ListedSession &listed)
{
	if (listed.slot == nullptr)
		return BackendPidGetProc(listed.session.pid) != nullptr;
	Session now;
	return listed.slot->session.read(now) && now.pid == listed.session.pid &&
	       now.started == listed.session.started;
}

} // namespace guard::pg
