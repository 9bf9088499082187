// Policies of any contents: matching, their order, composing, and enforcement.
#include "values.hpp"

#include "model/cover.hpp"
#include "model/effective.hpp"
#include "model/match.hpp"

#include <vector>

using namespace guard;
using namespace guard::fuzz;

namespace
{

Network network(Input &input)
{
	Network network{};
	network.family = static_cast<std::uint8_t>(2 * input.between(0, 3));
	network.bits = input.between<std::uint8_t>(0, network.family == 6 ? 128 : 32);
	if (network.family == 2)
		network.family = 0;
	network.address = input.any<decltype(network.address)>();
	return network;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	std::vector<Policy> policies;
	std::vector<Rule> rules;
	const auto count = input.between<std::size_t>(1, 6);
	for (std::size_t i = 0; i < count; ++i)
	{
		policies.push_back(policy(input));
		rules.push_back(
			make_rule(policies[i], static_cast<PatternKind>(input.between(0, 3)),
		              static_cast<PatternKind>(input.between(0, 3)),
		              static_cast<BackendKind>(input.between(0, 2)), network(input)));
		rules[i].enabled = input.flag();
	}

	// A strict weak order.
	for (std::size_t a = 0; a < count; ++a)
		for (std::size_t b = 0; b < count; ++b)
			require(!(before(rules[a], policies[a], rules[b], policies[b]) &&
			          before(rules[b], policies[b], rules[a], policies[a])));

	const std::string database = input.text(name_bytes - 1);
	const std::string role = input.text(name_bytes - 1);
	const auto address = input.any<std::array<std::uint8_t, 16>>();
	const auto family = static_cast<std::uint8_t>(2 * input.between(0, 3));
	const Connection connection =
		make_connection(input.flag() ? database.c_str() : nullptr, role.c_str(),
	                    family == 2 ? std::uint8_t{0} : family, address.data(),
	                    input.flag() ? BackendKind::client : BackendKind::replication);

	Composition composition{};
	bool more = true;
	for (std::size_t i = 0; i < count; ++i)
	{
		i = next_candidate(rules.data(), policies.data(), count, connection, i);
		if (i == count)
			break;
		require(why_not(rules[i], policies[i], connection) == Mismatch::none);
		if (more)
			more = add_policy(composition, policies[i]);
	}
	require(composition.policies.count <= most_sources);
	for (int item = 0; item < item_count; ++item)
		if (composition.settings.has(item))
			require(composition.settings.source[item] < composition.policies.count);

	// No choice undoes a promise.
	Basis basis{};
	for (int i = 0; i < setting_count; ++i)
		basis.unchosen[i] =
			composition.settings.has(i) ? composition.settings.value[i] : 0;
	basis.system_default = {input.between(1, 32767), input.between(1, 32767),
	                        input.between(1, 127), 0, 0};
	basis.limits = kernel_limits(input);
	basis.watch_interval_ms = input.between(0, 60000);
	basis.tcp = input.flag();
	Choices choices{};
	for (int i = 0; i < setting_count; ++i)
		choices[i] = {input.between(0, most_of[i]), input.flag(), false};
	const SettingValues values = effective(choices, composition.settings, basis);
	const Promise promise = promised(choices, composition.settings, basis);
	require(keeps(promise, values, composition.settings, basis));
	for (int i = 0; i < setting_count; ++i)
		require(values[i] >= 0 && values[i] <= most_of[i]);
	return 0;
}
