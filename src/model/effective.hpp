// What a session gets from its own choice and a policy.  All of this is
// noexcept, allocates nothing and is safe in a signal handler.
#pragma once

#include <cstdint>

#include "model/policy.hpp"

namespace guard
{

// system_default: what the kernel uses where idle, interval or count is 0, in the
// setting's own unit (tcp_keepalive_time, ...); ignored for the other settings.

// Whether value a finds a dead peer later than value b would: longer, or more
// probes.  0 stands for system_default, except for user_timeout and
// client_check, where it means off, the loosest of all.
bool looser(Setting setting, std::int32_t a, std::int32_t b,
            std::int32_t system_default) noexcept;

// The value to be in force.  `native` is what PostgreSQL would use: the session's
// choice or, without one and with Enforcement::by_default, the policy's own value.
// may_override: the native value was set by somebody above the policy, a superuser.
std::int32_t effective(Setting setting, std::int32_t native, const Settings &policy,
                       std::int32_t system_default, bool may_override) noexcept;

// Whether a session may choose this value.  A locked setting allows the policy's
// own value only, even where another one, 0 for the system's default, would come
// to the same: it would no longer once the default changes.
bool allowed(Setting setting, std::int32_t choice, const Settings &policy,
             std::int32_t system_default, bool may_override) noexcept;

} // namespace guard
