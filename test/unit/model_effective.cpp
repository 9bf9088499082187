#include "model/effective.hpp"

#include <climits>
#include <random>
#include <utility>

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

ComposedSettings policy(Setting s, std::int32_t value, Enforcement enforcement)
{
	ComposedSettings p{};
	p.value[item_of(s)] = value;
	p.enforcement[item_of(s)] = enforcement;
	p.given = static_cast<std::uint8_t>(1 << item_of(s));
	return p;
}

void give(ComposedSettings &p, int item, std::int32_t value, Enforcement enforcement)
{
	p.value[item] = value;
	p.enforcement[item] = enforcement;
	p.given |= 1 << item;
}

// A TCP session of a server with the kernel's defaults, and without settings of its own.
Basis basis_of(const ComposedSettings &p)
{
	Basis basis{};
	for (int i = 0; i < setting_count; ++i)
		basis.unchosen[i] = p.has(i) ? p.value[i] : 0;
	basis.system_default = {7200, 75, 9, 0, 0};
	basis.watch_interval_ms = 1000;
	basis.tcp = true;
	return basis;
}

Choices choose(std::initializer_list<std::pair<Setting, std::int32_t>> values)
{
	Choices choices{};
	for (const auto &[setting, value] : values)
		choices[item_of(setting)] = {value, true, false};
	return choices;
}

bool no_later(const Duration &a, const Duration &b)
{
	return !b || (a && *a <= *b);
}

TEST(Looser, LongerIsLooser)
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

TEST(Allowed, WithoutAPolicyValueEveryValueIs)
{
	for (const Setting s : all_settings)
	{
		ComposedSettings p = policy(s, 10, Enforcement::locked);
		p.given = static_cast<std::uint8_t>(~p.given);
		EXPECT_TRUE(allowed(s, 999, p, 7200));
	}
}

TEST(Allowed, ByDefaultEveryValueIs)
{
	for (const Setting s : all_settings)
		for (const std::int32_t value : {0, 5, 60, 9999})
			EXPECT_TRUE(allowed(s, value, policy(s, 60, Enforcement::by_default), 7200));
}

TEST(Allowed, LockedIsThePolicysValueOnly)
{
	for (const Setting s : all_settings)
	{
		const ComposedSettings p = policy(s, 60, Enforcement::locked);
		EXPECT_TRUE(allowed(s, 60, p, 60));
		for (const std::int32_t value : {0, 59, 61})
			EXPECT_FALSE(allowed(s, value, p, 60));
	}
}

TEST(Allowed, UnderACeilingStricterValuesAre)
{
	for (const Setting s : all_settings)
	{
		const ComposedSettings p = policy(s, 60, Enforcement::ceiling);
		EXPECT_TRUE(allowed(s, 60, p, 7200));
		EXPECT_TRUE(allowed(s, 1, p, 7200));
		EXPECT_FALSE(allowed(s, 61, p, 7200));
		EXPECT_FALSE(allowed(s, 0, p, 7200));
		EXPECT_EQ(allowed(s, 0, p, 59), !zero_is_off(s));
	}
}

TEST(FirstEnforcedItem, IsNotOneWithEnforcementByDefault)
{
	ComposedSettings p = policy(Setting::keepalives_idle, 60, Enforcement::by_default);
	EXPECT_EQ(first_enforced_item(p), -1);
	give(p, item_dead_after, 5000, Enforcement::ceiling);
	give(p, item_stall_timeout, 5000, Enforcement::locked);
	EXPECT_EQ(first_enforced_item(p), item_dead_after);
}

TEST(DetectionSettingsOf, HasTheValuesInForceAndThoseOfThePolicy)
{
	ComposedSettings p{};
	give(p, item_dead_after, 7, Enforcement::by_default);
	give(p, item_stall_timeout, 8, Enforcement::by_default);
	EXPECT_TRUE(detection_settings_of({1, 1, 1, 5, 6}, true, p, 9) ==
	            (DetectionSettings{true, 1, 1, 1, 5, 6, 7, 8, 9}));
	// Of a socket whose options could not be read.
	EXPECT_TRUE(detection_settings_of({}, false, {}, 0) ==
	            (DetectionSettings{false, 1, 1, 1, 0, 0, 0, 0, 0}));
}

