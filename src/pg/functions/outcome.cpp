#include "pg/postgres.hpp"

#include "pg/functions/outcome.hpp"

#include "pg/setting_records.hpp"
#include "pg/settings.hpp"
#include "pg/shared/snapshot.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "utils/array.h"
}

namespace guard::pg
{

Basis basis_without_policies()
{
	Basis basis = {};
	ConfiguredValues configured;
	if (shared->configured.read(configured))
		basis.unchosen = configured.value;
	for (int i = 0; i < setting_count; i++)
		basis.system_default[i] = system_default(static_cast<Setting>(i));
	basis.limits = kernel_limits();
	basis.watch_interval_ms = watch_interval;
	basis.tcp = true;
	return basis;
}

Outcome outcome_of(const ComposedSettings &composed, const Choices &choices,
                   const Basis &without_policies)
{
	Basis basis = without_policies;
	for (int i = 0; i < setting_count; i++)
		if (composed.has(i))
			basis.unchosen[i] = composed.value[i];

	Outcome outcome = {};
	outcome.tcp = basis.tcp;
	outcome.keepalive = !composed.keepalive_off();
	outcome.values = effective(choices, composed, basis);
	for (int i = 0; i < setting_count; i++)
		if (outcome.values[i] == 0)
			outcome.values[i] = basis.system_default[i];
	outcome.dead_after_ms = composed.dead_after_ms();
	outcome.stall_timeout_ms = composed.stall_timeout_ms();
	outcome.log_dead_after_ms = composed.log_dead_after_ms;
	outcome.log_stall_timeout_ms = composed.log_stall_timeout_ms;
	outcome.detection = detection_settings_of(outcome.values, outcome.keepalive, composed,
	                                          basis.watch_interval_ms);
	return outcome;
}

std::uint8_t items_given(const Composition &before, const Composition &after)
{
	std::uint8_t items = after.settings.given & ~before.settings.given;
	if (before.settings.log_dead_after_ms != after.settings.log_dead_after_ms)
		items |= 1 << item_dead_after;
	if (before.settings.log_stall_timeout_ms != after.settings.log_stall_timeout_ms)
		items |= 1 << item_stall_timeout;
	return items;
}

const char *item_name(int item)
{
	switch (item)
	{
	case item_keepalive:
		return "keepalive";
	case item_dead_after:
		return "dead_after";
	case item_stall_timeout:
		return "stall_timeout";
	default:
		return setting_name(static_cast<Setting>(item));
	}
}

Datum item_names_datum(std::uint8_t items)
{
	Datum names[item_count];
	int count = 0;
	const auto add = [&](int item)
	{
		if ((items >> item) & 1)
			names[count++] = CStringGetTextDatum(item_name(item));
	};
	add(item_keepalive);
	for (int item = 0; item < item_count; item++)
		if (item != item_keepalive)
			add(item);
	return PointerGetDatum(
		construct_array(names, count, TEXTOID, -1, false, TYPALIGN_INT));
}

} // namespace guard::pg
