// Which policies match a connection: the part that does not need PostgreSQL.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "model/policy.hpp"

namespace guard
{

// FNV-1a, 64 bits, over the bytes before the NUL.
std::uint64_t name_hash(const char *name) noexcept;

// A starting connection as rules see it.  The names are not copied.
struct Connection
{
	const char *database; // nullptr: none, a physical walsender
	const char *role;
	std::uint64_t database_hash;
	std::uint64_t role_hash;
	std::array<std::uint8_t, 16> address; // network byte order, where family is 6
	std::uint32_t ipv4;                   // host byte order, where has_ipv4
	std::uint8_t family;                  // 0: Unix socket, 4, 6
	bool has_ipv4;                        // family 4, or an IPv4-mapped address
	BackendKind backend;                  // client or replication
};

// `address` points to 4 bytes (family 4) or 16 (family 6) in network byte
// order; family 0 ignores it.  An IPv4-mapped address (::ffff:a.b.c.d) is matched by
// IPv4 rules and by IPv6 rules.  A plain IPv4 address is not matched by IPv6 rules, as in
// pg_hba.conf.
Connection make_connection(const char *database, const char *role, std::uint8_t family,
                           const std::uint8_t *address, BackendKind backend) noexcept;

// A rule for `policy`, whose names it hashes.
Rule make_rule(const Policy &policy, PatternKind database, PatternKind role,
               BackendKind backend, const Network &client) noexcept;

// The first thing found that keeps a rule from matching.
enum class Mismatch : std::uint8_t
{
	none,
	backend,
	client,
	database,
	role,
};

// Decides all that can be decided without PostgreSQL: a group or a regex counts
// as matching, and the caller asks PostgreSQL.  A rule with a database pattern,
// of whatever kind, never matches a connection without a database.
Mismatch why_not(const Rule &rule, const Policy &policy,
                 const Connection &connection) noexcept;

// The first index >= from (at most n) for which why_not() is none; n if there is
// none.  policies[i] belongs to rules[i].
std::size_t next_candidate(const Rule *rules, const Policy *policies, std::size_t n,
                           const Connection &connection, std::size_t from) noexcept;

// Match order: whether a is tried before b.  A strict weak order, total where
// names differ: priority; role and database, role, database, neither; those with a
// backend; the longer client prefix, where no client is shorter than /0 and bits compare
// across families (no connection but an IPv4-mapped one can match rules of both); name in
// byte order.
bool before(const Rule &a, const Policy &policy_a, const Rule &b,
            const Policy &policy_b) noexcept;

} // namespace guard
