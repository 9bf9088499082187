// All differences between PostgreSQL 15 and 19 that matter to the guard.
//
// No branch is for 16 alone: what 16 takes, 15 or 17 takes too.
#pragma once

#include "pg/postgres.hpp"

extern "C"
{
#include "access/tableam.h"
#include "catalog/pg_database.h" // get_database_oid(), from 19
#include "commands/dbcommands.h" // both of them, before 19
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/backend_status.h"
#include "utils/guc_tables.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h" // get_database_name(), from 19
#include "utils/syscache.h"
}

#if PG_VERSION_NUM < 150000
#error "keepalive_guard needs PostgreSQL 15 or newer"
#endif

// The library's name and version; before 18 there is no place for them.
#if PG_VERSION_NUM < 180000
#define PG_MODULE_MAGIC_EXT(...) PG_MODULE_MAGIC
#endif

namespace guard::pg::compat
{

// What identifies a system cache (19 has an enum).
#if PG_VERSION_NUM >= 190000
using SysCacheId = SysCacheIdentifier;
#else
using SysCacheId = int;
#endif

// The record of a built-in setting, nullptr if there is none of that name.
// 15 has no exported lookup by name, so its array is searched.
inline config_generic *find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, true, LOG);
#else
	config_generic **all = get_guc_variables();
	for (int i = 0, n = GetNumConfigOptions(); i < n; i++)
		if (strcmp(all[i]->name, name) == 0)
			return all[i];
	return nullptr;
#endif
}

// The integer part of a setting's record (19 moved it into a union).
inline config_int *int_setting(config_generic *record)
{
#if PG_VERSION_NUM >= 190000
	return &record->_int;
#else
	return reinterpret_cast<config_int *>(record);
#endif
}

// Where an integer setting's record has the "extra" of its reset value.
inline void **reset_extra(config_generic *record)
{
#if PG_VERSION_NUM >= 190000
	return &record->reset_extra;
#else
	return &int_setting(record)->reset_extra;
#endif
}

// Changes the source of a setting's value, as guc.c's own set_guc_source().
inline void set_source(config_generic *record, GucSource source)
{
#if PG_VERSION_NUM >= 160000
	// Settings that are not at their default are in a list, whose head is not needed
	// to leave it.
	if (record->source != PGC_S_DEFAULT && source == PGC_S_DEFAULT)
		dlist_delete(&record->nondef_link);
#endif
	record->source = source;
}

// Memory for a check hook's "extra", which PostgreSQL frees; nullptr if there is none.
inline void *allocate_extra(size_t size)
{
#if PG_VERSION_NUM >= 160000
	return guc_malloc(LOG, size);
#else
	return malloc(size);
#endif
}

// Frees what ParseLongOption() has allocated.
inline void free_long_option(char *text)
{
	if (text == nullptr)
		return;
#if PG_VERSION_NUM >= 160000
	pfree(text);
#else
	free(text);
#endif
}

// This backend's number among all possible client backends, from 0; below
// MaxBackends.
inline int my_backend_number()
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyBackendId - 1;
#endif
}

// The index of this process in ProcGlobal->allProcs.
inline int my_proc_number()
{
	return static_cast<int>(MyProc - ProcGlobal->allProcs);
}

// A sequential scan of all that the snapshot sees.
inline TableScanDesc begin_scan(Relation relation, Snapshot snapshot)
{
#if PG_VERSION_NUM >= 190000
	return table_beginscan(relation, snapshot, 0, nullptr, 0);
#else
	return table_beginscan(relation, snapshot, 0, nullptr);
#endif
}

// A hash table of fixed size in shared memory.
inline HTAB *init_shared_hash(const char *name, long entries, HASHCTL *control, int flags)
{
#if PG_VERSION_NUM >= 190000
	return ShmemInitHash(name, entries, control, flags | HASH_FIXED_SIZE);
#else
	return ShmemInitHash(name, entries, entries, control, flags | HASH_FIXED_SIZE);
#endif
}

// The i-th of pgstat_fetch_stat_numbackends() entries, from 1.
inline LocalPgBackendStatus *local_backend_status(int i)
{
#if PG_VERSION_NUM >= 160000
	return pgstat_get_local_beentry_by_index(i);
#else
	return pgstat_fetch_stat_local_beentry(i);
#endif
}

// What PostgreSQL publishes of its backends, MaxBackends entries by backend number.  The
// array itself is static in backend_status.c, but each process has a pointer to its own
// entry.
inline const PgBackendStatus *backend_statuses()
{
	return MyBEEntry - my_backend_number();
}

} // namespace guard::pg::compat
