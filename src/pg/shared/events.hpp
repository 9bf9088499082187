// Ended connections: a ring in shared memory, behind keepalive_events().
#pragma once

#include "pg/postgres.hpp"

#include "model/cause.hpp"
#include "model/idle_path.hpp"
#include "pg/shared/slots.hpp"

extern "C"
{
#include "datatype/timestamp.h"
#include "storage/lwlock.h"
#include "utils/backend_status.h"
}

namespace guard::pg
{

constexpr std::int64_t not_known = -1;
constexpr int detail_bytes = 256;

// How a connection ended.
struct Ending
{
	Cause cause;
	TcpInfo info;              // TCP only
	char detail[detail_bytes]; // the evidence, in words
};

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

// Room for events; called while shared memory is set up (setup.cpp).
Size events_size();
void init_events(LWLock *lock);

void add_event(const Event &event);

// Copies the events, newest first.  Palloc'd.
Event *copy_events(int *count);

// As pg_stat_activity shows a BackendState; nullptr for none.
const char *state_name(std::uint8_t state);

} // namespace guard::pg
