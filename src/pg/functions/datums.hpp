// Making PostgreSQL values out of the kernel's.
#pragma once

#include "pg/postgres.hpp"

#include "model/compose.hpp"

#include <cstdint>

namespace guard::pg
{

// An interval without days and months.
Datum interval_datum(std::int64_t milliseconds);
Datum microseconds_datum(std::int64_t microseconds);

// A host address.  family: 4 (the first four bytes count) or 6.
Datum address_datum(std::uint8_t family, const std::uint8_t *address);

// As an integer, bigint or numeric; a value that the type cannot hold as its greatest.
Datum unsigned_datum(std::uint64_t value, Oid type);

// The names as text[], in match order.
Datum policy_names_datum(const PolicyNames &policies);

} // namespace guard::pg
