// Limits how much of the time a task takes that others may cause again and again: ALTER
// ROLE in a loop must not keep the worker from its other tasks.
#pragma once

#include <algorithm>
#include <cstdint>

namespace guard::pg
{

// After each run the task rests as long as the run took, but so shortly that a change is
// still in force within a second.  Times are of monotonic_ms().
class Pace
{
  public:
	void run_took(std::int64_t started, std::int64_t ended)
	{
		next_run = ended + std::min(ended - started, longest_rest_ms);
	}

	// How long to wait for the next run; 0: it may begin.
	long rest(std::int64_t now) const
	{
		return now < next_run ? static_cast<long>(next_run - now) : 0;
	}

  private:
	static constexpr std::int64_t longest_rest_ms = 300;
	std::int64_t next_run = 0;
};

} // namespace guard::pg
