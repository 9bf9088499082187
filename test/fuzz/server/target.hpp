// A fuzzer that runs in a backend.  Its file has a `const Target NAME_target`, and
// backend.cpp lists it.
#pragma once

#include "pg/postgres.hpp"

#include "../input.hpp"

extern "C"
{
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/guc.h"
}

namespace guard::pg::fuzz
{

using guard::fuzz::Input;
using guard::fuzz::require;

struct Target
{
	const char *name;
	bool may_raise; // errors are expected; else the first one is a finding
	void (*begin)();
	// Without objects that have destructors: errors skip them.
	void (*run)(Input &input);
};

// log_min_messages of this process (19 has one for each type of process).
inline int &log_level()
{
#if PG_VERSION_NUM >= 190000
	return log_min_messages[MyBackendType];
#else
	return log_min_messages;
#endif
}

// Bytes before the next NUL, at most `most` of them.  Palloc'd.
inline char *any_bytes(Input &input, int most)
{
	auto *bytes = static_cast<char *>(palloc0(most + 1));
	for (int i = 0; i < most && !input.empty(); i++)
		if ((bytes[i] = input.any<char>()) == '\0')
			break;
	return bytes;
}

// What of that is text in the database's encoding.
inline char *any_text(Input &input, int most)
{
	char *text = any_bytes(input, most);
	int length = strlen(text);
	while (!pg_verifymbstr(text, length, true))
		text[--length] = '\0';
	return text;
}

// Whether `text` ends within its room.
template <size_t room> bool ends(const char (&text)[room])
{
	return memchr(text, '\0', room) != nullptr;
}

} // namespace guard::pg::fuzz
