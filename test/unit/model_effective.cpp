#include "model/effective.hpp"

#include <climits>

#include <gtest/gtest.h>

using namespace guard;

namespace
{

constexpr Setting all_settings[] = {
	Setting::keepalives_idle, Setting::keepalives_interval, Setting::keepalives_count,
	Setting::user_timeout, Setting::client_check};

bool zero_is_off(Setting s)
{
	return s == Setting::user_timeout || s == Setting::client_check;
}

Settings policy(Setting s, std::int32_t value, Enforcement enforcement)
{
	Settings p{};
	p.value[static_cast<int>(s)] = value;
	p.set_mask = static_cast<std::uint8_t>(1 << static_cast<int>(s));
	p.enforcement = enforcement;
	return p;
}

TEST(Looser, IsTheLongerValue)
{
	for (const Setting s : all_settings)
	{
		EXPECT_TRUE(looser(s, 61, 60, 100));
		EXPECT_FALSE(looser(s, 60, 60, 100));
		EXPECT_FALSE(looser(s, 59, 60, 100));
		EXPECT_FALSE(looser(s, 0, 0, 100));
	}
}

TEST(Looser, TreatsZeroAsTheSystemsDefaultOrOff)
{
	for (const Setting s : {Setting::keepalives_idle, Setting::keepalives_interval,
	                        Setting::keepalives_count})
	{
		EXPECT_TRUE(looser(s, 0, 60, 61));
		EXPECT_FALSE(looser(s, 0, 60, 60));
		EXPECT_FALSE(looser(s, 0, 60, 59));
		EXPECT_TRUE(looser(s, 60, 0, 59));
	}
	for (const Setting s : {Setting::user_timeout, Setting::client_check})
	{
		EXPECT_TRUE(looser(s, 0, INT_MAX, 1));
		EXPECT_FALSE(looser(s, INT_MAX, 0, 1));
	}
}

TEST(Effective, IsTheSessionsValueWithoutAPolicyValue)
{
	for (const Setting s : all_settings)
		for (const Enforcement e :
		     {Enforcement::by_default, Enforcement::ceiling, Enforcement::locked})
		{
			Settings p = policy(s, 10, e);
			p.set_mask = static_cast<std::uint8_t>(~p.set_mask);
			EXPECT_EQ(effective(s, 999, p, 7200, false), 999);
			EXPECT_TRUE(allowed(s, 999, p, 7200, false));
		}
}

TEST(Effective, IsTheSessionsValueUnderDefault)
{
	for (const Setting s : all_settings)
		for (const std::int32_t native : {0, 5, 60, 9999})
		{
			const Settings p = policy(s, 60, Enforcement::by_default);
			EXPECT_EQ(effective(s, native, p, 7200, false), native);
			EXPECT_TRUE(allowed(s, native, p, 7200, false));
		}
}

TEST(Effective, IsThePolicysValueUnderLocked)
{
	for (const Setting s : all_settings)
		for (const std::int32_t native : {0, 5, 60, 9999})
		{
			const Settings p = policy(s, 60, Enforcement::locked);
			EXPECT_EQ(effective(s, native, p, 60, false), 60);
			EXPECT_EQ(allowed(s, native, p, 60, false), native == 60);
		}
	EXPECT_EQ(effective(Setting::user_timeout, 5,
	                    policy(Setting::user_timeout, 0, Enforcement::locked), 0, false),
	          0);
}

TEST(Effective, IsTheStricterValueUnderCeiling)
{
	for (const Setting s : all_settings)
	{
		const Settings p = policy(s, 60, Enforcement::ceiling);
		EXPECT_EQ(effective(s, 59, p, 7200, false), 59);
		EXPECT_EQ(effective(s, 60, p, 7200, false), 60);
		EXPECT_EQ(effective(s, 61, p, 7200, false), 60);
		EXPECT_EQ(effective(s, 0, p, 7200, false), 60);
		EXPECT_FALSE(allowed(s, 0, p, 7200, false));
		// The system's default may be stricter; off is never stricter.
		EXPECT_EQ(effective(s, 0, p, 30, false), zero_is_off(s) ? 60 : 0);
		EXPECT_EQ(allowed(s, 0, p, 30, false), !zero_is_off(s));
	}
}

TEST(Effective, WithACeilingOfZero)
{
	for (const Setting s : all_settings)
	{
		const Settings p = policy(s, 0, Enforcement::ceiling);
		EXPECT_EQ(effective(s, 0, p, 60, false), 0);
		EXPECT_EQ(effective(s, 30, p, 60, false), 30);
		EXPECT_EQ(effective(s, 90, p, 60, false), zero_is_off(s) ? 90 : 0);
	}
}

TEST(Effective, IsTheSuperusersValue)
{
	for (const Setting s : all_settings)
		for (const Enforcement e : {Enforcement::ceiling, Enforcement::locked})
		{
			EXPECT_EQ(effective(s, 9999, policy(s, 60, e), 7200, true), 9999);
			EXPECT_TRUE(allowed(s, 0, policy(s, 60, e), 7200, true));
		}
}

// The result is always allowed, and never looser than the policy under a ceiling.
TEST(Effective, IsAlwaysAllowed)
{
	constexpr std::int32_t values[] = {0, 1, 5, 60, 61, 127, 7200, INT_MAX};
	for (const Setting s : all_settings)
		for (const Enforcement e :
		     {Enforcement::by_default, Enforcement::ceiling, Enforcement::locked})
			for (const std::int32_t wanted : values)
				for (const std::int32_t native : values)
					for (const std::int32_t system_default : {1, 60, 7200})
					{
						const Settings p = policy(s, wanted, e);
						const std::int32_t got =
							effective(s, native, p, system_default, false);
						ASSERT_TRUE(allowed(s, got, p, system_default, false));
						ASSERT_TRUE(got == native || got == wanted);
						if (e == Enforcement::ceiling)
						{
							ASSERT_FALSE(looser(s, got, wanted, system_default));
						}
					}
}

} // namespace