TEST(Effective, WithoutChoicesTheBasisStands)
{
	ComposedSettings p = policy(Setting::keepalives_idle, 60, Enforcement::locked);
	const Basis basis = basis_of(p);
	EXPECT_EQ(effective({}, p, basis), basis.unchosen);
}

TEST(Effective, AChoiceOfASettingThatIsLeftNullCannotUndoWhatIsLocked)
{
	ComposedSettings keepalives =
		policy(Setting::keepalives_idle, 60, Enforcement::locked);
	give(keepalives, item_of(Setting::keepalives_interval), 10, Enforcement::locked);
	give(keepalives, item_of(Setting::keepalives_count), 3, Enforcement::locked);
	Basis basis = basis_of(keepalives);
	EXPECT_EQ(effective(choose({{Setting::user_timeout, 86400000}}), keepalives, basis),
	          basis.unchosen);
	EXPECT_NE(effective(choose({{Setting::user_timeout, 30000}}), keepalives, basis),
	          basis.unchosen);
	EXPECT_NE(effective(choose({{Setting::client_check, 30000}}), keepalives, basis),
	          basis.unchosen);

	ComposedSettings guarded{};
	give(guarded, item_dead_after, 10000, Enforcement::locked);
	basis = basis_of(guarded);
	basis.unchosen[0] = 5;
	EXPECT_EQ(effective(choose({{Setting::keepalives_idle, 32767}}), guarded, basis),
	          basis.unchosen);
	EXPECT_NE(effective(choose({{Setting::keepalives_idle, 2}}), guarded, basis),
	          basis.unchosen);
}

TEST(DetectionOf, ResolvesZeroToTheSystemsDefault)
{
	const ComposedSettings p{};
	Basis basis = basis_of(p);
	basis.system_default = {100, 10, 5, 40000, 1000};
	const auto same = [&](const SettingValues &values, const SettingValues &resolved)
	{
		const Detection a = detection_of(values, p, basis);
		const Detection b = detection_of(resolved, p, basis);
		EXPECT_TRUE(b.idle.latest && b.busy.latest);
		EXPECT_EQ(a.idle.latest, b.idle.latest);
		EXPECT_EQ(a.busy.latest, b.busy.latest);
	};
	same({0, 0, 0, 0, 0}, {100, 10, 5, 40000, 1000});
	same({0, 7, 3, 90000, 2000}, {100, 7, 3, 90000, 2000});
	same({60, 0, 3, 90000, 2000}, {60, 10, 3, 90000, 2000});
	same({60, 7, 0, 90000, 2000}, {60, 7, 5, 90000, 2000});
	same({60, 7, 3, 0, 2000}, {60, 7, 3, 40000, 2000});
	// 1 is a value, and not the default.
	EXPECT_NE(detection_of({1, 1, 1, 90000, 2000}, p, basis).idle.latest,
	          detection_of({0, 0, 0, 90000, 2000}, p, basis).idle.latest);
}

TEST(Effective, AChoiceCannotUndoALockedClientCheck)
{
	const ComposedSettings p = policy(Setting::client_check, 1000, Enforcement::locked);
	const Basis basis = basis_of(p);
	const Promise promise = promised({}, p, basis);
	EXPECT_FALSE(promise.idle);
	EXPECT_EQ(promise.busy, detection_of(basis.unchosen, p, basis).busy.latest);
	EXPECT_TRUE(promise.busy);
	EXPECT_EQ(effective(choose({{Setting::user_timeout, 86400000}}), p, basis),
	          basis.unchosen);
}

TEST(Effective, OnAUnixSocketOnlyTheSettingsOwnEnforcementCounts)
{
	ComposedSettings p{};
	give(p, item_dead_after, 10000, Enforcement::locked);
	Basis basis = basis_of(p);
	basis.tcp = false;
	const SettingValues values =
		effective(choose({{Setting::client_check, 99999}}), p, basis);
	EXPECT_EQ(values[item_of(Setting::client_check)], 99999);
}

