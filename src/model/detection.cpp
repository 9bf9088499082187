#include "model/detection.hpp"

namespace guard
{
namespace
{

constexpr Millis ms(std::int32_t seconds)
{
	return Millis{seconds} * 1000;
}

// tcp_keepalive_timer(): the first probe after the peer's last sign of life goes out
// after idle at the earliest.  A timer that is already armed for an interval is not
// pulled in, so with interval > idle it may take the interval.
Millis latest_first_probe(const DetectionSettings &settings)
{
	return late(std::max(ms(settings.idle_s), ms(settings.interval_s)));
}

// tcp_keepalive_timer().  The best case: the peer disappears just before the first probe
// would have reached it.
Span keepalive_gives_up(const DetectionSettings &settings)
{
	if (!settings.keepalive)
		return never();
	const Millis interval = ms(settings.interval_s);
	const Millis first = latest_first_probe(settings);
	if (settings.user_timeout_ms == 0)
		return {settings.count * interval, first + settings.count * late(interval)};
	// The user timeout replaces the count.  It is looked at when the timer fires, with
	// at least one probe unanswered, and it counts from the last sign of life.
	const Millis user_timeout = settings.user_timeout_ms;
	const Millis rest = std::max<Millis>(user_timeout - ms(settings.idle_s), 0);
	const Millis firings = std::max<Millis>((rest + interval - 1) / interval, 1);
	return {std::max(interval, user_timeout - first),
	        std::min(first + firings * late(interval),
	                 std::max(first, user_timeout) + late(interval))};
}

// The first retransmission on timeout: a tail-loss probe, which is sent at most an RTO
// after the data (tcp_schedule_loss_probe), arms the timer for a whole RTO once more.
Millis latest_first_retransmission(Millis rto)
{
	return 2 * late(rto);
}

// tcp_write_timeout(): retransmits_timed_out() counts from the first retransmission.
// That can be a fast one, at once.
Span retransmission_gives_up(const DetectionSettings &settings,
                             const KernelLimits &limits, Millis rto)
{
	const Millis first = latest_first_retransmission(rto);
	// tcp_clamp_rto_to_user_timeout(): the timer fires when the user timeout ends.  But
	// a report that the peer is unreachable, from a router or ARP, arms it for the
	// back-off before the last, without regard to the user timeout (tcp_ld_RTO_revert).
	// That back-off is at most half of what has passed, and an RTO.
	if (const Millis user_timeout = settings.user_timeout_ms)
	{
		const Millis reverted = std::min(limits.rto_max, user_timeout / 2 + rto);
		return {user_timeout, first + late(user_timeout) + late(reverted)};
	}
	// Otherwise it is looked at when the timer fires.  The last time before the limit
	// is S = rto * (2 + 4 + ... + 2^k) at the most; the next is 2^(k+1) * rto later,
	// which is S + 2 * rto, or rto_max.
	const Millis limit = retransmission_limit(limits);
	return {limit, first + limit + late(std::min(limits.rto_max, limit + 2 * rto))};
}

Millis longest_persist_period(const KernelLimits &limits, Millis rto)
{
	return persist_period(rto, limits.tcp_retries2, limits);
}

Span persist_gives_up(const DetectionSettings &settings, const KernelLimits &limits,
                      Millis rto)
{
	// tcp_probe_timer(): tcp_retries2 probes unanswered, and one more period.
	Millis earliest = 0;
	for (int i = 1; i <= limits.tcp_retries2; ++i)
		earliest += persist_period(tcp_rto_min, i, limits);
	const Millis latest =
		(limits.tcp_retries2 + 1) * late(longest_persist_period(limits, rto));
	// A window closed over data in flight is probed by retransmission:
	// tcp_rtx_probe0_timed_out() counts from the last answer, which may be a period old.
	const Millis period = late(limits.rto_max);
	const Span without_user_timeout = {std::min(earliest, 2 * limits.rto_max - period),
	                                   std::max(latest, 2 * limits.rto_max + period)};
	if (settings.user_timeout_ms == 0)
		return without_user_timeout;
	// It counts from the timer's first firing, whether or not probes are answered, and
	// makes the timer fire in time (tcp_clamp_probe0_to_user_timeout).
	return first_of(without_user_timeout,
	                {0, late(rto) + late(settings.user_timeout_ms)});
}

// The watcher ends a backend whose peer has not answered for dead_after.  It looks every
// watch_interval, so it may see the first unanswered segment that much too late, and the
// end of dead_after too.
Span guard_gives_up(const DetectionSettings &settings, Duration latest_first_question)
{
	if (settings.dead_after_ms == 0 || settings.watch_interval_ms == 0 ||
	    !latest_first_question)
		return never();
	return {settings.dead_after_ms, *latest_first_question + settings.dead_after_ms +
	                                    2 * Millis{settings.watch_interval_ms}};
}

Span stall_timeout(const DetectionSettings &settings)
{
	if (settings.stall_timeout_ms == 0 || settings.watch_interval_ms == 0)
		return never();
	return {0, settings.stall_timeout_ms + 2 * Millis{settings.watch_interval_ms}};
}

// When a backend that is executing notices that the kernel has given the connection up
// (pq_check_connection).
Span learnt_at_work(const Span &verdict, const DetectionSettings &settings)
{
	const Duration check =
		settings.client_check_ms == 0 ? Duration() : Duration(settings.client_check_ms);
	return {verdict.earliest, sum(verdict.latest, check)};
}

} // namespace

Detection detection(const DetectionSettings &settings, const KernelLimits &limits,
                    Millis rto) noexcept
{
	const Duration first_probe =
		settings.keepalive ? Duration(latest_first_probe(settings)) : Duration();
	const Millis first_retransmission = latest_first_retransmission(rto);

	const Span keepalive = keepalive_gives_up(settings);
	const Span retransmission = retransmission_gives_up(settings, limits, rto);
	const Span guard_idle = guard_gives_up(settings, first_probe);
	const Span guard_in_flight = guard_gives_up(settings, first_retransmission);

	Detection result;
	result.idle = first_of(keepalive, guard_idle);
	result.working = first_of(learnt_at_work(keepalive, settings), guard_idle);
	result.in_flight = first_of(retransmission, guard_in_flight);
	result.busy = first_of(learnt_at_work(retransmission, settings), guard_in_flight);
	// If the window is open a little, the probe is data (tcp_write_wakeup), and only its
	// retransmission counts as unanswered.
	const Duration stalled_question = late(limits.rto_max) + first_retransmission;
	result.stalled = first_of(first_of(persist_gives_up(settings, limits, rto),
	                                   guard_gives_up(settings, stalled_question)),
	                          stall_timeout(settings));

	const Span written_late = {sooner(keepalive.earliest, retransmission.earliest),
	                           sum(keepalive.latest, retransmission.latest)};
	result.late_write =
		first_of(learnt_at_work(written_late, settings),
	             guard_gives_up(settings, sum(first_probe, first_retransmission)));
	return result;
}

} // namespace guard
