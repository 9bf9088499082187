// Bytes of shared memory as text: for each encoding of a client, PostgreSQL can send it.
#include "target.hpp"

#include "pg/text.hpp"

namespace guard::pg::fuzz
{
namespace
{

constexpr int encodings[] = {PG_UTF8, PG_SQL_ASCII, PG_LATIN1, PG_EUC_JP,
                             PG_SJIS, PG_WIN1252,   PG_GB18030};

void set_client_encoding(int encoding)
{
	require(PrepareClientEncoding(encoding) == 0 && SetClientEncoding(encoding) == 0);
}

void begin() {}

void run(Input &input)
{
	set_client_encoding(encodings[input.between(0, int(lengthof(encodings)) - 1)]);
	const int limit = input.flag() ? input.between(0, 100) : INT_MAX;
	const int room = input.between(1, 100);
	const char *bytes = any_bytes(input, 300);

	const char *text = text_from_shared(bytes, limit);
	const int length = strlen(text);
	require(text == bytes || length <= limit);
	require(pg_verifymbstr(text, length, true));
	pg_server_to_client(text, length); // raises an error if there is no such character

	const char *logged = text_for_log(bytes);
	require(pg_verifymbstr(logged, strlen(logged), true));

	auto *copy = static_cast<char *>(palloc(room));
	copy_clipped(copy, bytes, room);
	const int kept = strlen(copy);
	require(kept < room && strncmp(copy, bytes, kept) == 0);
	require(static_cast<int>(strlen(bytes)) >= room || copy[kept] == bytes[kept]);
	// Valid text stays valid.
	if (pg_verifymbstr(bytes, strlen(bytes), true))
		require(pg_verifymbstr(copy, kept, true));
}

} // namespace

extern const Target text_target = {"text", false, begin, run};

} // namespace guard::pg::fuzz
