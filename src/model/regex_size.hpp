// How large a regular expression becomes when it is compiled.
#pragma once

#include <cstdint>

namespace guard
{

// The number of characters, brackets and escapes of an advanced regular expression with
// its bounds ({m,n}) written out, as PostgreSQL's compiler does it (dupnfa() in
// regcomp.c): compiling takes time and memory that grow with it.  At least that: a brace
// that is no bound is counted as one.  Never more than UINT32_MAX.
std::uint32_t regex_size(const char *pattern) noexcept;

} // namespace guard
