// Rows with any values that their columns' types can have.
#pragma once

#include "target.hpp"

#include <sys/socket.h>

extern "C"
{
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "datatype/timestamp.h"
#include "utils/builtins.h"
#include "utils/inet.h"
#include "utils/timestamp.h"
}

namespace guard::pg::fuzz
{

// An address, or with `network` one whose bits behind the prefix are 0, as in a cidr.
inline inet *any_inet(Input &input, bool network)
{
	auto *value = static_cast<inet *>(palloc0(sizeof(inet)));
	ip_family(value) = input.flag() ? PGSQL_AF_INET : PGSQL_AF_INET6;
	ip_bits(value) = input.between(0, int(ip_maxbits(value)));
	for (int i = 0; i < ip_addrsize(value); i++)
	{
		const int kept = network ? Min(Max(ip_bits(value) - 8 * i, 0), 8) : 8;
		ip_addr(value)[i] = input.any<std::uint8_t>() & (0xff00 >> kept);
	}
	// ::ffff:a.b.c.d
	if (ip_family(value) == PGSQL_AF_INET6 && input.flag())
		for (int i = 0; i < 12; i++)
			if (!network || 8 * i + 8 <= ip_bits(value))
				ip_addr(value)[i] = i < 10 ? 0 : 0xff;
	SET_INET_VARSIZE(value);
	return value;
}

inline Datum any_interval(Input &input)
{
	auto *value = static_cast<Interval *>(palloc0(sizeof(Interval)));
	if (input.flag())
		*value = input.any<Interval>();
	else
		value->time = input.between(0, 40000) * INT64CONST(1000000);
	return IntervalPGetDatum(value);
}

inline Datum any_text_value(Input &input)
{
	constexpr const char *words[] = {"client", "replication", "default", "ceiling",
	                                 "locked", "/",           "+",       ""};
	const int word = input.between(0, 2 * int(lengthof(words)) - 1);
	return CStringGetTextDatum(psprintf("%s%s",
	                                    word < int(lengthof(words)) ? words[word] : "",
	                                    input.flag() ? any_text(input, 300) : ""));
}

inline Datum any_value(Input &input, Oid type)
{
	switch (type)
	{
	case TEXTOID:
		return any_text_value(input);
	case INT4OID:
		return Int32GetDatum(input.flag() ? input.any<std::int32_t>()
		                                  : input.between(-1, 200));
	case BOOLOID:
		return BoolGetDatum(input.flag());
	case INTERVALOID:
		return any_interval(input);
	case CIDROID:
		return InetPGetDatum(any_inet(input, true));
	default:
		elog(ERROR, "no values of type %u", type);
	}
}

// The last columns may be missing, as in rows from before ALTER TABLE ADD COLUMN.
inline HeapTuple any_row(Input &input, TupleDesc columns)
{
	auto *values = static_cast<Datum *>(palloc0(columns->natts * sizeof(Datum)));
	auto *nulls = static_cast<bool *>(palloc0(columns->natts * sizeof(bool)));
	for (int i = 0; i < columns->natts; i++)
	{
		nulls[i] = input.between(0, 3) == 0;
		if (!nulls[i])
			values[i] = any_value(input, TupleDescAttr(columns, i)->atttypid);
	}
	HeapTuple row = heap_form_tuple(columns, values, nulls);
	if (input.between(0, 15) == 15)
		HeapTupleHeaderSetNatts(row->t_data, input.between(0, columns->natts));
	return row;
}

} // namespace guard::pg::fuzz
