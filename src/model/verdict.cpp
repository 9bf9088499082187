#include "model/verdict.hpp"

namespace guard
{
namespace
{

// Like a Span, without never.
struct Window
{
	Millis earliest;
	Millis latest;
};

Window operator+(const Window &a, const Window &b)
{
	return {a.earliest + b.earliest, a.latest + b.latest};
}

// When the running timer fires, which was armed for at most `armed`.
Window fires(const ConnectionSnapshot &snapshot, Millis armed)
{
	const Millis expires = std::max<Millis>(snapshot.expires, 0);
	return {expires, expires + lateness(std::max(armed, expires))};
}

// See keepalive_gives_up() in detection.cpp; here the phase of the timer is known.
struct Keepalive
{
	Millis interval;
	Window question; // the next time that the timer finds idle exceeded

	Keepalive(const ConnectionSnapshot &snapshot, const DetectionSettings &settings)
		: interval(Millis{settings.interval_s} * 1000)
	{
		const Millis idle = Millis{settings.idle_s} * 1000;
		const Millis armed = std::max(idle, interval);
		// No timer runs at this moment: nothing is known about the next one.
		question = snapshot.timer == Timer::keepalive ? fires(snapshot, armed)
		                                              : Window{0, late(armed)};
		// Fired too early, the timer is armed for what is left.
		const Millis left = idle - silent_for(snapshot);
		question.earliest = std::max(question.earliest, left);
		question.latest = std::max(question.latest, left + lateness(armed));
	}

