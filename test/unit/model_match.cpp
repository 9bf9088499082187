#include "model/match.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

using namespace guard;

namespace
{

Network network(const char *address, int bits)
{
	Network n{};
	n.family = std::strchr(address, ':') ? 6 : 4;
	n.bits = static_cast<std::uint8_t>(bits);
	EXPECT_EQ(inet_pton(n.family == 6 ? AF_INET6 : AF_INET, address, n.address.data()), 1)
		<< address;
	return n;
}

// A policy with patterns in the table's syntax: "", "name", "+group", "/regex".
struct Row
{
	Policy policy{};
	Rule rule{};

	explicit Row(const char *name, const char *database = "", const char *role = "",
	             Network client = {}, BackendKind backend = BackendKind::any,
	             int priority = 100)
	{
		policy.priority = priority;
		std::snprintf(policy.name, sizeof policy.name, "%s", name);
		const PatternKind database_kind = pattern(database, policy.database);
		const PatternKind role_kind = pattern(role, policy.role);
		rule = make_rule(policy, database_kind, role_kind, backend, client);
	}

	static PatternKind pattern(const char *text, char (&out)[pattern_bytes])
	{
		const PatternKind kind = *text == '\0'  ? PatternKind::any
		                         : *text == '+' ? PatternKind::group
		                         : *text == '/' ? PatternKind::regex
		                                        : PatternKind::name;
		const bool prefixed = kind == PatternKind::group || kind == PatternKind::regex;
		std::snprintf(out, sizeof out, "%s", text + prefixed);
		return kind;
	}
};

Connection connect(const char *address, const char *database = "app",
                   const char *role = "alice", BackendKind backend = BackendKind::client)
{
	if (!address)
		return make_connection(database, role, 0, nullptr, backend);
	const Network n = network(address, 0);
	return make_connection(database, role, n.family, n.address.data(), backend);
}

Mismatch verdict(const Row &row, const Connection &connection)
{
	return why_not(row.rule, row.policy, connection);
}

bool client_matches(const char *net, int bits, const char *address)
{
	const Mismatch found =
		verdict(Row("p", "", "", network(net, bits)), connect(address));
	EXPECT_TRUE(found == Mismatch::none || found == Mismatch::client);
	return found == Mismatch::none;
}

bool ordered(const Row &a, const Row &b)
{
	EXPECT_FALSE(before(a.rule, a.policy, a.rule, a.policy));
	EXPECT_NE(before(a.rule, a.policy, b.rule, b.policy),
	          before(b.rule, b.policy, a.rule, a.policy));
	return before(a.rule, a.policy, b.rule, b.policy);
}

TEST(NameHash, IsFnv1a)
{
	// Test vectors of the FNV reference code.
	EXPECT_EQ(name_hash(""), 0xcbf29ce484222325u);
	EXPECT_EQ(name_hash("a"), 0xaf63dc4c8601ec8cu);
	EXPECT_EQ(name_hash("foobar"), 0x85944171f73967e8u);
	EXPECT_NE(name_hash("\xc3\xa9"), name_hash("\xc3\xaa"));
}

TEST(Match, WithoutPatternsMatchesEverything)
{
	const Row row("p");
	EXPECT_EQ(verdict(row, connect(nullptr)), Mismatch::none);
	EXPECT_EQ(verdict(row, connect("10.0.0.1")), Mismatch::none);
	EXPECT_EQ(verdict(row, connect("2001:db8::1")), Mismatch::none);
	EXPECT_EQ(verdict(row, connect("10.0.0.1", nullptr, "rep", BackendKind::replication)),
	          Mismatch::none);
}

TEST(Match, ComparesNames)
{
	EXPECT_EQ(verdict(Row("p", "app"), connect("10.0.0.1")), Mismatch::none);
	EXPECT_EQ(verdict(Row("p", "App"), connect("10.0.0.1")), Mismatch::database);
	EXPECT_EQ(verdict(Row("p", "ap"), connect("10.0.0.1")), Mismatch::database);
	EXPECT_EQ(verdict(Row("p", "", "alice"), connect("10.0.0.1")), Mismatch::none);
	EXPECT_EQ(verdict(Row("p", "", "bob"), connect("10.0.0.1")), Mismatch::role);
	EXPECT_EQ(verdict(Row("p", "app", "alice"), connect("10.0.0.1")), Mismatch::none);
	EXPECT_EQ(verdict(Row("p", "app", "bob"), connect("10.0.0.1")), Mismatch::role);
}

TEST(Match, ComparesNamesOfMaximalLength)
{
	const std::string long_name(name_bytes - 1, 'x');
	const Row row("p", long_name.c_str(), long_name.c_str());
	EXPECT_EQ(verdict(row, connect("10.0.0.1", long_name.c_str(), long_name.c_str())),
	          Mismatch::none);
	EXPECT_EQ(verdict(row, connect("10.0.0.1", long_name.c_str(), "x")), Mismatch::role);
}

TEST(Match, LeavesGroupsAndRegexesToTheCaller)
{
	EXPECT_EQ(verdict(Row("p", "/^nothing$", "+nobody"), connect("10.0.0.1")),
	          Mismatch::none);
	EXPECT_EQ(verdict(Row("p", "", "/^nobody$"), connect("10.0.0.1")), Mismatch::none);
	EXPECT_EQ(verdict(Row("p", "other", "+nobody"), connect("10.0.0.1")),
	          Mismatch::database);
}

TEST(Match, WithoutDatabaseNoDatabasePatternMatches)
{
	const Connection walsender =
		connect("10.0.0.1", nullptr, "alice", BackendKind::replication);
	EXPECT_EQ(verdict(Row("p", "app", "alice"), walsender), Mismatch::database);
	EXPECT_EQ(verdict(Row("p", "/.*", "alice"), walsender), Mismatch::database);
	EXPECT_EQ(verdict(Row("p", "", "alice"), walsender), Mismatch::none);
	// Not even with an equal hash.
	Row crafted("p", "app");
	crafted.rule.database_hash = walsender.database_hash;
	EXPECT_EQ(verdict(crafted, walsender), Mismatch::database);
}

TEST(Match, ComparesBackendKinds)
{
	for (const BackendKind kind : {BackendKind::client, BackendKind::replication})
	{
		const Connection c = connect("10.0.0.1", "app", "alice", kind);
		EXPECT_EQ(verdict(Row("p", "", "", {}, BackendKind::any), c), Mismatch::none);
		EXPECT_EQ(verdict(Row("p", "", "", {}, BackendKind::client), c),
		          kind == BackendKind::client ? Mismatch::none : Mismatch::backend);
		EXPECT_EQ(verdict(Row("p", "", "", {}, BackendKind::replication), c),
		          kind == BackendKind::replication ? Mismatch::none : Mismatch::backend);
	}
}

TEST(Match, ComparesNamesWithEqualHashes)
{
	const Connection c = connect("10.0.0.1");
	Row database("p", "other");
	database.rule.database_hash = c.database_hash;
	EXPECT_EQ(verdict(database, c), Mismatch::database);
	Row role("p", "app", "other");
	role.rule.role_hash = c.role_hash;
	EXPECT_EQ(verdict(role, c), Mismatch::role);
}

TEST(Match, ComparesIpv4Prefixes)
{
	EXPECT_TRUE(client_matches("0.0.0.0", 0, "255.255.255.255"));
	EXPECT_TRUE(client_matches("128.0.0.0", 1, "128.0.0.1"));
	EXPECT_FALSE(client_matches("128.0.0.0", 1, "127.255.255.255"));
	EXPECT_TRUE(client_matches("10.1.2.0", 23, "10.1.3.255"));
	EXPECT_FALSE(client_matches("10.1.2.0", 23, "10.1.4.0"));
	EXPECT_TRUE(client_matches("10.1.2.4", 31, "10.1.2.5"));
	EXPECT_FALSE(client_matches("10.1.2.4", 31, "10.1.2.6"));
	EXPECT_TRUE(client_matches("10.1.2.4", 32, "10.1.2.4"));
	EXPECT_FALSE(client_matches("10.1.2.4", 32, "10.1.2.5"));
}

TEST(Match, ComparesIpv6Prefixes)
{
	EXPECT_TRUE(client_matches("::", 0, "ffff::1"));
	EXPECT_TRUE(client_matches("8000::", 1, "8000::1"));
	EXPECT_FALSE(client_matches("8000::", 1, "7fff::1"));
	EXPECT_TRUE(client_matches("2001:db8::", 32, "2001:db8:ffff::1"));
	EXPECT_FALSE(client_matches("2001:db8::", 32, "2001:db9::1"));
	EXPECT_TRUE(client_matches("2001:db8::", 63, "2001:db8:0:1::1"));
	EXPECT_FALSE(client_matches("2001:db8::", 63, "2001:db8:0:2::1"));
	EXPECT_TRUE(client_matches("2001:db8::4", 127, "2001:db8::5"));
	EXPECT_FALSE(client_matches("2001:db8::4", 127, "2001:db8::6"));
	EXPECT_TRUE(client_matches("2001:db8::4", 128, "2001:db8::4"));
	EXPECT_FALSE(client_matches("2001:db8::4", 128, "2001:db8::5"));
}

// For each prefix length, an address that differs from the network in one bit.
TEST(Match, ComparesExactlyThePrefixBits)
{
	for (const int family : {4, 6})
		for (int bits = 0; bits <= (family == 4 ? 32 : 128); ++bits)
			for (int flipped = 0; flipped < (family == 4 ? 32 : 128); ++flipped)
			{
				Network n = network(family == 4 ? "170.85.170.85" : "aa55:1::77", bits);
				const Row row("p", "", "", n);
				n.address[flipped / 8] ^= 0x80 >> flipped % 8;
				const Connection c =
					make_connection("app", "alice", static_cast<std::uint8_t>(family),
				                    n.address.data(), BackendKind::client);
				ASSERT_EQ(verdict(row, c),
				          flipped >= bits ? Mismatch::none : Mismatch::client)
					<< family << " /" << bits << " bit " << flipped;
			}
}

TEST(Match, DoesNotMixAddressFamilies)
{
	EXPECT_FALSE(client_matches("::", 0, "10.0.0.1"));
	EXPECT_FALSE(client_matches("0.0.0.0", 0, "2001:db8::1"));
	EXPECT_FALSE(client_matches("0.0.0.0", 0, "::1"));
	// An address that is almost IPv4-mapped is not IPv4-mapped.
	EXPECT_FALSE(client_matches("0.0.0.0", 0, "::10.0.0.1"));
	EXPECT_FALSE(client_matches("0.0.0.0", 0, "::fffe:10.0.0.1"));
	EXPECT_FALSE(client_matches("0.0.0.0", 0, "1::ffff:10.0.0.1"));
}

TEST(Match, MappedAddressesMatchNetworksOfBothFamilies)
{
	EXPECT_TRUE(client_matches("10.0.0.0", 8, "::ffff:10.1.2.3"));
	EXPECT_TRUE(client_matches("10.1.2.3", 32, "::ffff:10.1.2.3"));
	EXPECT_FALSE(client_matches("10.1.2.3", 32, "::ffff:10.1.2.4"));
	EXPECT_FALSE(client_matches("11.0.0.0", 8, "::ffff:10.1.2.3"));
	EXPECT_TRUE(client_matches("::ffff:10.1.2.0", 120, "::ffff:10.1.2.3"));
	EXPECT_FALSE(client_matches("::ffff:10.1.3.0", 120, "::ffff:10.1.2.3"));
	EXPECT_TRUE(client_matches("::", 0, "::ffff:10.1.2.3"));
}

TEST(Match, UnixSocketsMatchNoNetwork)
{
	EXPECT_FALSE(client_matches("0.0.0.0", 0, nullptr));
	EXPECT_FALSE(client_matches("::", 0, nullptr));
	EXPECT_EQ(verdict(Row("p", "app", "alice"), connect(nullptr)), Mismatch::none);
}

TEST(Order, ComparesPriorityFirst)
{
	EXPECT_TRUE(ordered(Row("z", "", "", {}, BackendKind::any, -5),
	                    Row("a", "app", "alice", network("10.0.0.0", 32))));
	EXPECT_TRUE(ordered(Row("z", "", "", {}, BackendKind::any, INT32_MIN),
	                    Row("a", "", "", {}, BackendKind::any, INT32_MAX)));
}

TEST(Order, ComparesRoleAndDatabaseSecond)
{
	const Row both("d", "app", "alice"), role("c", "", "+staff"), database("b", "/app"),
		neither("a", "", "", network("10.0.0.1", 32));
	EXPECT_TRUE(ordered(both, role));
	EXPECT_TRUE(ordered(role, database));
	EXPECT_TRUE(ordered(database, neither));
	EXPECT_TRUE(ordered(both, neither));
}

TEST(Order, ComparesBackendThird)
{
	const Row database("c", "app"), backend("b", "", "", {}, BackendKind::replication),
		network_only("a", "", "", network("10.0.0.1", 32));
	EXPECT_TRUE(ordered(database, backend));
	EXPECT_TRUE(ordered(backend, network_only));
	EXPECT_TRUE(ordered(Row("a", "", "", {}, BackendKind::client), backend));
}

TEST(Order, ComparesPrefixLengthThenName)
{
	const Row v4_32("e", "", "", network("10.0.0.1", 32)),
		v4_24("d", "", "", network("10.0.0.0", 24)),
		v6_64("c", "", "", network("::", 64)), zero("b", "", "", network("0.0.0.0", 0)),
		none("a");
	EXPECT_TRUE(ordered(v4_32, v4_24));
	EXPECT_TRUE(ordered(v6_64, v4_32));
	EXPECT_TRUE(ordered(v4_24, zero));
	EXPECT_TRUE(ordered(zero, none));
	EXPECT_TRUE(ordered(Row("B"), Row("a")));
	EXPECT_TRUE(ordered(Row("a"), Row("aa")));
	EXPECT_TRUE(ordered(Row("z"), Row("\xc3\xa9")));
}

TEST(Order, DoesNotDependOnTheInitialOrder)
{
	std::vector<Row> rows;
	for (const int priority : {1, 2})
		for (const char *database : {"", "app", "/x"})
			for (const char *role : {"", "bob", "+g"})
				for (const int bits : {-1, 0, 8, 32})
					for (const char *suffix : {"a", "b"})
						rows.emplace_back(
							(std::to_string(rows.size() * 7919 % 144) + suffix).c_str(),
							database, role,
							bits < 0 ? Network{} : network("0.0.0.0", bits),
							BackendKind::any, priority);
	const auto sorted = [](std::vector<Row> v)
	{
		std::sort(v.begin(), v.end(),
		          [](const Row &a, const Row &b)
		          { return before(a.rule, a.policy, b.rule, b.policy); });
		std::vector<std::string> names;
		for (const Row &row : v)
			names.emplace_back(row.policy.name);
		return names;
	};
	const std::vector<std::string> expected = sorted(rows);
	std::reverse(rows.begin(), rows.end());
	EXPECT_EQ(sorted(rows), expected);
	std::rotate(rows.begin(), rows.begin() + 37, rows.end());
	EXPECT_EQ(sorted(rows), expected);
}

TEST(Candidates, ContinuesAfterTheLastOne)
{
	const Row rows[] = {Row("0", "other"), Row("1", "", "+g"), Row("2", "", "bob"),
	                    Row("3", "/x"), Row("4")};
	std::vector<Rule> rules;
	std::vector<Policy> policies;
	for (const Row &row : rows)
	{
		rules.push_back(row.rule);
		policies.push_back(row.policy);
	}
	const Connection c = connect("10.0.0.1");
	std::vector<std::size_t> found;
	for (std::size_t i = 0; (i = next_candidate(rules.data(), policies.data(),
	                                            rules.size(), c, i)) < rules.size();
	     ++i)
		found.push_back(i);
	EXPECT_EQ(found, (std::vector<std::size_t>{1, 3, 4}));
	EXPECT_EQ(next_candidate(rules.data(), policies.data(), 5, c, 5), 5u);
	EXPECT_EQ(next_candidate(nullptr, nullptr, 0, c, 0), 0u);
}

// Ten thousand policies must not delay a starting backend: it reads only their rules,
// which are small.  Here, the policies whose rules do not fit cannot be read.  How long
// it takes is in doc/performance.md.
TEST(Candidates, AreFoundByTheRulesAlone)
{
	constexpr std::size_t n = 10000;
	const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
	const std::size_t bytes = (n * sizeof(Policy) + page - 1) / page * page;
	void *memory = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(memory, MAP_FAILED);
	auto *const policies = static_cast<Policy *>(memory);
	const std::size_t offset = (n - 1) * sizeof(Policy) / page * page;
	ASSERT_EQ(mprotect(static_cast<char *>(memory) + offset, bytes - offset,
	                   PROT_READ | PROT_WRITE),
	          0);
	std::vector<Rule> rules;
	for (std::size_t i = 0; i < n; ++i)
	{
		const Row row(std::to_string(i).c_str(), i % 3 ? "app" : "",
		              ("role" + std::to_string(i)).c_str(),
		              i % 2 ? network("10.0.0.0", 8) : network("2001:db8::", 64));
		rules.push_back(row.rule);
		if (i == n - 1)
			policies[i] = row.policy;
	}
	EXPECT_EQ(next_candidate(rules.data(), policies, n,
	                         connect("10.0.0.1", "app", "nobody"), 0),
	          n);
	EXPECT_EQ(next_candidate(rules.data(), policies, n,
	                         connect("10.0.0.1", "app", "role9999"), 0),
	          n - 1);
	munmap(memory, bytes);
}

} // namespace
