// Ended connections, in shared memory, behind keepalive_events().
//
// Lost connections have room of their own, so that no number of orderly ends and failed
// logins makes the server forget them.  Nobody waits here: each event is a sequence lock
// of its own, a writer claims a place by counting, and a reader passes over a place that
// is being written.
#pragma once

#include "pg/postgres.hpp"

#include "kernel/socket.hpp"
#include "model/cause.hpp"
#include "model/compose.hpp"
#include "model/idle_path.hpp"
#include "pg/shared/slots.hpp"

extern "C"
{
#include "datatype/timestamp.h"
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

// What the kernel said last.
struct TcpFigures
{
	bool known; // else the rest is empty
	std::uint8_t probes;
	std::uint8_t retransmits;
	std::uint32_t rtt;       // microseconds
	std::int64_t silent_ms;  // since anything was received
	std::int64_t bytes_sent; // not_known: the kernel is too old
	std::int64_t bytes_received;
};

struct Event
{
	std::uint64_t number; // given by add_event(), from 1
	TimestampTz ended_at;
	std::int32_t pid;
	Cause cause;
	BackendKind kind;
	Transport transport;
	std::uint8_t state; // BackendState
	Oid role;           // InvalidOid: it never became a session
	Endpoint client;
	std::int64_t connected_us;
	std::int64_t transaction_us; // not_known: no transaction was open
	PathEvidence path;
	TcpFigures tcp;
	char database[name_bytes];
	char role_name[name_bytes];
	char application_name[name_bytes];
	// The names of the policies, one behind the other, and then the detail.  There is
	// room for every name, and for more of the detail where they are short.
	std::uint8_t policy_count;
	std::uint16_t detail_at;
	char texts[704];
};
static_assert(sizeof(Event::texts) >= sizeof(PolicyNames) + 60);

inline void bound(Event &event)
{
	event.cause = static_cast<Cause>(Min(static_cast<int>(event.cause), cause_count - 1));
	bound_text(event.database);
	bound_text(event.role_name);
	bound_text(event.application_name);
	bound_text(event.texts);
	event.policy_count = Min(event.policy_count, most_sources);
	event.detail_at = Min(event.detail_at, sizeof(event.texts) - 1);
}

// The policies come first.
void set_policies(Event &event, const PolicyNames &policies);
void set_detail(Event &event, const char *detail);

PolicyNames policies_of(const Event &event);
const char *detail_of(const Event &event);

TcpFigures tcp_figures(const TcpInfo &info);

// Which events push each other out.
enum class EventRoom : std::uint8_t
{
	lost, // lost connections, and those that a log_only policy would have ended
	other,
};
constexpr int event_rooms = 2;

// Room for max_events of each; called while shared memory is set up (setup.cpp).  The
// postmaster also loads what the last clean shutdown saved, and arranges for saving.
Size events_size();
void init_events();

void add_event(Event event);

// Walks over the events, newest first.
struct EventWalk
{
	bool (*visible)(Oid role); // nullptr: all of them are
	std::uint64_t next[event_rooms];
	std::uint64_t last[event_rooms]; // this one and older ones are gone
	bool found[event_rooms];
	Event event[event_rooms];
	int given; // the room of the event that was returned last; -1: none
};
void begin_walk(EventWalk &walk, bool (*visible)(Oid role));
// The next event, valid until the next call; nullptr at the end.
const Event *next_event(EventWalk &walk);

// As pg_stat_activity shows a BackendState; nullptr for none.
const char *state_name(std::uint8_t state);

} // namespace guard::pg
