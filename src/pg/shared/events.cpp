#include "pg/postgres.hpp"

#include "pg/shared/events.hpp"

#include "pg/settings.hpp"
#include "pg/shared/saved_file.hpp"
#include "pg/text.hpp"

#include <algorithm>

extern "C"
{
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
}

namespace guard::pg
{
namespace
{

// Event number n is in place n % max_events, until one with a greater number is.
struct Events
{
	pg_atomic_uint64 claimed[event_rooms];          // the greatest number so far
	Versioned<Event> places[FLEXIBLE_ARRAY_MEMBER]; // max_events for each room
};

Events *events = nullptr;

// A place is busy for as long as its writer copies an event.  More than one of them is
// busy only where there are about as many writers as places.
constexpr int most_attempts = 100;

const SavedFile events_file = {
	PGSTAT_STAT_PERMANENT_DIRECTORY "/keepalive_guard.events",
	PGSTAT_STAT_PERMANENT_DIRECTORY "/keepalive_guard.events.tmp",
	0x4b470101, // changes with the format
};

Versioned<Event> &place_of(int room, std::uint64_t number)
{
	return events->places[std::uint64_t(room) * max_events + number % max_events];
}

int room_of(Cause cause)
{
	const bool lost = is_lost(cause) || cause == Cause::would_end;
	return static_cast<int>(lost ? EventRoom::lost : EventRoom::other);
}

std::uint64_t claimed(int room)
{
	return pg_atomic_read_u64(&events->claimed[room]);
}

std::uint64_t forgotten(std::uint64_t newest)
{
	return newest > static_cast<std::uint64_t>(max_events) ? newest - max_events : 0;
}

// Reads the newest visible event of this room that was not read yet.
bool read_next(EventWalk &walk, int room)
{
	Event &event = walk.event[room];
	while (walk.next[room] > walk.last[room])
	{
		const std::uint64_t number = walk.next[room]--;
		const Versioned<Event> &place = place_of(room, number);
		CHECK_FOR_INTERRUPTS();
		// Copies only what is shown.
		if (walk.visible != nullptr &&
		    !walk.visible(*const_cast<const volatile Oid *>(&place.value.role)))
			continue;
		if (place.read(event) && event.number == number &&
		    (walk.visible == nullptr || walk.visible(event.role)))
			return true;
	}
	return false;
}

// In the postmaster, when nobody else is there any more.
void write_events(FileStream &file)
{
	const std::uint32_t size = sizeof(Event);
	put(file, &size, sizeof(size));
	for (int room = 0; room < event_rooms; room++)
	{
		const std::uint64_t newest = claimed(room);
		for (std::uint64_t n = forgotten(newest) + 1; n <= newest; n++)
			if (place_of(room, n).value.number == n)
				put(file, &place_of(room, n).value, sizeof(Event));
	}
}

void read_events(FileStream &file)
{
	std::uint32_t size;
	if (!take(file, &size, sizeof(size)) || size != sizeof(Event))
		return;
	Event event;
	while (take(file, &event, sizeof(event)))
		add_event(event);
}

void save(int code, Datum)
{
	if (code == 0)
		save_file(events_file, write_events);
}

} // namespace

void set_policies(Event &event, const PolicyNames &policies)
{
	event.policy_count = policies.count;
	event.detail_at = 0;
	for (int i = 0; i < policies.count; i++)
	{
		strlcpy(event.texts + event.detail_at, policies.name[i], name_bytes);
		event.detail_at += strlen(event.texts + event.detail_at) + 1;
	}
}

void set_detail(Event &event, const char *detail)
{
	copy_clipped(event.texts + event.detail_at, detail,
	             sizeof(event.texts) - event.detail_at);
}

PolicyNames policies_of(const Event &event)
{
	PolicyNames policies = {};
	const char *name = event.texts;
	const char *end = event.texts + sizeof(event.texts);
	for (; policies.count < event.policy_count && name < end; name += strlen(name) + 1)
		strlcpy(policies.name[policies.count++], name, name_bytes);
	return policies;
}

const char *detail_of(const Event &event)
{
	return event.texts + event.detail_at;
}

TcpFigures tcp_figures(const TcpInfo &info)
{
	TcpFigures figures = {};
	if (info.received == 0)
		return figures;
	auto bytes = [&info](size_t offset, std::uint64_t value)
	{
		return info.received >= offset + sizeof(value) ? static_cast<std::int64_t>(value)
		                                               : not_known;
	};
	figures.known = true;
	figures.probes = info.probes;
	figures.retransmits = info.retransmits;
	figures.rtt = info.rtt;
	figures.silent_ms = silent_for(info);
	figures.bytes_sent = bytes(offsetof(TcpInfo, bytes_sent), info.bytes_sent);
	figures.bytes_received =
		bytes(offsetof(TcpInfo, bytes_received), info.bytes_received);
	return figures;
}

Size events_size()
{
	return add_size(offsetof(Events, places),
	                mul_size(event_rooms * sizeof(Versioned<Event>), max_events));
}

void init_events()
{
	bool found;
	events = static_cast<Events *>(
		ShmemInitStruct("keepalive_guard events", events_size(), &found));
	if (found)
		return;
	for (pg_atomic_uint64 &number : events->claimed)
		pg_atomic_init_u64(&number, 0);
	for (int i = 0; i < event_rooms * max_events; i++)
		events->places[i].init();
	load_file(events_file, read_events);
	if (!IsUnderPostmaster)
		on_shmem_exit(save, 0);
}

void add_event(Event event)
{
	const int room = room_of(event.cause);
	for (int attempt = 0; attempt < most_attempts; attempt++)
	{
		event.number = pg_atomic_add_fetch_u64(&events->claimed[room], 1);
		Versioned<Event> &place = place_of(room, event.number);
		if (!place.try_begin())
			continue;
		// This process may have been so slow that the place has a newer one.
		if (place.value.number < event.number)
			place.value = event;
		place.end();
		return;
	}
}

void begin_walk(EventWalk &walk, bool (*visible)(Oid role))
{
	walk.visible = visible;
	walk.given = -1;
	for (int room = 0; room < event_rooms; room++)
	{
		walk.next[room] = claimed(room);
		walk.last[room] = forgotten(walk.next[room]);
		walk.found[room] = read_next(walk, room);
	}
}

const Event *next_event(EventWalk &walk)
{
	if (walk.given >= 0)
		walk.found[walk.given] = read_next(walk, walk.given);
	walk.given = -1;
	for (int room = 0; room < event_rooms; room++)
		if (walk.found[room] && (walk.given < 0 || walk.event[room].ended_at >
		                                               walk.event[walk.given].ended_at))
			walk.given = room;
	return walk.given < 0 ? nullptr : &walk.event[walk.given];
}

// As pg_stat_get_activity() in pgstatfuncs.c.
const char *state_name(std::uint8_t state)
{
	switch (state)
	{
	case STATE_IDLE:
		return "idle";
	case STATE_RUNNING:
		return "active";
	case STATE_IDLEINTRANSACTION:
		return "idle in transaction";
	case STATE_FASTPATH:
		return "fastpath function call";
	case STATE_IDLEINTRANSACTION_ABORTED:
		return "idle in transaction (aborted)";
	case STATE_DISABLED:
		return "disabled";
	default:
		return nullptr;
	}
}

} // namespace guard::pg
