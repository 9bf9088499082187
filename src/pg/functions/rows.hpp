// Returning rows: the beginning of a function, its rows, and the end.
//
//	constexpr Column colors_columns[] = {{"name", TEXTOID}, {"hue", INT4OID}};
//
//	ReturnSetInfo *result = begin_rows(fcinfo, colors_columns);
//	RowValues<colors_columns> row;
//	row.add_text("red");
//	row.add(Int32GetDatum(0));
//	put_row(result, row);
#pragma once

#include "pg/postgres.hpp"

#include "kernel/socket.hpp"
#include "model/duration.hpp"
#include "pg/functions/datums.hpp"
#include "pg/sql_definition.hpp"
#include "pg/text.hpp"

#include <iterator>

extern "C"
{
#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"
}

namespace guard::pg
{

// Both raise an error unless the SQL definition of the called function has exactly these
// columns and arguments, and come before all else in it.

// Of a function that returns a set of rows.
ReturnSetInfo *begin_rows(FunctionCallInfo fcinfo, List<Column> columns,
                          List<Argument> arguments = {});

// Of one that returns a row: its descriptor, for composite_row().
TupleDesc begin_composite(FunctionCallInfo fcinfo, List<Column> columns,
                          List<Argument> arguments = {});

[[noreturn]] void raise_wrong_value_count();

// The values of a row, added in the order of the columns.
template <const auto &columns> struct RowValues
{
	static constexpr int size = std::size(columns);

	Datum values[size];
	bool nulls[size];
	int count = 0;

	void add(Datum value) { add(value, false); }
	void add_null() { add(0, true); }
	void add_nulls_to(int end)
	{
		while (count < end)
			add_null();
	}
	void add_nulls(int number) { add_nulls_to(count + number); }
	void add_remaining_nulls() { add_nulls_to(size); }

	// NULL for nullptr.  The bytes need not be text (text.hpp).
	void add_text(const char *text)
	{
		if (text == nullptr)
			add_null();
		else
			add(CStringGetTextDatum(text_from_shared(text)));
	}
	void add_name(const char *name)
	{
		if (name == nullptr)
		{
			add_null();
			return;
		}
		auto *copy = static_cast<NameData *>(palloc(sizeof(NameData)));
		namestrcpy(copy, text_from_shared(name, NAMEDATALEN - 1));
		add(NameGetDatum(copy));
	}
	void add_interval_or_null(const Duration &duration)
	{
		if (duration)
			add(interval_datum(*duration));
		else
			add_null();
	}
	// Address, IPv4-mapped ones as IPv4, and port; NULLs for an end without family.
	void add_endpoint(const Endpoint &mapped)
	{
		Endpoint endpoint = unmapped(mapped);
		if (endpoint.family == 0)
		{
			add_nulls(2);
			return;
		}
		add(address_datum(endpoint.family, endpoint.address.data()));
		add(Int32GetDatum(endpoint.port));
	}

	// The names of policies, NULL for none.
	void add_policies(const PolicyNames &policies)
	{
		if (policies.count == 0)
			add_null();
		else
			add(policy_names_datum(policies));
	}

  private:
	void add(Datum value, bool null)
	{
		Assert(count < size);
		if (count >= size)
			raise_wrong_value_count();
		values[count] = value;
		nulls[count++] = null;
	}
};

// Adds a complete row to the result.
template <const auto &columns>
void put_row(ReturnSetInfo *result, const RowValues<columns> &row)
{
	if (row.count != row.size)
		raise_wrong_value_count();
	tuplestore_putvalues(result->setResult, result->setDesc,
	                     const_cast<Datum *>(row.values), const_cast<bool *>(row.nulls));
}

template <const auto &columns>
Datum composite_row(TupleDesc descriptor, const RowValues<columns> &row)
{
	if (row.count != row.size)
		raise_wrong_value_count();
	return HeapTupleGetDatum(heap_form_tuple(descriptor, const_cast<Datum *>(row.values),
	                                         const_cast<bool *>(row.nulls)));
}

} // namespace guard::pg
