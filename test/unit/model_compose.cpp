#include "model/compose.hpp"

#include <cstring>

#include <gtest/gtest.h>

using namespace guard;

namespace
{

Policy named(const char *name)
{
	Policy policy{};
	std::strcpy(policy.name, name);
	return policy;
}

Composition composed(std::initializer_list<Policy> policies)
{
	Composition composition{};
	for (const Policy &policy : policies)
		if (!add_policy(composition, policy))
			break;
	return composition;
}

std::string names(const Composition &composition)
{
	std::string result;
	for (int i = 0; i < composition.policies.count; ++i)
		result += std::string(i ? "," : "") + composition.policies.name[i];
	return result;
}

TEST(Compose, NoPolicyGivesNothing)
{
	const Composition none = composed({});
	EXPECT_FALSE(none.governed());
	EXPECT_EQ(none.settings.given, 0);
}

TEST(Compose, EachItemComesFromTheFirstPolicyThatGivesIt)
{
	for (int first = 0; first < item_count; ++first)
	{
		Policy exception = named("exception");
		exception.settings.give(first, 1);
		exception.settings.enforcement = Enforcement::locked;
		Policy baseline = named("baseline");
		for (int item = 0; item < item_count; ++item)
			baseline.settings.give(item, 10 + item);
		const Composition both = composed({exception, baseline});
		EXPECT_EQ(names(both), "exception,baseline");
		for (int item = 0; item < item_count; ++item)
		{
			ASSERT_TRUE(both.settings.has(item));
			EXPECT_EQ(both.settings.value[item], item == first ? 1 : 10 + item);
			EXPECT_STREQ(both.source_of(item), item == first ? "exception" : "baseline");
			EXPECT_EQ(both.settings.enforcement[item],
			          item == first ? Enforcement::locked : Enforcement::by_default);
		}
	}
}

TEST(Compose, ZeroIsAValue)
{
	for (int item = 0; item < item_count; ++item)
	{
		Policy exemption = named("exemption");
		exemption.settings.give(item, 0);
		Policy baseline = named("baseline");
		baseline.settings.give(item, 60);
		const Composition both = composed({exemption, baseline});
		EXPECT_TRUE(both.settings.has(item));
		EXPECT_EQ(both.settings.value[item], 0);
		EXPECT_EQ(names(both), "exemption");
	}
}

TEST(Compose, FinalEndsTheSearch)
{
	Policy vendor = named("vendor");
	vendor.settings.give(item_dead_after, 5000);
	vendor.settings.final = true;
	Policy baseline = named("baseline");
	baseline.settings.give(item_of(Setting::keepalives_idle), 60);
	const Composition result = composed({vendor, baseline});
	EXPECT_EQ(names(result), "vendor");
	EXPECT_FALSE(result.settings.has(Setting::keepalives_idle));

	Policy exemption = named("exemption");
	exemption.settings.final = true;
	EXPECT_FALSE(composed({exemption, baseline}).governed());
}

TEST(Compose, TheSearchEndsWhenEverythingIsGiven)
{
	Policy all = named("all");
	for (int item = 0; item < item_count; ++item)
		all.settings.give(item, 1);
	Composition composition{};
	EXPECT_FALSE(add_policy(composition, all));
	Policy most = named("most");
	most.settings = all.settings;
	most.settings.given &= ~1;
	composition = {};
	EXPECT_TRUE(add_policy(composition, most));
}

TEST(Compose, LogOnlyTakesNobodysPlace)
{
	Policy trial = named("trial");
	trial.settings.log_only = true;
	trial.settings.give(item_dead_after, 5000);
	trial.settings.give(item_stall_timeout, 6000);
	trial.settings.give(item_of(Setting::keepalives_idle), 30);
	Policy baseline = named("baseline");
	baseline.settings.give(item_dead_after, 60000);
	baseline.settings.give(item_of(Setting::keepalives_idle), 60);
	const Composition result = composed({trial, baseline});
	EXPECT_EQ(names(result), "trial,baseline");
	EXPECT_EQ(result.settings.dead_after_ms(), 60000);
	EXPECT_STREQ(result.source_of(item_dead_after), "baseline");
	EXPECT_EQ(result.settings.log_dead_after_ms, 5000);
	EXPECT_EQ(result.settings.log_stall_timeout_ms, 6000);
	EXPECT_STREQ(result.policies.name[result.settings.source[source_log_dead_after]],
	             "trial");
	EXPECT_EQ(result.settings.get(Setting::keepalives_idle), 30);
	EXPECT_FALSE(result.settings.has(item_stall_timeout));
}

TEST(Compose, LogOnlyAfterThePolicyThatEndsSessionsIsNotAsked)
{
	Policy strict = named("strict");
	strict.settings.give(item_dead_after, 5000);
	Policy trial = named("trial");
	trial.settings.log_only = true;
	trial.settings.give(item_dead_after, 1000);
	const Composition result = composed({strict, trial});
	EXPECT_EQ(names(result), "strict");
	EXPECT_EQ(result.settings.log_dead_after_ms, 0);
}

TEST(Compose, HasRoomForAsManyPoliciesAsCanGiveSomething)
{
	Composition composition{};
	const std::string longest(name_bytes - 1, 'x');
	for (const int item : {item_dead_after, item_stall_timeout})
	{
		Policy trial = named((longest.substr(2) + "t" + std::to_string(item)).c_str());
		trial.settings.log_only = true;
		trial.settings.give(item, 1000);
		add_policy(composition, trial);
	}
	for (int item = 0; item < item_count; ++item)
	{
		Policy policy = named((longest.substr(2) + "p" + std::to_string(item)).c_str());
		policy.settings.give(item, 1);
		EXPECT_EQ(add_policy(composition, policy), item + 1 < item_count);
	}
	EXPECT_EQ(composition.policies.count, most_sources);
	for (int item = 0; item < item_count; ++item)
		EXPECT_EQ(std::string(composition.source_of(item)).back(), '0' + item);
}

} // namespace
