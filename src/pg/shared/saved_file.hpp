// Files that keep shared memory's contents over a clean restart, as PostgreSQL keeps its
// cumulative statistics.  What is loaded is removed, so that there is nothing to load
// after a crash.
#pragma once

#include "pg/postgres.hpp"

#include <cstdint>
#include <cstdio>

extern "C"
{
#include "port/pg_crc32c.h"
}

namespace guard::pg
{

struct SavedFile
{
	const char *path;
	const char *temporary_path;
	std::uint32_t magic; // of this format
};

// The contents of a file, in order.
struct FileStream
{
	FILE *file;
	std::uint64_t size; // so far; of those that are read, what is left
	pg_crc32c crc;
	bool failed;
};

// Only the postmaster calls these.  Errors are logged, never raised.
void save_file(const SavedFile &saved, void (*write)(FileStream &));
// `read` is called only if all of the file is as it was written.
void load_file(const SavedFile &saved, void (*read)(FileStream &));

void put(FileStream &stream, const void *data, size_t size);
// False at the end.
bool take(FileStream &stream, void *data, size_t size);

} // namespace guard::pg
