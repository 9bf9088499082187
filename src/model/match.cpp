#include "model/match.hpp"

#include <algorithm>
#include <cstring>

#include "kernel/socket.hpp"

namespace guard
{
namespace
{

std::uint32_t load32(const std::uint8_t *p) noexcept
{
	return std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 |
	       std::uint32_t{p[2]} << 8 | p[3];
}

bool same_prefix(const std::uint8_t *a, const std::uint8_t *b, unsigned bits) noexcept
{
	const unsigned bytes = bits / 8;
	if (std::memcmp(a, b, bytes) != 0)
		return false;
	const unsigned rest = bits % 8;
	return rest == 0 || (a[bytes] ^ b[bytes]) >> (8 - rest) == 0;
}

bool in_network(const Network &network, const Connection &connection) noexcept
{
	switch (network.family)
	{
	case 0:
		return true;
	case 4:
		return connection.has_ipv4 &&
		       (network.bits == 0 ||
		        (load32(network.address.data()) ^ connection.ipv4) >>
		                (32 - std::min<unsigned>(network.bits, 32)) ==
		            0);
	case 6:
		return connection.family == 6 &&
		       same_prefix(network.address.data(), connection.address.data(),
		                   std::min<unsigned>(network.bits, 128));
	default:
		return false;
	}
}

// Looks at the Rule only: the Policies are too big to walk.
Mismatch at_a_glance(const Rule &rule, const Connection &connection) noexcept
{
	if (rule.backend != BackendKind::any && rule.backend != connection.backend)
		return Mismatch::backend;
	if (rule.database != PatternKind::any)
	{
		if (!connection.database)
			return Mismatch::database;
		if (rule.database == PatternKind::name &&
		    rule.database_hash != connection.database_hash)
			return Mismatch::database;
	}
	if (rule.role == PatternKind::name && rule.role_hash != connection.role_hash)
		return Mismatch::role;
	if (!in_network(rule.client, connection))
		return Mismatch::client;
	return Mismatch::none;
}

inline Mismatch decide(const Rule &rule, const Policy &policy,
                       const Connection &connection) noexcept
{
	const Mismatch found = at_a_glance(rule, connection);
	if (found != Mismatch::none)
		return found;
	// Different names can have the same hash.
	if (rule.database == PatternKind::name &&
	    std::strcmp(policy.database, connection.database) != 0)
		return Mismatch::database;
	if (rule.role == PatternKind::name && std::strcmp(policy.role, connection.role) != 0)
		return Mismatch::role;
	return Mismatch::none;
}

int specificity(const Rule &rule) noexcept
{
	return (rule.role != PatternKind::any ? 2 : 0) +
	       (rule.database != PatternKind::any ? 1 : 0);
}

int prefix_length(const Rule &rule) noexcept
{
	return rule.client.family == 0 ? -1 : rule.client.bits;
}

} // namespace

std::uint64_t name_hash(const char *name) noexcept
{
	std::uint64_t hash = 0xcbf29ce484222325;
	for (; *name; ++name)
		hash = (hash ^ static_cast<unsigned char>(*name)) * 0x100000001b3;
	return hash;
}

Connection make_connection(const char *database, const char *role, std::uint8_t family,
                           const std::uint8_t *address, BackendKind backend) noexcept
{
	Connection connection{};
	connection.database = database;
	connection.role = role;
	connection.database_hash = database ? name_hash(database) : 0;
	connection.role_hash = name_hash(role);
	connection.family = family;
	connection.backend = backend;
	if (family == 4)
	{
		connection.ipv4 = load32(address);
		connection.has_ipv4 = true;
	}
	else if (family == 6)
	{
		std::memcpy(connection.address.data(), address, 16);
		if (is_ipv4_mapped(address))
		{
			connection.ipv4 = load32(address + 12);
			connection.has_ipv4 = true;
		}
	}
	return connection;
}

Rule make_rule(const Policy &policy, PatternKind database, PatternKind role,
               BackendKind backend, const Network &client) noexcept
{
	Rule rule{};
	rule.database = database;
	rule.role = role;
	rule.backend = backend;
	rule.client = client;
	if (database == PatternKind::name)
		rule.database_hash = name_hash(policy.database);
	if (role == PatternKind::name)
		rule.role_hash = name_hash(policy.role);
	return rule;
}

Mismatch why_not(const Rule &rule, const Policy &policy,
                 const Connection &connection) noexcept
{
	return decide(rule, policy, connection);
}

std::size_t next_candidate(const Rule *rules, const Policy *policies, std::size_t n,
                           const Connection &connection, std::size_t from) noexcept
{
	for (std::size_t i = from; i < n; ++i)
		if (decide(rules[i], policies[i], connection) == Mismatch::none)
			return i;
	return n;
}

bool before(const Rule &a, const Policy &policy_a, const Rule &b,
            const Policy &policy_b) noexcept
{
	if (policy_a.priority != policy_b.priority)
		return policy_a.priority < policy_b.priority;
	if (specificity(a) != specificity(b))
		return specificity(a) > specificity(b);
	if ((a.backend == BackendKind::any) != (b.backend == BackendKind::any))
		return a.backend != BackendKind::any;
	if (prefix_length(a) != prefix_length(b))
		return prefix_length(a) > prefix_length(b);
	return std::strcmp(policy_a.name, policy_b.name) < 0;
}

} // namespace guard
