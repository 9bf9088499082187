// How large a regular expression becomes when it is compiled.
#pragma once

#include <cstdint>

namespace guard
{

// Whether a regular expression begins without a director (***) and without embedded
// options other than (?i) and (?c).  Others are read in another way: as a basic or
// literal one, or with white space and comments.  The functions below do not know that.
bool has_plain_beginning(const char *pattern) noexcept;

// The number of characters, brackets and escapes of an advanced regular expression with
// its bounds ({m,n}) and "+" written out, as PostgreSQL's compiler does it (dupnfa() in
// regcomp.c): compiling takes time and memory that grow with it.  Never more than
// UINT32_MAX.
std::uint32_t regex_size(const char *pattern) noexcept;

// The number of its constraints, in the same way: the beginning and the end of the line
// count 1 (^ $ \A \Z), those of a word 2 (\m \M \y \Y [[:<:]] [[:>:]]).  Where they
// follow each other, the compiler pulls each through all others (pullback() and pushfwd()
// in regc_nfa.c), and the time doubles with each.  What may repeat without end counts
// eight times: there each follows itself, too.
std::uint32_t regex_constraints(const char *pattern) noexcept;

} // namespace guard
