#include "pg/postgres.hpp"

#include "pg/shared/saved_file.hpp"

#include <algorithm>

extern "C"
{
#include "storage/fd.h"
}

namespace guard::pg
{
namespace
{

struct Header
{
	std::uint32_t magic;
	pg_crc32c crc; // of what follows
	std::uint64_t size;
};

void add_to_crc(FileStream &stream, const void *data, size_t size)
{
	COMP_CRC32C(stream.crc, data, size);
}

bool write_contents(FILE *file, std::uint32_t magic, void (*write)(FileStream &))
{
	Header header = {};
	FileStream stream = {};
	stream.file = file;
	INIT_CRC32C(stream.crc);
	stream.failed = fwrite(&header, sizeof(header), 1, file) != 1;
	write(stream);
	FIN_CRC32C(stream.crc);
	header = {magic, stream.crc, stream.size};
	return !stream.failed && fseek(file, 0, SEEK_SET) == 0 &&
	       fwrite(&header, sizeof(header), 1, file) == 1;
}

// Whether all of the contents are there, and a stream that begins with them.
bool verify_contents(FILE *file, std::uint32_t magic, FileStream *stream)
{
	Header header;
	if (fread(&header, sizeof(header), 1, file) != 1 || header.magic != magic)
		return false;
	*stream = {};
	stream->file = file;
	stream->size = header.size;
	INIT_CRC32C(stream->crc);
	while (stream->size > 0)
	{
		char chunk[8192];
		const size_t size = std::min<std::uint64_t>(stream->size, sizeof(chunk));
		if (!take(*stream, chunk, size))
			return false;
		add_to_crc(*stream, chunk, size);
	}
	FIN_CRC32C(stream->crc);
	stream->size = header.size;
	return EQ_CRC32C(stream->crc, header.crc) && fgetc(file) == EOF &&
	       fseek(file, sizeof(header), SEEK_SET) == 0;
}

} // namespace

void put(FileStream &stream, const void *data, size_t size)
{
	add_to_crc(stream, data, size);
	stream.size += size;
	if (fwrite(data, size, 1, stream.file) != 1)
		stream.failed = true;
}

bool take(FileStream &stream, void *data, size_t size)
{
	if (stream.size < size || fread(data, size, 1, stream.file) != 1)
		return false;
	stream.size -= size;
	return true;
}

void save_file(const SavedFile &saved, void (*write)(FileStream &))
{
	FILE *file = AllocateFile(saved.temporary_path, PG_BINARY_W);
	bool written = file != nullptr && write_contents(file, saved.magic, write);
	if (file != nullptr && FreeFile(file) != 0)
		written = false;
	if (written && durable_rename(saved.temporary_path, saved.path, LOG) == 0)
		return;
	ereport(LOG, (errcode_for_file_access(),
	              errmsg("could not write file \"%s\": %m", saved.path)));
	unlink(saved.temporary_path);
}

void load_file(const SavedFile &saved, void (*read)(FileStream &))
{
	FILE *file = AllocateFile(saved.path, PG_BINARY_R);
	if (file == nullptr)
	{
		if (errno != ENOENT)
			ereport(LOG, (errcode_for_file_access(),
			              errmsg("could not read file \"%s\": %m", saved.path)));
		return;
	}
	FileStream stream;
	if (verify_contents(file, saved.magic, &stream))
		read(stream);
	else
		ereport(LOG, (errcode(ERRCODE_DATA_CORRUPTED),
		              errmsg("ignoring invalid data in file \"%s\"", saved.path)));
	FreeFile(file);
	unlink(saved.path);
}

} // namespace guard::pg
