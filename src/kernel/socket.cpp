#include "kernel/socket.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cstdio>

namespace guard
{

const char *tcp_state_name(TcpState state) noexcept
{
	static constexpr const char *names[] = {
		nullptr,     "ESTABLISHED", "SYN_SENT",     "SYN_RECV",       "FIN_WAIT1",
		"FIN_WAIT2", "TIME_WAIT",   "CLOSE",        "CLOSE_WAIT",     "LAST_ACK",
		"LISTEN",    "CLOSING",     "NEW_SYN_RECV", "BOUND_INACTIVE",
	};
	const auto number = static_cast<std::size_t>(state);
	return number < std::size(names) ? names[number] : nullptr;
}

const char *timer_name(Timer timer) noexcept
{
	switch (timer)
	{
	case Timer::off:
		return "off";
	case Timer::retransmit:
		return "retransmit";
	case Timer::keepalive:
		return "keepalive";
	case Timer::time_wait:
		return "time_wait";
	case Timer::persist:
		return "persist";
	}
	return "off";
}

bool is_ipv4_mapped(const std::uint8_t *address) noexcept
{
	static constexpr std::uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	return std::equal(std::begin(prefix), std::end(prefix), address);
}

Endpoint unmapped(const Endpoint &endpoint) noexcept
{
	if (endpoint.family != 6 || !is_ipv4_mapped(endpoint.address.data()))
		return endpoint;

	Endpoint v4{};
	v4.family = 4;
	v4.port = endpoint.port;
	std::copy(endpoint.address.begin() + 12, endpoint.address.end(), v4.address.begin());
	return v4;
}

bool same_endpoint(const Endpoint &a, const Endpoint &b) noexcept
{
	if (a.port != b.port)
		return false;
	const Endpoint x = unmapped(a);
	const Endpoint y = unmapped(b);
	return x.family == y.family &&
	       std::equal(x.address.begin(), x.address.begin() + (x.family == 4 ? 4 : 16),
	                  y.address.begin());
}

EndpointText endpoint_text(const Endpoint &endpoint) noexcept
{
	EndpointText result{"[local]"};
	const Endpoint end = unmapped(endpoint);
	if (end.family == 0)
		return result;
	char address[INET6_ADDRSTRLEN] = "?";
	inet_ntop(end.family == 4 ? AF_INET : AF_INET6, end.address.data(), address,
	          sizeof(address));
	std::snprintf(result.text, sizeof(result.text), end.family == 4 ? "%s:%u" : "[%s]:%u",
	              address, end.port);
	return result;
}

} // namespace guard
