#include "model/effective.hpp"

#include <algorithm>
#include <initializer_list>
#include <limits>

namespace guard
{
namespace
{

// A value that grows with the time until a dead peer is noticed.
std::int64_t looseness(Setting setting, std::int32_t value,
                       std::int32_t system_default) noexcept
{
	if (value != 0)
		return value;
	if (setting == Setting::user_timeout || setting == Setting::client_check)
		return std::numeric_limits<std::int64_t>::max();
	return system_default;
}

bool is_enforced(const ComposedSettings &policy, int item) noexcept
{
	return policy.has(item) && policy.enforcement[item] != Enforcement::by_default;
}

// With the choices that may override, and without the others.
SettingValues with_overrides(const Choices &choices, const Basis &basis) noexcept
{
	SettingValues values = basis.unchosen;
	for (int i = 0; i < setting_count; ++i)
		if (choices[i].made && choices[i].may_override)
			values[i] = choices[i].value;
	return values;
}

bool is_allowed(const Choice &choice, int i, const ComposedSettings &policy,
                const Basis &basis) noexcept
{
	return choice.made &&
	       (choice.may_override || allowed(static_cast<Setting>(i), choice.value, policy,
	                                       basis.system_default[i]));
}

} // namespace

bool looser(Setting setting, std::int32_t a, std::int32_t b,
            std::int32_t system_default) noexcept
{
	return looseness(setting, a, system_default) > looseness(setting, b, system_default);
}

bool allowed(Setting setting, std::int32_t choice, const ComposedSettings &policy,
             std::int32_t system_default) noexcept
{
	if (!policy.has(setting))
		return true;
	switch (policy.enforcement[item_of(setting)])
	{
	case Enforcement::by_default:
		break;
	case Enforcement::ceiling:
		return !looser(setting, choice, policy.get(setting), system_default);
	case Enforcement::locked:
		return choice == policy.get(setting);
	}
	return true;
}

DetectionSettings detection_settings_of(const SettingValues &in_force, bool keepalive,
                                        const ComposedSettings &policy,
                                        std::int32_t watch_interval_ms) noexcept
{
	const auto value = [&](Setting setting)
	{
		return in_force[item_of(setting)];
	};
	DetectionSettings settings{};
	settings.keepalive = keepalive;
	settings.idle_s = std::max(value(Setting::keepalives_idle), 1);
	settings.interval_s = std::max(value(Setting::keepalives_interval), 1);
	settings.count = std::max(value(Setting::keepalives_count), 1);
	settings.user_timeout_ms = value(Setting::user_timeout);
	settings.client_check_ms = value(Setting::client_check);
	settings.dead_after_ms = policy.dead_after_ms();
	settings.stall_timeout_ms = policy.stall_timeout_ms();
	settings.watch_interval_ms = watch_interval_ms;
	return settings;
}

Detection detection_of(const SettingValues &values, const ComposedSettings &policy,
                       const Basis &basis) noexcept
{
	SettingValues resolved = values;
	for (int i = 0; i < setting_count; ++i)
		if (resolved[i] == 0)
			resolved[i] = basis.system_default[i];
	return detection(detection_settings_of(resolved, !policy.keepalive_off(), policy,
	                                       basis.watch_interval_ms),
	                 basis.limits);
}

int first_enforced_item(const ComposedSettings &policy) noexcept
{
	for (int item = 0; item < item_count; ++item)
		if (is_enforced(policy, item))
			return item;
	return -1;
}

Promise promised(const Choices &choices, const ComposedSettings &policy,
                 const Basis &basis) noexcept
{
	const auto any_of = [&](std::initializer_list<int> items)
	{
		return std::any_of(items.begin(), items.end(),
		                   [&](int item) { return is_enforced(policy, item); });
	};
	const bool idle =
		any_of({item_of(Setting::keepalives_idle), item_of(Setting::keepalives_interval),
	            item_of(Setting::keepalives_count), item_of(Setting::user_timeout),
	            item_keepalive, item_dead_after});
	const bool busy = any_of({item_of(Setting::user_timeout),
	                          item_of(Setting::client_check), item_dead_after});
	if (!basis.tcp || (!idle && !busy))
		return {};
	const Detection worst = detection_of(with_overrides(choices, basis), policy, basis);
	Promise promise;
	if (idle)
		promise.idle = worst.idle.latest;
	if (busy)
		promise.busy = worst.busy.latest;
	return promise;
}

bool keeps(const Promise &promise, const SettingValues &values,
           const ComposedSettings &policy, const Basis &basis) noexcept
{
	if (!promise.idle && !promise.busy)
		return true;
	const auto in_time = [](const Duration &promised, const Duration &worst)
	{
		return !promised || (worst && *worst <= *promised);
	};
	const Detection worst = detection_of(values, policy, basis);
	return in_time(promise.idle, worst.idle.latest) &&
	       in_time(promise.busy, worst.busy.latest);
}

SettingValues effective(const Choices &choices, const ComposedSettings &policy,
                        const Basis &basis) noexcept
{
	const SettingValues start = with_overrides(choices, basis);
	SettingValues all = start;
	for (int i = 0; i < setting_count; ++i)
		if (is_allowed(choices[i], i, policy, basis))
			all[i] = choices[i].value;
	if (all == start)
		return start;

	const Promise promise = promised(choices, policy, basis);
	if (keeps(promise, all, policy, basis))
		return all;
	SettingValues values = start;
	for (int i = 0; i < setting_count; ++i)
	{
		SettingValues next = values;
		next[i] = all[i];
		if (keeps(promise, next, policy, basis))
			values = next;
	}
	return values;
}

} // namespace guard