TEST(Effective, WhoMayOverrideGetsWhatTheyChoose)
{
	ComposedSettings p = policy(Setting::keepalives_idle, 60, Enforcement::locked);
	const Basis basis = basis_of(p);
	Choices choices =
		choose({{Setting::keepalives_idle, 7000}, {Setting::user_timeout, 86400000}});
	for (Choice &choice : choices)
		choice.may_override = choice.made;
	const SettingValues values = effective(choices, p, basis);
	EXPECT_EQ(values[0], 7000);
	EXPECT_EQ(values[item_of(Setting::user_timeout)], 86400000);
}

TEST(Effective, WhoMayOverrideOneSettingGetsIt)
{
	for (const Setting s : all_settings)
	{
		ComposedSettings p{};
		for (const Setting locked : all_settings)
			give(p, item_of(locked), 60, Enforcement::locked);
		Choices choices = choose({{s, 7000}});
		choices[item_of(s)].may_override = true;
		EXPECT_EQ(effective(choices, p, basis_of(p))[item_of(s)], 7000);
	}
}

TEST(Effective, ChoicesThatAreWellTogetherAreTakenTogether)
{
	ComposedSettings p{};
	give(p, item_keepalive, 1, Enforcement::locked);
	Basis basis = basis_of(p);
	basis.unchosen = {60, 10, 6, 0, 0};
	const Choices choices =
		choose({{Setting::keepalives_idle, 100}, {Setting::keepalives_interval, 1}});
	const SettingValues expected = {100, 1, 6, 0, 0};
	EXPECT_EQ(effective(choices, p, basis), expected);
}

// Every set of policies, of choices and of enforcement over values at the bounds and
// around each other: no choices make a dead client go unnoticed for longer than promised,
// nor an enforced setting be anything but what it may be.
TEST(Effective, NoChoicesUndoAPromise)
{
	std::mt19937 random(20261121);
	const auto pick = [&](std::initializer_list<std::int32_t> of)
	{
		return of.begin()[random() % of.size()];
	};
	const auto seconds = [&]
	{
		return pick({0, 1, 2, 5, 10, 60, 75, 100, 7200, 32767});
	};
	const auto value_of = [&](int item) -> std::int32_t
	{
		switch (item)
		{
		case 0:
		case 1:
			return seconds();
		case 2:
			return pick({0, 1, 2, 3, 9, 60, 127});
		case item_keepalive:
			return pick({0, 1, 1, 1});
		default:
			return pick({0, 1, 500, 1000, 9999, 60000, 119000, 86400000, INT_MAX});
		}
	};
	int refused = 0;
	for (int round = 0; round < 200000; ++round)
	{
		ComposedSettings p{};
		for (int item = 0; item < item_count; ++item)
			if (random() % 2)
				give(p, item, value_of(item), static_cast<Enforcement>(random() % 3));
		Basis basis = basis_of(p);
		Choices choices{};
		for (int i = 0; i < setting_count; ++i)
		{
			if (!p.has(i))
				basis.unchosen[i] = value_of(i);
			if (random() % 2)
				choices[i] = {value_of(i), true, false};
		}
		const SettingValues values = effective(choices, p, basis);
		const Promise promise = promised(choices, p, basis);
		const Detection worst = detection_of(values, p, basis);
		ASSERT_TRUE(no_later(worst.idle.latest, promise.idle)) << "round " << round;
		ASSERT_TRUE(no_later(worst.busy.latest, promise.busy)) << "round " << round;
		for (int i = 0; i < setting_count; ++i)
		{
			const auto setting = static_cast<Setting>(i);
			ASSERT_TRUE(values[i] == basis.unchosen[i] ||
			            (choices[i].made && values[i] == choices[i].value));
			ASSERT_TRUE(allowed(setting, values[i], p, basis.system_default[i]) ||
			            values[i] == basis.unchosen[i]);
			refused += choices[i].made && values[i] != choices[i].value;
		}
		// Without enforcement everything is a session's own.
		if (first_enforced_item(p) < 0)
		{
			for (int i = 0; i < setting_count; ++i)
				ASSERT_TRUE(!choices[i].made || values[i] == choices[i].value);
		}
	}
	EXPECT_GT(refused, 10000);
}

} // namespace
