#include "pg/postgres.hpp"

#include "pg/shared/statistics.hpp"

#include "pg/compat.hpp"
#include "pg/settings.hpp"
#include "pg/shared/saved_file.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"
}

namespace guard::pg
{
namespace
{

// Names follow the cumulative statistics, which PostgreSQL keeps in the same place.
const SavedFile statistics_file = {
	PGSTAT_STAT_PERMANENT_DIRECTORY "/keepalive_guard.stat",
	PGSTAT_STAT_PERMANENT_DIRECTORY "/keepalive_guard.tmp",
	0x4b470003, // changes with the format
};

struct Statistics
{
	LWLock *lock; // held to change anything but `reset`
	pg_atomic_uint64 reset;
	std::uint32_t rows_used; // those behind have never been used
	std::uint32_t next_free; // where to look for a row that is free again
	Versioned<Totals> totals;
	Versioned<Counters> rows[FLEXIBLE_ARRAY_MEMBER];
};

// Where a policy's counters are.
struct Place
{
	char policy[name_bytes]; // key
	std::uint32_t row;
	bool compiled; // while forget_dropped_policies() is at work
};

Statistics *statistics = nullptr;
HTAB *places = nullptr;

// Policies come and go: twice the room, and the names that no policy has any more
// make way.
std::uint32_t rows_room()
{
	return 2 * static_cast<std::uint32_t>(max_policies) + 1;
}

Size rows_size()
{
	return add_size(offsetof(Statistics, rows),
	                mul_size(rows_room(), sizeof(Versioned<Counters>)));
}

// All of the following up to load() hold the lock.

Place *find_place(const char *policy, HASHACTION action, bool *found)
{
	char key[name_bytes] = "";
	strlcpy(key, policy, name_bytes);
	return static_cast<Place *>(hash_search(places, key, action, found));
}

void forget(const Place &place)
{
	statistics->rows[place.row].write({});
	statistics->next_free = place.row;
	hash_search(places, place.policy, HASH_REMOVE, nullptr);
}

void forget_dropped_policies()
{
	HASH_SEQ_STATUS all;
	hash_seq_init(&all, places);
	while (auto *place = static_cast<Place *>(hash_seq_search(&all)))
		place->compiled = place->policy[0] == '\0';
	read_policies(
		[](std::uint32_t, std::uint32_t count)
		{
			for (std::uint32_t i = 0; i < count; i++)
				if (Place *place =
			            find_place(shared_policies()[i].name, HASH_FIND, nullptr))
					place->compiled = true;
		});
	hash_seq_init(&all, places);
	while (auto *place = static_cast<Place *>(hash_seq_search(&all)))
		if (!place->compiled)
			forget(*place);
}

// There is one, as many as `places` has room for; else memory is damaged, and this
// returns rows_room().
std::uint32_t free_row()
{
	const std::uint32_t room = rows_room();
	if (statistics->rows_used < room)
		return statistics->rows_used++;
	for (std::uint32_t looked_at = 0; looked_at < room; looked_at++)
	{
		statistics->next_free %= room;
		if (!statistics->rows[statistics->next_free].value.used)
			return statistics->next_free;
		statistics->next_free++;
	}
	return room;
}

// The counters of a policy, made if they are not there; nullptr if there is no room.
Versioned<Counters> *find_counters(const char *policy)
{
	Place *place = find_place(policy, HASH_FIND, nullptr);
	if (place == nullptr)
	{
		if (hash_get_num_entries(places) >= static_cast<long>(rows_room()))
			return nullptr;
		const std::uint32_t row = free_row();
		if (row >= rows_room())
			return nullptr;
		place = find_place(policy, HASH_ENTER_NULL, nullptr);
		if (place == nullptr)
			return nullptr;
		place->row = row;
		Counters counters = {};
		strlcpy(counters.policy, policy, name_bytes);
		counters.used = true;
		statistics->rows[place->row].write(counters);
	}
	return &statistics->rows[place->row];
}

void count_for(const char *policy, Cause cause)
{
	Versioned<Counters> *row = find_counters(policy);
	if (row == nullptr)
	{
		forget_dropped_policies();
		row = find_counters(policy);
	}
	if (row == nullptr)
		return;
	Counters counters = row->value;
	counters.ended[static_cast<int>(cause)]++;
	row->write(counters);
}

void count_in_totals(Cause cause)
{
	Totals totals = statistics->totals.value;
	totals.ended[static_cast<int>(cause)]++;
	statistics->totals.write(totals);
}

// In the postmaster, when nobody else is there.
void write_statistics(FileStream &file)
{
	const std::uint64_t reset = pg_atomic_read_u64(&statistics->reset);
	put(file, &reset, sizeof(reset));
	put(file, &statistics->totals.value, sizeof(Totals));
	for (std::uint32_t i = 0; i < statistics->rows_used; i++)
		if (statistics->rows[i].value.used)
			put(file, &statistics->rows[i].value, sizeof(Counters));
}

void read_statistics(FileStream &file)
{
	std::uint64_t reset;
	Totals totals;
	if (!take(file, &reset, sizeof(reset)) || !take(file, &totals, sizeof(totals)))
		return;
	pg_atomic_write_u64(&statistics->reset, reset);
	statistics->totals.write(totals);
	Counters counters;
	while (take(file, &counters, sizeof(counters)))
		if (Versioned<Counters> *row = find_counters(counters.policy))
			row->write(counters);
}

void save(int code, Datum)
{
	if (code == 0)
		save_file(statistics_file, write_statistics);
}

} // namespace

Size statistics_size()
{
	return add_size(MAXALIGN(rows_size()),
	                hash_estimate_size(rows_room(), sizeof(Place)));
}

void init_statistics(LWLock *lock)
{
	bool found;
	statistics = static_cast<Statistics *>(
		ShmemInitStruct("keepalive_guard statistics", rows_size(), &found));

	HASHCTL control = {};
	control.keysize = name_bytes;
	control.entrysize = sizeof(Place);
	places = compat::init_shared_hash("keepalive_guard counters", rows_room(), &control,
	                                  HASH_ELEM | HASH_STRINGS);
	if (found)
		return;
	statistics->lock = lock;
	pg_atomic_init_u64(&statistics->reset, GetCurrentTimestamp());
	statistics->rows_used = 0;
	statistics->next_free = 0;
	statistics->totals.init();
	for (std::uint32_t i = 0; i < rows_room(); i++)
		statistics->rows[i].init();
	find_counters("");
	load_file(statistics_file, read_statistics);
	if (!IsUnderPostmaster)
		on_shmem_exit(save, 0);
}

void count_end(const PolicyNames &policies, Cause cause)
{
	LWLockAcquire(statistics->lock, LW_EXCLUSIVE);
	count_in_totals(cause);
	if (policies.count == 0)
		count_for("", cause);
	for (int i = 0; i < policies.count; i++)
		count_for(policies.name[i], cause);
	LWLockRelease(statistics->lock);
}

Counters *copy_counters(int *count, TimestampTz *reset)
{
	const std::uint32_t used = Min(statistics->rows_used, rows_room());
	auto *copy = static_cast<Counters *>(
		palloc_extended(Max(used, 1) * sizeof(Counters), MCXT_ALLOC_HUGE));
	*reset = static_cast<TimestampTz>(pg_atomic_read_u64(&statistics->reset));
	*count = 0;
	for (std::uint32_t i = 0; i < used; i++)
	{
		while (!statistics->rows[i].read(copy[*count]))
			CHECK_FOR_INTERRUPTS();
		if (copy[*count].used)
			(*count)++;
	}
	return copy;
}

Totals copy_totals()
{
	Totals copy;
	while (!statistics->totals.read(copy))
		CHECK_FOR_INTERRUPTS();
	return copy;
}

void reset_counters()
{
	LWLockAcquire(statistics->lock, LW_EXCLUSIVE);
	pg_atomic_write_u64(&statistics->reset, GetCurrentTimestamp());
	HASH_SEQ_STATUS all;
	hash_seq_init(&all, places);
	while (auto *place = static_cast<Place *>(hash_seq_search(&all)))
		forget(*place);
	find_counters("");
	statistics->totals.write({});
	LWLockRelease(statistics->lock);
}

} // namespace guard::pg
