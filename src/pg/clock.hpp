// The clock of everything that the guard measures between two moments: it cannot be set.
#pragma once

#include <cstdint>

namespace guard::pg
{

// CLOCK_MONOTONIC in milliseconds.  Async-signal-safe.
std::int64_t monotonic_ms();

} // namespace guard::pg
