// Plans for any intent: they keep what they promise.
#include "values.hpp"

#include "model/client_plan.hpp"
#include "model/plan.hpp"

using namespace guard;
using namespace guard::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	constexpr Millis most = Millis{1} << 42;
	Intent intent{};
	intent.detect_within = input.between<Millis>(1, input.flag() ? most : 600000);
	if (input.flag())
		intent.path_idle_timeout = input.between<Millis>(1, input.flag() ? most : 600000);
	intent.end_slow_readers = input.flag();
	const KernelLimits limits = kernel_limits(input);
	const std::int32_t watch_interval = input.between(0, 3600000);

	const Plan plan = make_plan(intent, watch_interval, limits);
	if (plan.error != PlanError::none)
		return 0;
	const Detection &found = plan.detection;
	for (const Span &span :
	     {found.idle, found.working, found.in_flight, found.busy, found.late_write})
		require(in_order(span) && no_later(span.latest, intent.detect_within));
	if (intent.end_slow_readers)
		require(no_later(found.stalled.latest, intent.detect_within));
	require(plan.settings.idle_s >= 1 && plan.settings.idle_s <= 32767);
	require(plan.settings.count >= 1 && plan.settings.count <= 127);
	PlanTexts texts;
	require(plan_texts(plan, intent, "keepalive_policy", &texts));
	ClientPlan client;
	require(client_plan(plan, input.between<std::size_t>(0, client_plan_count() - 1),
	                    &client));
	require(std::memchr(client.settings, 0, sizeof(client.settings)) != nullptr);
	return 0;
}
