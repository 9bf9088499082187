// Ended connections: a ring in shared memory, behind keepalive_events().
#pragma once

#include "pg/postgres.hpp"

#include "pg/ending.hpp"
#include "pg/shared.hpp"
#include "policy/idle_path.hpp"

extern "C"
{
#include "datatype/timestamp.h"
#include "storage/lwlock.h"
#include "utils/backend_status.h"
}

namespace guard::pg
{

constexpr std::int64_t not_known = -1;

struct Event
{
	TimestampTz ended_at;
	std::int32_t pid;
	Cause cause;
	BackendKind kind;
	Transport transport;
	bool governed;
	char policy[name_bytes];
	char database[name_bytes];
	char role_name[name_bytes];
	Oid role;
	char application_name[name_bytes];
	std::uint8_t state; // BackendState
	Endpoint client;
	std::int64_t connected_us;
	std::int64_t transaction_us; // not_known: no transaction was open
	PathEvidence path;
	TcpInfo info; // info.received is 0 on Unix sockets
	char detail[detail_bytes];
};

// Room for events and counters; called when shared memory is set up.
Size events_size();
void init_events(LWLock *lock);

// Copies the events, newest first.  Palloc'd.
Event *copy_events(int *count);

// What a session that has been in that state for `state_ms` tells of its path.  A
// TcpInfo without figures tells nothing.
PathEvidence path_evidence_of(const Session &session, BackendState state,
                              std::int64_t state_ms, const TcpInfo &info, PathEnd end);

// Records the end of this backend's session, and logs it if the client was lost.
void record_end(const Session &session, const Wanted &wanted, const Ending &ending,
                Port *port);

// Records, when this backend exits, that it never became a session.
void record_failed_authentication(const char *message);

} // namespace guard::pg
