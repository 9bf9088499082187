// Which of many names was probably meant by one that does not exist.
#pragma once

#include "model/policy.hpp"

namespace guard
{

// A search among names that are offered one by one.
struct NearName
{
	char wanted[name_bytes];
	char best[name_bytes]; // "": none was near
	int length;            // of `wanted`
	int limit;             // only a name with a smaller distance is taken
};

// For a name of at most name_bytes - 1 bytes.
NearName search_near_name(const char *wanted) noexcept;

// Takes the name as the best one if it differs in upper and lower case only, or else in
// fewer insertions, deletions and replacements of bytes than those before, and in at most
// two (one if the wanted name is short).
void offer_name(NearName &search, const char *name) noexcept;

} // namespace guard
