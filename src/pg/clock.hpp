// The clock by which the guard measures intervals.  Setting the time does not change it.
#pragma once

#include <cstdint>

namespace guard::pg
{

// CLOCK_MONOTONIC in milliseconds.  Async-signal-safe.
std::int64_t monotonic_ms();

} // namespace guard::pg
