// What a session gets from its own choices and from what policies give it.  All of this
// is noexcept, allocates nothing and is safe in a signal handler.
#pragma once

#include "model/compose.hpp"
#include "model/detection.hpp"

namespace guard
{

// system_default: what the kernel uses where idle, interval or count is 0, in the
// setting's own unit (tcp_keepalive_time, ...); ignored for the other settings.

// Whether value a finds a dead client later than value b would: longer, or more
// probes.  0 stands for system_default, except for user_timeout and
// client_check, where it means off, the loosest of all.
bool looser(Setting setting, std::int32_t a, std::int32_t b,
            std::int32_t system_default) noexcept;

// Whether the setting's own enforcement allows this value.  A locked setting allows the
// policy's own value only, even where another one, 0 for the system's default, would
// be the same: it would no longer be once the default changes.
bool allowed(Setting setting, std::int32_t choice, const ComposedSettings &policy,
             std::int32_t system_default) noexcept;

// What a session, its role, its database or its connection options chose for a setting.
struct Choice
{
	std::int32_t value;
	bool made;         // false: nobody chose anything
	bool may_override; // a superuser did
};
using Choices = std::array<Choice, setting_count>;

// What is in force without any choice, and what else detection depends on.
struct Basis
{
	SettingValues unchosen;       // the policies' values, else PostgreSQL's
	SettingValues system_default; // 0 for user_timeout and client_check
	KernelLimits limits;
	std::int32_t watch_interval_ms;
	bool tcp; // false: a Unix socket
};

// The worst cases that enforced (locked or ceiling) settings promise; nullopt if they
// promise nothing.  A setting promises detects_idle if detects_idle depends on it; the
// same is true of detects_busy.
struct Promise
{
	Duration idle;
	Duration busy;
};

// What would be in force with these choices, for all settings at once: no choice that
// enforcement forbids; and no set of choices with which a dead client would be found
// later than promised.  Where all of them together would do that, they are taken in the
// order of Setting as long as the promise is kept.  Choices that may override count
// before anything else.
SettingValues effective(const Choices &choices, const ComposedSettings &policy,
                        const Basis &basis) noexcept;

// What is promised, given the choices that may override.
Promise promised(const Choices &choices, const ComposedSettings &policy,
                 const Basis &basis) noexcept;

// Whether values find a dead client no later than that.
bool keeps(const Promise &promise, const SettingValues &values,
           const ComposedSettings &policy, const Basis &basis) noexcept;

// The first item that is enforced; -1 if nothing is.
int first_enforced_item(const ComposedSettings &policy) noexcept;

// What finds a dead client of a TCP connection that has these values in force, with 0
// resolved to the system's default, and what its policies give.
DetectionSettings detection_settings_of(const SettingValues &in_force, bool keepalive,
                                        const ComposedSettings &policy,
                                        std::int32_t watch_interval_ms) noexcept;

// The worst cases with these values, 0 not resolved, and what policies give besides.
Detection detection_of(const SettingValues &values, const ComposedSettings &policy,
                       const Basis &basis) noexcept;

} // namespace guard
