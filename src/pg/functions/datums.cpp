#include "pg/postgres.hpp"

#include "pg/functions/datums.hpp"

#include "pg/text.hpp"

#include <algorithm>

#include <sys/socket.h>

extern "C"
{
#include "catalog/pg_type.h"
#include "datatype/timestamp.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inet.h"
#include "utils/timestamp.h"
}

namespace guard::pg
{

Datum interval_datum(std::int64_t milliseconds)
{
	return microseconds_datum(milliseconds * 1000);
}

Datum microseconds_datum(std::int64_t microseconds)
{
	auto *interval = static_cast<Interval *>(palloc(sizeof(Interval)));
	*interval = {microseconds, 0, 0};
	return IntervalPGetDatum(interval);
}

Datum address_datum(std::uint8_t family, const std::uint8_t *address)
{
	auto *value = static_cast<inet *>(palloc0(sizeof(inet)));
	ip_family(value) = family == 4 ? PGSQL_AF_INET : PGSQL_AF_INET6;
	ip_bits(value) = ip_maxbits(value);
	memcpy(ip_addr(value), address, ip_addrsize(value));
	SET_INET_VARSIZE(value);
	return InetPGetDatum(value);
}

Datum unsigned_datum(std::uint64_t value, Oid type)
{
	switch (type)
	{
	case INT4OID:
		return Int32GetDatum(std::min<std::uint64_t>(value, PG_INT32_MAX));
	case INT8OID:
		return Int64GetDatum(std::min<std::uint64_t>(value, PG_INT64_MAX));
	default:
		char digits[24];
		snprintf(digits, sizeof(digits), UINT64_FORMAT, static_cast<uint64>(value));
		return DirectFunctionCall3(numeric_in, CStringGetDatum(digits),
		                           ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	}
}

Datum policy_names_datum(const PolicyNames &policies)
{
	Datum names[most_sources];
	for (int i = 0; i < policies.count; i++)
		names[i] = CStringGetTextDatum(text_from_shared(policies.name[i]));
	return PointerGetDatum(
		construct_array(names, policies.count, TEXTOID, -1, false, TYPALIGN_INT));
}

} // namespace guard::pg
