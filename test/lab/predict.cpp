// Prints the predictions of src/model, for tests in other languages.  Reads lines of
//
//   FAULT SITUATION keepalive idle interval count user_timeout check dead_after
//   stall_timeout watch_interval tcp_retries2 rto_max fin_timeout
//
// with 0 or 1, seconds, seconds, a number, and milliseconds.  For each line it writes the
// earliest and the latest end of the backend in ms after the fault, "-" for never.
// FAULT is silent, reset or closed.  SITUATION is waiting (for the client, nothing in
// flight), working, in_flight, stalled (waiting to write against a closed window) or,
// with silence, busy (working, and data is in flight).
#include "model/detection.hpp"

#include <iostream>
#include <string>

using namespace guard;

namespace
{

constexpr Millis at_once = 0;

struct Case
{
	std::string fault;
	std::string situation;
	DetectionSettings settings;
	KernelLimits limits;
	Millis fin_timeout;
};

std::istream &operator>>(std::istream &in, Case &c)
{
	DetectionSettings &w = c.settings;
	return in >> c.fault >> c.situation >> w.keepalive >> w.idle_s >> w.interval_s >>
	       w.count >> w.user_timeout_ms >> w.client_check_ms >> w.dead_after_ms >>
	       w.stall_timeout_ms >> w.watch_interval_ms >> c.limits.tcp_retries2 >>
	       c.limits.rto_max >> c.fin_timeout;
}

Millis ms(std::int32_t seconds)
{
	return Millis{seconds} * 1000;
}

// The latest time of the kernel's next packet to the peer.
Millis next_packet(const Case &c)
{
	if (c.situation == "in_flight")
		return 2 * late(tcp_timeout_init);
	if (c.situation == "stalled")
		return late(persist_period(tcp_timeout_init, c.limits.tcp_retries2, c.limits));
	return late(std::max(ms(c.settings.idle_s), ms(c.settings.interval_s)));
}

// When the backend ends if the kernel knows of the fault at `known` at the latest.
Span learnt(const Case &c, Millis known)
{
	const DetectionSettings &w = c.settings;
	if (c.situation != "working")
		return {at_once, known};
	Duration latest;
	if (w.client_check_ms != 0)
		latest = known + w.client_check_ms;
	if (w.dead_after_ms != 0 && w.watch_interval_ms != 0)
		latest = sooner(latest, known + w.dead_after_ms + 2 * w.watch_interval_ms);
	return {at_once, latest};
}

// The peer's host answers each packet with a reset.
Span reset(const Case &c)
{
	return learnt(c, next_packet(c));
}

// The peer's kernel closes the connection with FIN, and with a reset if data arrives or
// is unread.  A busy backend without a client check does not notice a FIN, and the peer's
// kernel answers probes until it forgets the connection.
Span closed(const Case &c)
{
	if (c.situation == "working" && c.settings.client_check_ms == 0)
		return learnt(c, c.fin_timeout + next_packet(c));
	return learnt(c, c.situation == "in_flight" ? next_packet(c) : at_once);
}

Span silence(const Case &c)
{
	const Detection d = detection(c.settings, c.limits);
	if (c.situation == "working")
		return d.working;
	if (c.situation == "in_flight")
		return d.in_flight;
	if (c.situation == "busy")
		return d.busy;
	return c.situation == "stalled" ? d.stalled : d.idle;
}

std::string text(const Duration &duration)
{
	return duration ? std::to_string(*duration) : "-";
}

} // namespace

int main()
{
	for (Case c; std::cin >> c;)
	{
		Span span = c.fault == "reset"    ? reset(c)
		            : c.fault == "closed" ? closed(c)
		                                  : silence(c);
		std::cout << text(span.earliest) << ' ' << text(span.latest) << std::endl;
	}
}
