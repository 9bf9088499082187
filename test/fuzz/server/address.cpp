// Clients' addresses and policies' networks: a policy is for a client if PostgreSQL's own
// operator >>= says so, and an address is written as inet is.
#include "target.hpp"

#include "model/match.hpp"
#include "pg/endpoint.hpp"
#include "pg/functions/datums.hpp"
#include "pg/policy/row.hpp"
#include "pg/policy/table.hpp"

#include "rows.hpp"

#include <netinet/in.h>

extern "C"
{
#include "access/table.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
}

namespace guard::pg::fuzz
{
namespace
{

TupleDesc columns = nullptr;
PolicyColumns numbers;
Datum *values = nullptr; // of a valid policy
bool *nulls = nullptr;

AttrNumber number_of(PolicyColumn column)
{
	return numbers.number[static_cast<int>(column)] - 1;
}

void set(PolicyColumn column, Datum value)
{
	values[number_of(column)] = value;
	nulls[number_of(column)] = false;
}

void begin()
{
	Relation table = table_open(policy_table(), AccessShareLock);
	columns = CreateTupleDescCopy(RelationGetDescr(table));
	table_close(table, AccessShareLock);
	const char *unusable;
	require(find_policy_columns(columns, &numbers, &unusable));
	values = static_cast<Datum *>(palloc0(columns->natts * sizeof(Datum)));
	nulls = static_cast<bool *>(palloc(columns->natts * sizeof(bool)));
	memset(nulls, true, columns->natts);
	set(PolicyColumn::name, CStringGetTextDatum("fuzz"));
	set(PolicyColumn::priority, Int32GetDatum(1));
	set(PolicyColumn::enforcement, CStringGetTextDatum("default"));
	for (PolicyColumn flag :
	     {PolicyColumn::final_policy, PolicyColumn::log_only, PolicyColumn::enabled})
		set(flag, BoolGetDatum(true));
}

SockAddr any_address(Input &input)
{
	SockAddr address = {};
	address.addr = input.any<sockaddr_storage>();
	constexpr sa_family_t families[] = {AF_INET, AF_INET6, AF_UNIX};
	const int family = input.between(0, 3);
	if (family < 3)
		address.addr.ss_family = families[family];
	return address;
}

// The client as the sockets of the client's network have it: some of its bits are those
// of the network.
void move_near(sockaddr_storage &address, inet *network, int bits)
{
	unsigned char *bytes =
		address.ss_family == AF_INET
			? reinterpret_cast<unsigned char *>(
				  &reinterpret_cast<sockaddr_in &>(address).sin_addr)
			: reinterpret_cast<sockaddr_in6 &>(address).sin6_addr.s6_addr;
	const bool mapped =
		address.ss_family == AF_INET6 && ip_family(network) == PGSQL_AF_INET;
	if (mapped)
	{
		memset(bytes, 0, 10);
		memset(bytes + 10, 0xff, 2);
		bytes += 12;
	}
	else if ((address.ss_family == AF_INET) != (ip_family(network) == PGSQL_AF_INET))
		return;
	for (int bit = 0; bit < Min(bits, int(ip_bits(network))); bit++)
	{
		const unsigned char mask = 0x80 >> bit % 8;
		bytes[bit / 8] = (bytes[bit / 8] & ~mask) | (ip_addr(network)[bit / 8] & mask);
	}
}

bool contains(inet *network, const Endpoint &client)
{
	return DatumGetBool(
		DirectFunctionCall2(network_supeq, InetPGetDatum(network),
	                        address_datum(client.family, client.address.data())));
}

// ::ffff:a.b.c.d/96 and longer as a.b.c.d.
inet *unmapped(inet *network)
{
	if (ip_family(network) == PGSQL_AF_INET || ip_bits(network) < 96 ||
	    !is_ipv4_mapped(ip_addr(network)))
		return network;
	auto *ipv4 = static_cast<inet *>(palloc0(sizeof(inet)));
	ip_family(ipv4) = PGSQL_AF_INET;
	ip_bits(ipv4) = ip_bits(network) - 96;
	memcpy(ip_addr(ipv4), ip_addr(network) + 12, 4);
	SET_INET_VARSIZE(ipv4);
	return ipv4;
}

void check_text(const Endpoint &client)
{
	const EndpointText text = endpoint_text(client);
	require(ends(text.text));
	const Endpoint shown = guard::unmapped(client);
	if (shown.family == 0)
	{
		require(strcmp(text.text, "[local]") == 0);
		return;
	}
	const char *host = DatumGetCString(
		DirectFunctionCall1(inet_out, address_datum(shown.family, shown.address.data())));
	const char *expected =
		psprintf(shown.family == 4 ? "%s:%u" : "[%s]:%u", host, shown.port);
	require(strcmp(text.text, expected) == 0);
}

void run(Input &input)
{
	inet *network = any_inet(input, true);
	SockAddr address = any_address(input);
	if (address.addr.ss_family == AF_INET || address.addr.ss_family == AF_INET6)
		move_near(address.addr, network, input.between(0, 128));
	const Endpoint client = endpoint_of(address);
	check_text(client);

	set(PolicyColumn::client, InetPGetDatum(network));
	PolicyRow row;
	RowProblem problem;
	require(read_policy_row(heap_form_tuple(columns, values, nulls), columns, numbers,
	                        &row, &problem));
	const bool matches =
		why_not(row.rule, row.policy,
	            make_connection("d", "r", client.family, client.address.data(),
	                            BackendKind::client)) == Mismatch::none;
	network = unmapped(network);
	const bool expected =
		client.family != 0 &&
		(contains(network, client) || contains(network, guard::unmapped(client)));
	require(matches == expected);
}

} // namespace

extern const Target address_target = {"address", false, begin, run};

} // namespace guard::pg::fuzz
