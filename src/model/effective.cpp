#include "model/effective.hpp"

#include <limits>

namespace guard
{
namespace
{

// Grows with the time that a dead peer goes unnoticed.
std::int64_t looseness(Setting setting, std::int32_t value,
                       std::int32_t system_default) noexcept
{
	if (value != 0)
		return value;
	if (setting == Setting::user_timeout || setting == Setting::client_check)
		return std::numeric_limits<std::int64_t>::max();
	return system_default;
}

} // namespace

bool looser(Setting setting, std::int32_t a, std::int32_t b,
            std::int32_t system_default) noexcept
{
	return looseness(setting, a, system_default) > looseness(setting, b, system_default);
}

bool allowed(Setting setting, std::int32_t choice, const Settings &policy,
             std::int32_t system_default, bool may_override) noexcept
{
	if (may_override || !policy.has(setting))
		return true;
	switch (policy.enforcement)
	{
	case Enforcement::by_default:
		return true;
	case Enforcement::ceiling:
		return !looser(setting, choice, policy.get(setting), system_default);
	case Enforcement::locked:
		return choice == policy.get(setting);
	}
	return true;
}

std::int32_t effective(Setting setting, std::int32_t native, const Settings &policy,
                       std::int32_t system_default, bool may_override) noexcept
{
	return allowed(setting, native, policy, system_default, may_override)
	           ? native
	           : policy.get(setting);
}

} // namespace guard
