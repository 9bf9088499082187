// What a C function expects of its SQL definition.
//
// The two may be of different versions: between installing a package and restarting the
// server, and between the restart and ALTER EXTENSION ... UPDATE.  So every function
// compares them before it does anything else, and raises an error instead of reading
// arguments or filling columns that are not there.
#pragma once

#include "pg/postgres.hpp"

#include <array>

extern "C"
{
#include "access/tupdesc.h"
#include "catalog/pg_type_d.h"
}

namespace guard::pg
{

struct Column
{
	const char *name;
	Oid type;
};

struct Argument
{
	const char *name; // for error messages; that in SQL may differ
	Oid type;
	bool nullable; // otherwise, NULL raises an error
};

// A constant array of these.
template <typename T> struct List
{
	const T *items = nullptr;
	int count = 0;

	constexpr List() = default;
	template <std::size_t n> constexpr List(const T (&array)[n]) : items(array), count(n)
	{
	}
	template <std::size_t n>
	constexpr List(const std::array<T, n> &array) : items(array.data()), count(n)
	{
	}
};

// Both raise an error unless the called function is defined like that.

// A function that returns a row or a set of rows.  Returns their descriptor.
TupleDesc check_definition(FunctionCallInfo fcinfo, List<Column> columns, bool set,
                           List<Argument> arguments);

// A function that returns something else.
void check_definition(FunctionCallInfo fcinfo, Oid returns,
                      List<Argument> arguments = {});

// The hint of an error that SQL and the library do not match.
int errhint_version_mismatch();

} // namespace guard::pg
