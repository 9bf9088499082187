#include "model/near_name.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

namespace guard
{
namespace
{

std::string near(const char *wanted, std::initializer_list<const char *> names)
{
	NearName search = search_near_name(wanted);
	for (const char *name : names)
		offer_name(search, name);
	return search.best;
}

TEST(NearName, prefers_a_name_that_differs_in_case_only)
{
	EXPECT_EQ(near("App", {"ape", "APP", "apps", "app"}), "APP");
	EXPECT_EQ(near("BILLING", {"BILLINGS", "billing"}), "billing");
	EXPECT_EQ(near("AZ", {"az"}), "az");
	EXPECT_EQ(near("@[", {"`{"}), ""); // the neighbours of A and Z
}

TEST(NearName, takes_the_fewest_edits)
{
	EXPECT_EQ(near("reporting", {"rporitng", "reportign", "reportin"}), "reportin");
	EXPECT_EQ(near("reporting", {"reportings", "reportin"}), "reportings");
	EXPECT_EQ(near("payment", {"paymants"}), "paymants");
	EXPECT_EQ(near("payment", {"apyment"}), "apyment");
}

TEST(NearName, knows_when_no_name_is_near)
{
	EXPECT_EQ(near("payment", {"", "shipment", "pay", "payments_ro", "postgres"}), "");
	EXPECT_EQ(near("app", {"web", "apple", "ap_"}), "ap_");
	EXPECT_EQ(near("app", {"apple", "zap_"}), "");
	EXPECT_EQ(near("a", {"", "b", "c"}), "");
	EXPECT_EQ(near("a", {"A"}), "A");
}

TEST(NearName, takes_names_of_any_length)
{
	const std::string longest(name_bytes - 1, 'n');
	const std::string other = longest.substr(1) + "m";
	EXPECT_EQ(near(longest.c_str(), {other.c_str()}), other);
	EXPECT_EQ(near(longest.c_str(), {longest.c_str() + 2}), longest.substr(2));
	EXPECT_EQ(near(longest.c_str(), {longest.c_str() + 3}), "");
	EXPECT_EQ(near("", {"", "a"}), "");
}

// The distance as it is defined, for comparison.
std::size_t slow_distance(const std::string &a, const std::string &b)
{
	std::vector<std::vector<std::size_t>> d(a.size() + 1,
	                                        std::vector<std::size_t>(b.size() + 1));
	for (std::size_t i = 0; i <= a.size(); i++)
		for (std::size_t j = 0; j <= b.size(); j++)
			d[i][j] = i == 0   ? j
			          : j == 0 ? i
			                   : std::min({d[i - 1][j] + 1, d[i][j - 1] + 1,
			                               d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
	return d[a.size()][b.size()];
}

TEST(NearName, agrees_with_the_definition_for_random_names)
{
	std::mt19937 random(1);
	const auto name = [&random]
	{
		std::string text(random() % 9, ' ');
		for (char &c : text)
			c = static_cast<char>('a' + random() % 3);
		return text;
	};
	int found = 0;
	for (int i = 0; i < 20000; i++)
	{
		const std::string wanted = name();
		const std::string offered = name();
		const std::size_t most = wanted.size() < 6 ? 1 : 2;
		const std::size_t away = slow_distance(wanted, offered);
		const bool expected = !offered.empty() && away <= most && away < wanted.size();
		EXPECT_EQ(near(wanted.c_str(), {offered.c_str()}), expected ? offered : "")
			<< wanted << " and " << offered;
		found += expected;
	}
	EXPECT_GT(found, 500);
}

} // namespace
} // namespace guard
