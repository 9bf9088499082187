// Which of many names was probably meant by one that does not exist.
#pragma once

#include "model/policy.hpp"

namespace guard
{

// The best of the names that were offered: one that differs in upper and lower case only,
// otherwise the one with the fewest insertions, deletions and replacements of bytes, at
// most two (one in a short name).  The first of those that are equally good.
class NearName
{
  public:
	// A name of at most name_bytes - 1 bytes.
	explicit NearName(const char *wanted) noexcept;

	void offer(const char *name) noexcept;

	// nullptr: none is near.
	const char *best() const noexcept { return best_[0] ? best_ : nullptr; }

  private:
	char wanted_[name_bytes];
	int length_;
	int limit_; // a name has to be nearer than that
	char best_[name_bytes];
};

} // namespace guard
