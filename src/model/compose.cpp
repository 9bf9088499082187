#include "model/compose.hpp"

#include <cstring>

namespace guard
{
namespace
{

constexpr std::uint8_t all_items = (1 << item_count) - 1;

// Remembers the policy as the source of something.
void note_source(Composition &composition, int source, const Policy &policy) noexcept
{
	PolicyNames &names = composition.policies;
	if (names.count == 0 || std::strcmp(names.name[names.count - 1], policy.name) != 0)
	{
		std::memcpy(names.name[names.count], policy.name,
		            strnlen(policy.name, name_bytes - 1));
		++names.count;
	}
	composition.settings.source[source] = names.count - 1;
}

// For a policy that is log_only: what it gives does not take the place of what a later
// policy gives.
void note_log_only(Composition &composition, int item, int source, std::int32_t &to,
                   const Policy &policy) noexcept
{
	if (composition.settings.has(item) || policy.settings.value[item] == 0 || to != 0)
		return;
	to = policy.settings.value[item];
	note_source(composition, source, policy);
}

} // namespace

bool add_policy(Composition &composition, const Policy &policy) noexcept
{
	ComposedSettings &to = composition.settings;
	const Settings &from = policy.settings;
	for (int item = 0; item < item_count; ++item)
	{
		const bool only_logs =
			from.log_only && (item == item_dead_after || item == item_stall_timeout);
		if (!from.has(item) || to.has(item) || only_logs)
			continue;
		to.value[item] = from.value[item];
		to.enforcement[item] = from.enforcement;
		to.given |= 1 << item;
		note_source(composition, item, policy);
	}
	if (from.log_only)
	{
		note_log_only(composition, item_dead_after, source_log_dead_after,
		              to.log_dead_after_ms, policy);
		note_log_only(composition, item_stall_timeout, source_log_stall_timeout,
		              to.log_stall_timeout_ms, policy);
	}
	return !from.final && to.given != all_items;
}

} // namespace guard