	Window gives_up(const ConnectionSnapshot &snapshot,
	                const DetectionSettings &settings) const
	{
		const Millis step = late(interval);
		if (settings.user_timeout_ms == 0)
		{
			const Millis firings = std::max(settings.count - snapshot.probes, 0);
			return question + Window{firings * interval, firings * step};
		}
		// At least one probe has to be out when the timer fires.
		const Millis least = snapshot.probes > 0 ? 0 : 1;
		const Millis left = settings.user_timeout_ms - silent_for(snapshot);
		const Millis firings =
			std::max((left - question.earliest + interval - 1) / interval, least);
		return {std::max(question.earliest + least * interval, left),
		        std::min(question.latest + firings * step,
		                 std::max(question.latest + least * step, left + step))};
	}
};

// How long ago the first of `periods` was armed, given that the last of them runs now:
// the sum of all but the last, and the part of the last that has passed.
template <typename Period>
Window since_first_of(int periods, const ConnectionSnapshot &snapshot, Period period)
{
	Window result{0, 0};
	for (int i = 0; i < periods; ++i)
	{
		const Millis length = period(i);
		result =
			result + (i < periods - 1
		                  ? Window{length, late(length)}
		                  : Window{std::max<Millis>(length - snapshot.expires, 0),
		                           std::max<Millis>(late(length) - snapshot.expires, 0)});
	}
	return result;
}

// Since the first retransmission, from where retransmits_timed_out() counts.
// tcp_retransmit_timer() doubles icsk_rto with each icsk_backoff, up to a cap where the
// original value is lost.
Window since_first_retransmission(const ConnectionSnapshot &snapshot,
                                  const KernelLimits &limits)
{
	const auto since = [&](Millis original_rto)
	{
		// tcp_ld_RTO_revert(): a report that the peer is unreachable, from a router or
		// ARP, undoes a doubling and shortens the period.  The doublings that are left
		// have lasted their full time.
		const int periods = std::min(snapshot.retransmits, snapshot.backoff);
		const int first = snapshot.backoff - periods;
		return since_first_of(periods, snapshot,
		                      [&](int i) {
								  return backed_off(
									  original_rto,
									  std::min(first + i + 1, snapshot.backoff), limits);
							  });
	};
	const Millis least_rto =
		std::max<Millis>(snapshot.rto >> std::clamp(snapshot.backoff, 0, 62), 1);
	Window result = since(least_rto);
	if (snapshot.since_first_timeout)
	{
		// The difference of two times in whole milliseconds.  A fast retransmission may
		// have been sent before it.
		result.earliest = std::max<Millis>(*snapshot.since_first_timeout - 1, 0);
		result.latest = std::max(result.latest, *snapshot.since_first_timeout);
	}
	if (snapshot.rto >= limits.rto_max || snapshot.retransmits > snapshot.backoff)
	{
		// It cannot have started before the last ACK, after which the peer was silent.
		result.latest = std::max(snapshot.last_ack_recv, result.earliest);
	}
	return result;
}

Window retransmission_gives_up(const ConnectionSnapshot &snapshot,
                               const DetectionSettings &settings,
                               const KernelLimits &limits)
{
	const Millis limit = settings.user_timeout_ms ? settings.user_timeout_ms
	                                              : retransmission_limit(limits);
	Window next = fires(snapshot, snapshot.rto);
	Window since{0, 0};
	if (snapshot.retransmits > 0)
		since = since_first_retransmission(snapshot, limits);
	else
	{
		// The running timer may be that of a tail-loss probe, before the RTO.
		next.latest += late(snapshot.rto);
		// The limit counts from then on.
		since = {-next.latest, -next.earliest};
	}
	const Millis earliest = std::max(next.earliest, limit - since.latest);
	// If the timer fires before the limit, it is armed for the rest of the user timeout
	// (tcp_clamp_rto_to_user_timeout), or without one for the next period.  If it is
	// already armed in this way, `since` is too long, but this is the last firing.
	const Millis left = limit - since.earliest;
	if (settings.user_timeout_ms)
		return {earliest, std::max(next.latest, left + lateness(limit))};
	Millis on_time = next.earliest;
	Millis latest = next.latest;
	Millis period = std::max<Millis>(snapshot.rto, 1);
	while (on_time < left)
	{
		period = backed_off(period, 1, limits);
		on_time += period;
		latest += late(period);
	}
	return {earliest, std::min(latest, std::max(next.latest, left + late(period)))};
}

// A zero window with data in flight: tcp_rtx_probe0_timed_out().
Window shrunk_window_gives_up(const ConnectionSnapshot &snapshot,
                              const DetectionSettings &settings,
                              const KernelLimits &limits)
{
	const Window next = fires(snapshot, snapshot.rto);
	if (settings.user_timeout_ms)
		return {next.earliest, next.latest + late(settings.user_timeout_ms)};
	const Millis left = 2 * limits.rto_max - snapshot.last_ack_recv;
	return {std::max(next.earliest, left),
	        next.latest + 2 * limits.rto_max + late(limits.rto_max)};
}

// tcp_write_wakeup(): into a window that is open, but too little for the data that waits,
// the persist timer sends a part of it, and then the retransmission timer runs.
bool probes_with_data(const ConnectionSnapshot &snapshot)
{
	return snapshot.timer == Timer::persist && snapshot.snd_wnd.value_or(0) > 0;
}

// As far as retransmission_gives_up() reads it.
ConnectionSnapshot after_data_probe(ConnectionSnapshot snapshot)
{
	snapshot.expires = snapshot.rto;
	snapshot.retransmits = 0;
	return snapshot;
}

// tcp_probe_timer(): both the user timeout and tcp_retries2 apply.
Window persist_gives_up(const ConnectionSnapshot &snapshot,
                        const DetectionSettings &settings, const KernelLimits &limits)
{
	const auto period = [&](int backoff)
	{
		return persist_period(snapshot.rto, backoff, limits);
	};
	const Window next = fires(snapshot, period(snapshot.backoff));
	if (probes_with_data(snapshot))
		return next +
		       retransmission_gives_up(after_data_probe(snapshot), settings, limits);
	Window result = next;
	for (int probes = snapshot.probes; probes < limits.tcp_retries2; ++probes)
	{
		const Millis length = period(snapshot.backoff + 1 + probes - snapshot.probes);
		result = result + Window{length, late(length)};
	}
	const Millis user_timeout = settings.user_timeout_ms;
	if (user_timeout == 0)
		return result;
	// It counts from the first probe.  Answers restart the timer but not the count.  The
	// back-off shows how many probes were sent until it has reached its limit, so at
	// least their periods have passed.
	if (snapshot.backoff == 0)
		return {std::min(result.earliest, next.earliest + user_timeout),
		        std::min(result.latest, next.latest + late(user_timeout))};
	const Window since =
		since_first_of(snapshot.backoff, snapshot, [&](int i) { return period(i + 1); });
	// The timer is armed for no longer than that (tcp_clamp_probe0_to_user_timeout).
	const Millis left = user_timeout - since.earliest;
	return {
		next.earliest,
		std::min(result.latest, std::max(next.latest, left + lateness(user_timeout)))};
}

// Whether the last data was sent after the last receipt.  tcp_event_data_sent() notes the
// time of retransmissions too, in the same jiffies as receipts: an answer within the same
// jiffy is an answer.
bool data_unanswered(const ConnectionSnapshot &snapshot)
{
	return !snapshot.last_data_sent || *snapshot.last_data_sent < silent_for(snapshot);
}

// tcp_ack() clears tcpi_probes.
bool probe_unanswered(const ConnectionSnapshot &snapshot,
                      const DetectionSettings &settings, const KernelLimits &limits)
{
	if (snapshot.probes == 0)
		return false;
	// What is in flight was sent after the probes.
	if (snapshot.unacked > 0)
		return data_unanswered(snapshot);
	if (snapshot.last_data_recv >= snapshot.last_ack_recv)
		return true;

	// Data has come since the last ACK.  The fast path of tcp_rcv_established() does not
	// call tcp_ack(), so the probes may have been sent before it or after it.  The timer
	// was armed when the last one was sent, unless it fires late.
	if (snapshot.probes == snapshot.answered_probes)
		return false;
	switch (snapshot.timer)
	{
	case Timer::persist:
		return snapshot.last_data_recv >
		       persist_period(snapshot.rto, snapshot.backoff, limits) - snapshot.expires;
	case Timer::keepalive:
		// A probe is sent after `idle` of silence.
		return snapshot.last_data_recv >= Millis{settings.idle_s} * 1000 +
		                                      Millis{settings.interval_s} * 1000 -
		                                      snapshot.expires;
	default:
		return false;
	}
}

struct Asked
{
	bool already;
	Window since; // already: how long ago, else: how soon
};

// When the kernel's first unanswered question is or was.
std::optional<Asked> asked(const ConnectionSnapshot &snapshot,
                           const DetectionSettings &settings, const KernelLimits &limits)
{
	if (asking(snapshot, settings, limits))
	{
		Window since{0, silent_for(snapshot)};
		if (snapshot.asked_for)
		{
			// It may belong to the retransmission before this one.
			const Millis asked_for = std::min(*snapshot.asked_for, since.latest);
			return Asked{true, {asked_for, asked_for}};
		}
		if (snapshot.timer == Timer::keepalive)
		{
			const Millis interval = Millis{settings.interval_s} * 1000;
			since.earliest =
				since_first_of(snapshot.probes, snapshot, [&](int) { return interval; })
					.earliest;
			since.latest -= Millis{settings.idle_s} * 1000;
		}
		else if (snapshot.timer == Timer::persist)
			since.earliest =
				since_first_of(snapshot.probes, snapshot,
			                   [&](int i)
			                   {
								   return persist_period(snapshot.rto,
				                                         snapshot.backoff -
				                                             snapshot.probes + 1 + i,
				                                         limits);
							   })
					.earliest;
		else if (snapshot.timer == Timer::retransmit)
			since.earliest =
				std::max(snapshot.retransmits > 0
			                 ? since_first_retransmission(snapshot, limits).earliest
			                 : 0,
			             snapshot.last_data_sent.value_or(0));
		since.latest = std::max<Millis>(since.latest, 0);
		since.earliest = std::min(since.earliest, since.latest);
		return Asked{true, since};
	}
	switch (snapshot.timer)
	{
	case Timer::retransmit:
	{
		Window next = fires(snapshot, snapshot.rto);
		// What fires now may be a tail-loss probe that sends new data
		// (tcp_send_loss_probe), and the RTO comes after it.
		if (snapshot.backoff == 0)
			next.latest += late(snapshot.rto);
		return Asked{false, next};
	}
	case Timer::persist:
	{
		Window next =
			fires(snapshot, persist_period(snapshot.rto, snapshot.backoff, limits));
		if (probes_with_data(snapshot))
			next.latest += 2 * late(snapshot.rto); // a tail-loss probe may come before
		return Asked{false, next};
	}
	default:
		if (!settings.keepalive)
			return std::nullopt;
		return Asked{false, Keepalive(snapshot, settings).question};
	}
}

Span guard_gives_up(const ConnectionSnapshot &snapshot, const DetectionSettings &settings,
                    const KernelLimits &limits)
{
	Span result = never();
	if (settings.watch_interval_ms == 0)
		return result;
	const Millis looks = 2 * Millis{settings.watch_interval_ms};
	const auto at_least_now = [](Millis t)
	{
		return std::max<Millis>(t, 0);
	};
	if (settings.dead_after_ms != 0)
		if (const std::optional<Asked> question = asked(snapshot, settings, limits))
		{
			const Window &since = question->since;
			const Millis dead_after = settings.dead_after_ms;
			result = question->already
			             ? Span{at_least_now(dead_after - since.latest),
			                    at_least_now(dead_after - since.earliest) + looks}
			             : Span{since.earliest + dead_after,
			                    since.latest + dead_after + looks};
		}
	if (settings.stall_timeout_ms != 0 && zero_window(snapshot))
	{
		const Millis timeout = settings.stall_timeout_ms;
		result = first_of(
			result,
			{snapshot.stalled_for ? at_least_now(timeout - *snapshot.stalled_for) : 0,
		     at_least_now(timeout - snapshot.stalled_for.value_or(0)) + looks});
	}
	return result;
}

Span kernel_gives_up(const ConnectionSnapshot &snapshot,
                     const DetectionSettings &settings, const KernelLimits &limits)
{
	const auto span = [](const Window &w)
	{
		return Span{w.earliest, w.latest};
	};
	switch (snapshot.timer)
	{
	case Timer::retransmit:
		if (zero_window(snapshot))
			return span(shrunk_window_gives_up(snapshot, settings, limits));
		return span(retransmission_gives_up(snapshot, settings, limits));
	case Timer::persist:
		return span(persist_gives_up(snapshot, settings, limits));
	default:
		if (!settings.keepalive)
			return never();
		return span(Keepalive(snapshot, settings).gives_up(snapshot, settings));
	}
}

Health health(const ConnectionSnapshot &snapshot, const DetectionSettings &settings,
              const KernelLimits &limits)
{
	switch (snapshot.state)
	{
	case TcpState::close:
		return Health::dead;
	case TcpState::close_wait:
	case TcpState::last_ack:
	case TcpState::closing:
	case TcpState::time_wait:
		return Health::closed_by_peer;
	default:
		break;
	}
	if (asking(snapshot, settings, limits))
	{
		if (snapshot.timer == Timer::retransmit &&
		    (snapshot.retransmits > 0 || zero_window(snapshot)))
			return Health::retransmitting;
		if (snapshot.probes > 0)
			return Health::probing;
	}
	return zero_window(snapshot) ? Health::zero_window : Health::alive;
}

} // namespace

Duration since_first_timeout(const TcpInfo &info) noexcept
{
	// The last of the fields that are used here.
	constexpr auto time = whole_field("total_rto_time", offsetof(TcpInfo, total_rto_time),
	                                  sizeof(TcpInfo::total_rto_time));
	if (!has_field(info, time) || info.retransmits == 0 || info.total_rto_recoveries != 1)
		return std::nullopt;
	return info.total_rto_time;
}

Millis silent_for(const ConnectionSnapshot &snapshot) noexcept
{
	return std::min(snapshot.last_data_recv, snapshot.last_ack_recv);
}

bool asking(const ConnectionSnapshot &snapshot, const DetectionSettings &settings,
            const KernelLimits &limits) noexcept
{
	// If the window was closed while data was in flight, the retransmissions are window
	// probes (tcp_retransmit_timer): they are answered, but the data is not acknowledged.
	const bool retransmitted = snapshot.retransmits > 0 || snapshot.retransmitted > 0;
	return (retransmitted && data_unanswered(snapshot)) ||
	       probe_unanswered(snapshot, settings, limits);
}

bool zero_window(const ConnectionSnapshot &snapshot) noexcept
{
	return snapshot.timer == Timer::persist ||
	       (snapshot.timer == Timer::retransmit && snapshot.unacked > 0 &&
	        snapshot.snd_wnd == 0u);
}

const char *health_name(Health health) noexcept
{
	switch (health)
	{
	case Health::alive:
		return "alive";
	case Health::probing:
		return "probing";
	case Health::retransmitting:
		return "retransmitting";
	case Health::zero_window:
		return "zero_window";
	case Health::closed_by_peer:
		return "closed_by_peer";
	case Health::dead:
		return "dead";
	}
	return nullptr;
}

Verdict verdict(const ConnectionSnapshot &snapshot, const DetectionSettings &settings,
                const KernelLimits &limits) noexcept
{
	if (snapshot.state == TcpState::close)
		return {Health::dead, {0, 0}};
	return {health(snapshot, settings, limits),
	        first_of(kernel_gives_up(snapshot, settings, limits),
	                 guard_gives_up(snapshot, settings, limits))};
}

} // namespace guard
