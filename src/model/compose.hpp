// What a session gets from all the policies that match it.
#pragma once

#include "model/policy.hpp"

namespace guard
{

// Each item comes from at most one policy.  In addition, a policy that is log_only may
// give its own dead_after and stall_timeout.
constexpr int most_sources = item_count + 2;

// The policies that give a session at least one setting, in match order.
struct PolicyNames
{
	std::uint8_t count;
	char unused[3];
	char name[most_sources][name_bytes]; // padded with zeros
};

// What a session gets.  Values count where has() is true.
struct ComposedSettings
{
	std::array<std::int32_t, item_count> value; // as in Settings
	std::int32_t log_dead_after_ms;             // of policies that are log_only; 0: none
	std::int32_t log_stall_timeout_ms;
	std::uint8_t given; // bit per item
	std::array<Enforcement, item_count> enforcement;
	// Where each item comes from, as a position in PolicyNames; then those of
	// log_dead_after_ms and log_stall_timeout_ms.
	std::array<std::uint8_t, most_sources> source;
	std::uint8_t unused;

	bool has(int item) const noexcept { return (given >> item) & 1; }
	bool has(Setting s) const noexcept { return has(item_of(s)); }
	std::int32_t get(Setting s) const noexcept { return value[item_of(s)]; }
	// 0: none.
	std::int32_t dead_after_ms() const noexcept { return value[item_dead_after]; }
	std::int32_t stall_timeout_ms() const noexcept { return value[item_stall_timeout]; }
	bool keepalive_off() const
	{
		return has(item_keepalive) && value[item_keepalive] == 0;
	}
};
constexpr int source_log_dead_after = item_count;
constexpr int source_log_stall_timeout = item_count + 1;

struct Composition
{
	ComposedSettings settings;
	PolicyNames policies;

	bool governed() const noexcept { return policies.count > 0; }
	// The policy that gives an item which is given.
	const char *source_of(int item) const noexcept
	{
		return policies.name[settings.source[item]];
	}
};

// Compared as bytes, and in shared memory.
static_assert(std::has_unique_object_representations_v<Composition>);
static_assert(std::is_trivially_copyable_v<Composition>);

// Adds to `composition`, which is all zeros at first, what the next policy in match order
// gives and no policy before it gave.  Returns whether a later policy can still give
// something.
bool add_policy(Composition &composition, const Policy &policy) noexcept;

} // namespace guard
