// What the SQL functions return when slots, policies, events and counters have any
// contents.
#include "shared_copy.hpp"

#include "pg/functions/rows.hpp"
#include "pg/policy/table.hpp"
#include "pg/shared/events.hpp"
#include "pg/shared/statistics.hpp"

extern "C"
{
#include "executor/spi.h"
#include "storage/shmem.h"
}

namespace guard::pg::fuzz
{
namespace
{

constexpr const char *queries[] = {
	"SELECT * FROM keepalive_status()",
	"SELECT * FROM keepalive_tcp_info()",
	"SELECT * FROM keepalive_explain(pg_backend_pid())",
	"SELECT * FROM keepalive_explain('postgres', 'fuzz_ordinary', '10.1.2.3')",
	"SELECT * FROM keepalive_preview()",
	"SELECT * FROM keepalive_events()",
	"SELECT * FROM keepalive_stats()",
	"SELECT * FROM keepalive_path_evidence()",
	"SELECT * FROM keepalive_policy_problems()",
	"SELECT * FROM keepalive_likely_mistakes()",
};
SPIPlanPtr plans[lengthof(queries)];

// As in events.cpp and statistics.cpp.
struct Events
{
	pg_atomic_uint64 claimed[event_rooms];
	Versioned<Event> places[FLEXIBLE_ARRAY_MEMBER];
};
struct Statistics
{
	LWLock *lock;
	pg_atomic_uint64 reset;
	std::uint32_t rows_used;
	std::uint32_t next_free;
	Versioned<Totals> totals;
	Versioned<Counters> rows[FLEXIBLE_ARRAY_MEMBER];
};
Events *events = nullptr;
Statistics *statistics = nullptr;

template <typename T> T *shared_structure(const char *name, Size size)
{
	bool found;
	void *structure = ShmemInitStruct(name, size, &found);
	require(found);
	return static_cast<T *>(structure);
}

void begin()
{
	require(my_slot != nullptr);
	SPI_connect();
	for (int i = 0; i < int(lengthof(queries)); i++)
	{
		plans[i] = SPI_prepare(queries[i], 0, nullptr);
		require(plans[i] != nullptr && SPI_keepplan(plans[i]) == 0);
	}
	SPI_finish();
	events = shared_structure<Events>("keepalive_guard events", events_size());
	statistics = shared_structure<Statistics>("keepalive_guard statistics",
	                                          offsetof(Statistics, rows) +
	                                              (2 * max_policies + 1) *
	                                                  sizeof(Versioned<Counters>));
	copy_shared();
	log_level() = PANIC;
	client_min_messages = ERROR;
}

void scribble_event(Input &input)
{
	// Events that are there, each in its place.
	const int room = input.between(0, event_rooms - 1);
	pg_atomic_write_u64(&events->claimed[room], max_events);
	const int number = input.between(1, max_events);
	Versioned<Event> &place = events->places[room * max_events + number % max_events];
	pg_atomic_write_u32(&place.sequence, 0);
	scribble(input, place);
	place.value.number = number;
}

void scribble_counters(Input &input)
{
	Versioned<Counters> &row = statistics->rows[input.between(0, 2 * max_policies)];
	scribble(input, row.value);
	if (input.flag())
		statistics->rows_used = input.any<std::uint32_t>();

	PolicyNames policies = {};
	policies.count = 1;
	strlcpy(policies.name[0], any_bytes(input, name_bytes - 1), name_bytes);
	count_end(policies, Cause::client_closed);
}

void scribble_slot(Input &input)
{
	Slot &slot =
		input.flag()
			? *my_slot
			: shared_slots()[input.between<std::uint32_t>(0, shared->slot_count - 1)];
	scribble(input, slot.session);
	any_wanted(input, slot.wanted);
	scribble(input, slot.observation);
	if (input.flag())
		slot.session.value.pid = slot.observation.value.pid = MyProcPid;
	if (input.flag())
		slot.session.value.started = slot.observation.value.started = MyStartTimestamp;
}

void scribble_policies(Input &input)
{
	const int i = input.between(0, max_policies - 1);
	scribble(input, shared_rules()[i]);
	scribble(input, shared_policies()[i]);
	if (input.flag())
		shared->policy_count =
			input.flag() ? input.any<std::uint32_t>() : input.between(0, max_policies);
	if (input.flag())
		shared->disabled_count =
			input.flag() ? input.any<std::uint32_t>() : input.between(0, max_policies);

	const PolicyList list = compiled_policies();
	require(list.enabled <= list.count && list.count <= shared->policy_room);
	for (std::uint32_t policy = 0; policy < list.count; policy++)
		require(ends(list.policies[policy].name));
}

void run(Input &input)
{
	restore_shared();
	const int query = input.between(0, int(lengthof(queries)) - 1);
	for (int parts = input.between(0, 6); parts > 0; parts--)
		switch (input.between(0, 4))
		{
		case 0:
			scribble_event(input);
			break;
		case 1:
			scribble_counters(input);
			break;
		case 2:
			scribble_policies(input);
			break;
		case 3:
			scribble(input, shared->configured);
			break;
		default:
			scribble_slot(input);
		}

	SPI_connect();
	if (SPI_execute_plan(plans[query], nullptr, nullptr, true, 0) == SPI_OK_SELECT)
		for (std::uint64_t row = 0; row < Min(SPI_processed, 8); row++)
			for (int column = 1; column <= SPI_tuptable->tupdesc->natts; column++)
				SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
	SPI_finish();
}

} // namespace

extern const Target reading_target = {"reading", true, begin, run};

} // namespace guard::pg::fuzz
