#include "pg/postgres.hpp"

#include "pg/shared/statistics.hpp"

#include "pg/compat.hpp"
#include "pg/settings.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
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
constexpr char statistics_file[] =
	PGSTAT_STAT_PERMANENT_DIRECTORY "/keepalive_guard.stat";
constexpr char temporary_file[] = PGSTAT_STAT_PERMANENT_DIRECTORY "/keepalive_guard.tmp";
constexpr std::uint32_t file_magic = 0x4b470001; // changes with the format

// In a file: keepalive_guard.max_policies may have been greater then.
constexpr std::uint32_t most_counters = 2 * 100000 + 1;

struct Totals
{
	LWLock *lock;
	TimestampTz reset;
};

struct FileHeader
{
	std::uint32_t magic;
	std::uint32_t count;
	TimestampTz reset;
	pg_crc32c crc; // of what is before it, and of the counters
};

Totals *totals = nullptr;
HTAB *counters = nullptr;

// Policies come and go: twice the room, and the names that no policy has any more
// make way.
long counters_room()
{
	return 2L * max_policies + 1;
}

bool is_compiled(const char *policy)
{
	for (std::uint32_t i = 0; i < shared->policy_count + shared->disabled_count; i++)
		if (strcmp(shared_policies()[i].name, policy) == 0)
			return true;
	return false;
}

// Holding both locks.
void forget_dropped_policies()
{
	HASH_SEQ_STATUS all;
	hash_seq_init(&all, counters);
	while (auto *entry = static_cast<Counters *>(hash_seq_search(&all)))
		if (entry->policy[0] != '\0' && !is_compiled(entry->policy))
			hash_search(counters, entry->policy, HASH_REMOVE, nullptr);
}

// The counters of a policy, made if they are not there; nullptr if there is no room.
Counters *find_counters(const char *policy)
{
	char key[name_bytes] = "";
	strlcpy(key, policy, name_bytes);
	bool found;
	auto *entry =
		static_cast<Counters *>(hash_search(counters, key, HASH_ENTER_NULL, &found));
	if (entry != nullptr && !found)
		memset(entry->ended, 0, sizeof(entry->ended));
	return entry;
}

pg_crc32c checksum(const FileHeader &header, const Counters *entries)
{
	pg_crc32c crc;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &header, offsetof(FileHeader, crc));
	COMP_CRC32C(crc, entries, header.count * sizeof(Counters));
	FIN_CRC32C(crc);
	return crc;
}

bool read_file(FILE *file, FileHeader *header, Counters **entries)
{
	if (fread(header, sizeof(*header), 1, file) != 1 || header->magic != file_magic ||
	    header->count > most_counters)
		return false;
	*entries = static_cast<Counters *>(palloc0((header->count + 1) * sizeof(Counters)));
	if (fread(*entries, sizeof(Counters), header->count, file) != header->count)
		return false;
	return EQ_CRC32C(checksum(*header, *entries), header->crc);
}

// What is saved counts once: after a crash there is nothing to load.
void load()
{
	FILE *file = AllocateFile(statistics_file, PG_BINARY_R);
	if (file == nullptr)
	{
		if (errno != ENOENT)
			ereport(LOG, (errcode_for_file_access(),
			              errmsg("could not read file \"%s\": %m", statistics_file)));
		return;
	}
	FileHeader header;
	Counters *entries = nullptr;
	if (read_file(file, &header, &entries))
	{
		totals->reset = header.reset;
		for (std::uint32_t i = 0; i < header.count; i++)
		{
			entries[i].policy[name_bytes - 1] = '\0';
			if (Counters *entry = find_counters(entries[i].policy))
				memcpy(entry->ended, entries[i].ended, sizeof(entry->ended));
		}
	}
	else
		ereport(LOG, (errcode(ERRCODE_DATA_CORRUPTED),
		              errmsg("ignoring invalid data in file \"%s\"", statistics_file)));
	FreeFile(file);
	unlink(statistics_file);
}

bool write_file(FILE *file)
{
	FileHeader header = {};
	header.magic = file_magic;
	header.reset = totals->reset;
	auto *entries =
		static_cast<Counters *>(palloc0((counters_room() + 1) * sizeof(Counters)));

	HASH_SEQ_STATUS all;
	hash_seq_init(&all, counters);
	while (auto *entry = static_cast<Counters *>(hash_seq_search(&all)))
		entries[header.count++] = *entry;
	header.crc = checksum(header, entries);

	return fwrite(&header, sizeof(header), 1, file) == 1 &&
	       fwrite(entries, sizeof(Counters), header.count, file) == header.count;
}

// In the postmaster, as pgss_shmem_shutdown() in pg_stat_statements.c: not after a
// crash.
void save(int code, Datum)
{
	if (code != 0 || totals == nullptr)
		return;
	FILE *file = AllocateFile(temporary_file, PG_BINARY_W);
	bool written = file != nullptr && write_file(file);
	if (file != nullptr && FreeFile(file) != 0)
		written = false;
	if (written && durable_rename(temporary_file, statistics_file, LOG) == 0)
		return;
	ereport(LOG, (errcode_for_file_access(),
	              errmsg("could not write file \"%s\": %m", statistics_file)));
	unlink(temporary_file);
}

} // namespace

Size statistics_size()
{
	return add_size(MAXALIGN(sizeof(Totals)),
	                hash_estimate_size(counters_room(), sizeof(Counters)));
}

void init_statistics(LWLock *lock)
{
	bool found;
	totals = static_cast<Totals *>(
		ShmemInitStruct("keepalive_guard statistics", sizeof(Totals), &found));

	HASHCTL control = {};
	control.keysize = name_bytes;
	control.entrysize = sizeof(Counters);
	counters = compat::init_shared_hash("keepalive_guard counters", counters_room(),
	                                    &control, HASH_ELEM | HASH_STRINGS);
	if (found)
		return;
	totals->lock = lock;
	totals->reset = GetCurrentTimestamp();
	find_counters("");
	load();
	if (!IsUnderPostmaster)
		on_shmem_exit(save, 0);
}

void count_end(const char *policy, Cause cause)
{
	LWLockAcquire(shared->policy_lock, LW_SHARED);
	LWLockAcquire(totals->lock, LW_EXCLUSIVE);
	Counters *entry = find_counters(policy);
	if (entry == nullptr)
	{
		forget_dropped_policies();
		entry = find_counters(policy);
	}
	if (entry != nullptr)
		entry->ended[static_cast<int>(cause)]++;
	LWLockRelease(totals->lock);
	LWLockRelease(shared->policy_lock);
}

Counters *copy_counters(int *count, TimestampTz *reset)
{
	auto *copy = static_cast<Counters *>(
		palloc_extended(counters_room() * sizeof(Counters), MCXT_ALLOC_HUGE));
	*count = 0;
	LWLockAcquire(totals->lock, LW_SHARED);
	*reset = totals->reset;
	HASH_SEQ_STATUS all;
	hash_seq_init(&all, counters);
	while (auto *entry = static_cast<Counters *>(hash_seq_search(&all)))
		copy[(*count)++] = *entry;
	LWLockRelease(totals->lock);
	return copy;
}

void reset_counters()
{
	LWLockAcquire(totals->lock, LW_EXCLUSIVE);
	totals->reset = GetCurrentTimestamp();
	HASH_SEQ_STATUS all;
	hash_seq_init(&all, counters);
	while (auto *entry = static_cast<Counters *>(hash_seq_search(&all)))
		hash_search(counters, entry->policy, HASH_REMOVE, nullptr);
	find_counters("");
	LWLockRelease(totals->lock);
}

} // namespace guard::pg
