// The arithmetic of the kernel's TCP timers.  The functions cited are those of
// net/ipv4/tcp_timer.c, include/net/tcp.h and kernel/time/timer.c, Linux 5.4 to 6.18.
#pragma once

#include "model/duration.hpp"

namespace guard
{

struct KernelLimits
{
	int tcp_retries2 = 15;   // sysctl net.ipv4.tcp_retries2: 0..255
	Millis rto_max = 120000; // TCP_RTO_MAX, or sysctl tcp_rto_max_ms from 6.15: >= 1000
};

// TCP_RTO_MIN and TCP_TIMEOUT_INIT: the usual floor of the retransmission timeout, and
// its value before there is a measured round trip.
constexpr Millis tcp_rto_min = 200;
constexpr Millis tcp_timeout_init = 1000;

// How late the kernel may fire a timer armed for `delay`; never early.  The timer
// wheel's level n holds delays of 63 * 8^(n-1) jiffies and more with a granularity of
// 8^n (LVL_START, LVL_GRAN), which is at most 8/63 of the delay.  The 20 ms are for
// rounding to jiffies, twice, at HZ=100.
constexpr Millis lateness(Millis delay) noexcept
{
	return (delay * 8 + 62) / 63 + 20;
}

constexpr Millis late(Millis delay) noexcept
{
	return delay + lateness(delay);
}

// tcp_model_timeout(): how long after the first retransmission retransmits_timed_out()
// gives up without a user timeout.  It does not depend on the connection's own RTO.
Millis retransmission_limit(const KernelLimits &limits) noexcept;

// How long connect() waits for a server that does not answer, with the sysctl
// tcp_syn_retries: tcp_write_timeout(), without a user timeout.  The earliest is that of
// kernels before 6.5, which do not have tcp_syn_linear_timeouts.
Span connect_gives_up(int syn_retries) noexcept;

// The retransmission timeout after `backoff` doublings of `rto`
// (tcp_retransmit_timer).
Millis backed_off(Millis rto, int backoff, const KernelLimits &limits) noexcept;

// tcp_probe0_when(): the time between two probes of a zero window.  backoff stops
// growing at tcp_retries2 (tcp_send_probe0).
Millis persist_period(Millis rto, int backoff, const KernelLimits &limits) noexcept;

} // namespace guard
