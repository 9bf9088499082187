#include "model/tcp_timing.hpp"

namespace guard
{
namespace
{

int floor_log2(Millis value)
{
	int result = 0;
	while (value >>= 1)
		++result;
	return result;
}

Millis shifted(Millis value, int doublings, Millis limit)
{
	while (doublings-- > 0 && value < limit)
		value *= 2;
	return std::min(value, limit);
}

} // namespace

Millis retransmission_limit(const KernelLimits &limits) noexcept
{
	const int doublings = floor_log2(limits.rto_max / tcp_rto_min);
	const int retries = std::max(limits.tcp_retries2, 0);
	if (retries <= doublings)
		return ((Millis{2} << retries) - 1) * tcp_rto_min;
	return ((Millis{2} << doublings) - 1) * tcp_rto_min +
	       (retries - doublings) * limits.rto_max;
}

Span connect_gives_up(int syn_retries) noexcept
{
	// tcp_syn_linear_timeouts: so many more retries, without back-off.
	constexpr int linear_timeouts = 4;
	Millis earliest = 0;
	Millis latest = linear_timeouts * late(tcp_timeout_init);
	for (int backoff = 0; backoff <= syn_retries; ++backoff)
	{
		const Millis period = shifted(tcp_timeout_init, backoff, KernelLimits().rto_max);
		earliest += period;
		latest += late(period);
	}
	return {earliest, latest};
}

Millis backed_off(Millis rto, int backoff, const KernelLimits &limits) noexcept
{
	return shifted(rto, backoff, limits.rto_max);
}

Millis persist_period(Millis rto, int backoff, const KernelLimits &limits) noexcept
{
	return shifted(std::max(rto, tcp_rto_min), std::min(backoff, limits.tcp_retries2),
	               limits.rto_max);
}

} // namespace guard
