// Lengths of time of which some never end.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

namespace guard
{

using Millis = std::int64_t;

// nullopt: never.
using Duration = std::optional<Millis>;

// Something happens no sooner than `earliest` and no later than `latest`.
struct Span
{
	Duration earliest;
	Duration latest;
};

constexpr Duration sooner(Duration a, Duration b) noexcept
{
	if (!a || !b)
		return a ? a : b;
	return std::min(*a, *b);
}

constexpr Duration later(Duration a, Duration b) noexcept
{
	if (!a || !b)
		return std::nullopt;
	return std::max(*a, *b);
}

constexpr Duration sum(Duration a, Duration b) noexcept
{
	if (!a || !b)
		return std::nullopt;
	return *a + *b;
}

// When the first of two things happens that happen independently.
constexpr Span first_of(const Span &a, const Span &b) noexcept
{
	return {sooner(a.earliest, b.earliest), sooner(a.latest, b.latest)};
}

constexpr Span never() noexcept
{
	return {std::nullopt, std::nullopt};
}

} // namespace guard
