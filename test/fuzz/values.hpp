// Values of the model within their bounds, from the bytes of a fuzzer.
#pragma once

#include "input.hpp"

#include "kernel/socket.hpp"
#include "model/compose.hpp"
#include "model/detection.hpp"

#include <limits>

namespace guard::fuzz
{

constexpr std::int32_t most_of[setting_count] = {
	32767, 32767, 127, std::numeric_limits<std::int32_t>::max(),
	std::numeric_limits<std::int32_t>::max()};

inline Duration duration(Input &input)
{
	return input.flag() ? Duration(input.any<std::uint32_t>()) : std::nullopt;
}

inline KernelLimits kernel_limits(Input &input)
{
	KernelLimits limits;
	limits.tcp_retries2 = input.between(0, 255);
	limits.rto_max = input.between(1000, 120000);
	return limits;
}

inline DetectionSettings detection_settings(Input &input)
{
	DetectionSettings settings{};
	settings.keepalive = input.flag();
	settings.idle_s = input.between(1, 32767);
	settings.interval_s = input.between(1, 32767);
	settings.count = input.between(1, 127);
	constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
	for (std::int32_t *ms :
	     {&settings.user_timeout_ms, &settings.client_check_ms, &settings.dead_after_ms,
	      &settings.stall_timeout_ms, &settings.watch_interval_ms})
		*ms = input.flag() ? input.between(0, most) : 0;
	return settings;
}

inline Settings settings(Input &input)
{
	constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
	Settings settings{};
	for (int item = 0; item < item_count; ++item)
		if (input.flag())
			settings.give(item,
			              item < setting_count
			                  ? input.between(0, most_of[item])
			                  : input.between(0, item == item_keepalive ? 1 : most));
	settings.enforcement = static_cast<Enforcement>(input.between(0, 2));
	settings.final = input.flag();
	settings.log_only = input.flag();
	return settings;
}

template <std::size_t size> void copy_text(char (&to)[size], const std::string &text)
{
	std::memset(to, 0, size);
	std::memcpy(to, text.data(), text.size() < size ? text.size() : size - 1);
}

inline Policy policy(Input &input)
{
	Policy policy{};
	policy.priority = input.between(-4, 4);
	policy.settings = settings(input);
	copy_text(policy.name, input.text(name_bytes - 1));
	copy_text(policy.database, input.text(pattern_bytes - 1));
	copy_text(policy.role, input.text(pattern_bytes - 1));
	return policy;
}

inline bool no_later(const Duration &a, const Duration &b)
{
	return !b || (a && *a <= *b);
}

inline bool in_order(const Span &span)
{
	return no_later(span.earliest, span.latest);
}

} // namespace guard::fuzz
