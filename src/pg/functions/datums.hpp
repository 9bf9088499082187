// Making PostgreSQL values out of the kernel's.
#pragma once

#include "pg/postgres.hpp"

#include "kernel/socket.hpp"

#include <array>
#include <cstdint>

extern "C"
{
#include "utils/builtins.h"
#include "utils/tuplestore.h"
}

namespace guard::pg
{

// An interval without days and months.
Datum interval_datum(std::int64_t milliseconds);
Datum microseconds_datum(std::int64_t microseconds);

// A host address.  family: 4 (the first four bytes count) or 6.
Datum address_datum(std::uint8_t family, const std::uint8_t *address);

// As an integer, bigint or numeric; a value that the type cannot hold as its greatest.
Datum unsigned_datum(std::uint64_t value, Oid type);

// The columns of a row, filled in order.
template <int columns> struct RowValues
{
	Datum values[columns];
	bool nulls[columns];
	int count = 0;

	void add(Datum value)
	{
		values[count] = value;
		nulls[count++] = false;
	}
	void add_null()
	{
		values[count] = 0;
		nulls[count++] = true;
	}
	void add_text(const char *text)
	{
		if (text == nullptr)
			add_null();
		else
			add(CStringGetTextDatum(text));
	}
	void add_name(const char *name)
	{
		if (name == nullptr)
		{
			add_null();
			return;
		}
		auto *copy = static_cast<NameData *>(palloc(sizeof(NameData)));
		namestrcpy(copy, name);
		add(NameGetDatum(copy));
	}
	// Address, IPv4-mapped ones as IPv4, and port; NULLs for an end without family.
	void add_endpoint(const Endpoint &mapped)
	{
		Endpoint endpoint = unmapped(mapped);
		if (endpoint.family == 0)
		{
			add_nulls_to(count + 2);
			return;
		}
		add(address_datum(endpoint.family, endpoint.address.data()));
		add(Int32GetDatum(endpoint.port));
	}
	void add_nulls_to(int end)
	{
		while (count < end)
			add_null();
	}
};

} // namespace guard::pg
