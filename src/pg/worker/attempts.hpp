// When to start the policy reader again that could not read the policies.
#pragma once

#include <algorithm>
#include <cstdint>

namespace guard::pg
{

// Attempts follow each other at growing intervals, up to a minute; a new request is
// tried at once.  Times are of monotonic_ms(); `readings` is Shared::readings.
class Attempts
{
  public:
	// How long to wait for the next attempt, in ms; 0: it may begin.
	long rest(std::int64_t now, std::uint64_t for_request) const
	{
		if (failures == 0)
			return 0;
		const std::int64_t next =
			begun + (for_request == request ? interval() : first_interval_ms);
		return now < next ? static_cast<long>(next - now) : 0;
	}

	void begin(std::int64_t now, std::uint64_t for_request, std::uint64_t readings)
	{
		begun = now;
		request = for_request;
		readings_before = readings;
		is_under_way = true;
	}

	// No reader runs.  True if one has just ended that has read nothing.
	bool end(std::uint64_t readings)
	{
		const bool has_failed = is_under_way && readings == readings_before;
		if (has_failed)
			failures++;
		else if (is_under_way)
			failures = 0;
		is_under_way = false;
		return has_failed;
	}

	void forget_failures() { failures = 0; }

	// The number of failures since something was read.
	int failed() const { return failures; }
	std::uint64_t last_request() const { return request; }

  private:
	static constexpr std::int64_t first_interval_ms = 500;
	static constexpr std::int64_t longest_interval_ms = 60'000;

	std::int64_t interval() const
	{
		const int doublings = std::clamp(failures - 1, 0, 10);
		return std::min(first_interval_ms << doublings, longest_interval_ms);
	}

	std::int64_t begun = -longest_interval_ms;
	std::uint64_t request = 0;
	std::uint64_t readings_before = 0;
	int failures = 0;
	bool is_under_way = false;
};

} // namespace guard::pg
