#include "pg/postgres.hpp"

#include "pg/text.hpp"

extern "C"
{
#include "catalog/namespace.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
}

namespace guard::pg
{
namespace
{

constexpr int escape_length = 4; // \xNN

// What a string has to be valid in.
struct Encodings
{
	int stored;
	int sent;       // the client's
	Oid conversion; // InvalidOid: none is needed
};

bool is_ascii(const char *bytes)
{
	for (; *bytes != '\0'; bytes++)
		if (IS_HIGHBIT_SET(*bytes))
			return false;
	return true;
}

// As pg_server_to_any() in mbutils.c: a database without an encoding takes what the
// client takes.
Encodings encodings_of_client()
{
	Encodings encodings = {GetDatabaseEncoding(), pg_get_client_encoding(), InvalidOid};
	if (encodings.stored == PG_SQL_ASCII)
		encodings.stored = encodings.sent;
	else if (encodings.sent != PG_SQL_ASCII && encodings.sent != encodings.stored)
		encodings.conversion =
			FindDefaultConversionProc(encodings.stored, encodings.sent);
	return encodings;
}

bool is_convertible(const char *character, int length, const Encodings &encodings)
{
	unsigned char source[MAX_MULTIBYTE_CHAR_LEN + 1] = {};
	unsigned char converted[MAX_MULTIBYTE_CHAR_LEN * MAX_CONVERSION_GROWTH + 1];
	memcpy(source, character, length);
	return pg_do_encoding_conversion_buf(encodings.conversion, encodings.stored,
	                                     encodings.sent, source, length, converted,
	                                     sizeof(converted), true) == length;
}

// The length of the character that `bytes` starts with; 0 if there is none.
int valid_length(const char *bytes, int length, const Encodings &encodings)
{
	const int valid = pg_encoding_verifymbchar(encodings.stored, bytes, length);
	if (valid <= 0 || !OidIsValid(encodings.conversion) || !IS_HIGHBIT_SET(*bytes))
		return Max(valid, 0);
	return is_convertible(bytes, valid, encodings) ? valid : 0;
}

const char *escaped(const char *bytes, const Encodings &encodings, int limit)
{
	StringInfoData text;
	initStringInfo(&text);
	for (int left = strlen(bytes); left > 0;)
	{
		const int length = valid_length(bytes, left, encodings);
		if (text.len + (length > 0 ? length : escape_length) > limit)
			break;
		if (length > 0)
			appendBinaryStringInfo(&text, bytes, length);
		else
			appendStringInfo(&text, "\\x%02x", static_cast<unsigned char>(*bytes));
		bytes += Max(length, 1);
		left -= Max(length, 1);
	}
	return text.data;
}

} // namespace

const char *text_from_shared(const char *bytes, int limit)
{
	return is_ascii(bytes) ? bytes : escaped(bytes, encodings_of_client(), limit);
}

const char *text_for_log(const char *bytes)
{
	const int encoding = GetDatabaseEncoding();
	return is_ascii(bytes) ? bytes
	                       : escaped(bytes, {encoding, encoding, InvalidOid}, INT_MAX);
}

// Where the encoding is not known, most likely it is UTF-8; for any other one this cuts
// off three bytes more at most.
void copy_clipped(char *copy, const char *text, int room)
{
	const int encoding = GetDatabaseEncoding();
	const int length = strlen(text);
	const int kept =
		length < room
			? length
			: pg_encoding_mbcliplen(encoding == PG_SQL_ASCII ? PG_UTF8 : encoding, text,
	                                length, room - 1);
	memcpy(copy, text, kept);
	copy[kept] = '\0';
}

} // namespace guard::pg
