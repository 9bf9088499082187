#include "pg/postgres.hpp"

#include "pg/clock.hpp"

#include <ctime>

namespace guard::pg
{

std::int64_t monotonic_ms()
{
	timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

} // namespace guard::pg
