#include "kernel/inet_diag.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netlink/attr.h>

namespace guard
{

namespace
{

constexpr std::uint8_t extension(int attribute)
{
	return static_cast<std::uint8_t>(1 << (attribute - 1));
}

std::uint8_t extensions(Details details)
{
	std::uint8_t mask = 0;
	if (details.info)
		mask |= extension(INET_DIAG_INFO);
	if (details.congestion)
		mask |= extension(INET_DIAG_CONG);
	if (details.memory)
		mask |= extension(INET_DIAG_SKMEMINFO);
	return mask;
}

Endpoint endpoint(std::uint8_t family, std::uint16_t port, const std::uint32_t *address)
{
	Endpoint e{};
	e.family = family;
	e.port = ntohs(port);
	std::memcpy(e.address.data(), address, family == 4 ? 4 : 16);
	return e;
}

void read_attribute(const nlattr *attribute, TcpInfoLayout layout, SocketFacts &facts)
{
	const void *data = nla_data(attribute);
	const auto length = static_cast<std::size_t>(nla_len(attribute));

	switch (nla_type(attribute))
	{
	case INET_DIAG_INFO:
		facts.info = decode_tcp_info(data, length, layout);
		break;
	case INET_DIAG_CONG:
	{
		const std::size_t n = std::min(length, sizeof(facts.congestion) - 1);
		std::memset(facts.congestion, 0, sizeof(facts.congestion));
		std::memcpy(facts.congestion, data, strnlen(static_cast<const char *>(data), n));
		break;
	}
	case INET_DIAG_SKMEMINFO:
	{
		const std::size_t n =
			std::min(length / sizeof(std::uint32_t), facts.memory.size());
		std::memcpy(facts.memory.data(), data, n * sizeof(std::uint32_t));
		facts.memory_count = static_cast<std::uint8_t>(n);
		break;
	}
	}
}

} // namespace

inet_diag_req_v2 diag_request(std::uint8_t family, std::uint32_t states,
                              Details details) noexcept
{
	inet_diag_req_v2 request{};
	request.sdiag_family = family == 4 ? AF_INET : AF_INET6;
	request.sdiag_protocol = IPPROTO_TCP;
	request.idiag_ext = extensions(details);
	request.idiag_states = states;
	return request;
}

inet_diag_req_v2 diag_request(const SocketId &wanted, Details details) noexcept
{
	inet_diag_req_v2 request = diag_request(wanted.local.family, ~0U, details);
	inet_diag_sockid &id = request.id;
	id.idiag_sport = htons(wanted.local.port);
	id.idiag_dport = htons(wanted.remote.port);
	std::memcpy(id.idiag_src, wanted.local.address.data(), sizeof(id.idiag_src));
	std::memcpy(id.idiag_dst, wanted.remote.address.data(), sizeof(id.idiag_dst));
	id.idiag_if = wanted.interface;
	// sock_diag_check_cookie() takes two all-ones words as no cookie.
	const std::uint64_t cookie = wanted.cookie ? wanted.cookie : ~std::uint64_t{0};
	id.idiag_cookie[0] = static_cast<std::uint32_t>(cookie);
	id.idiag_cookie[1] = static_cast<std::uint32_t>(cookie >> 32);
	return request;
}

bool parse_diag_reply(const void *payload, std::size_t length, TcpInfoLayout layout,
                      SocketFacts &facts) noexcept
{
	facts = SocketFacts{};

	inet_diag_msg message;
	if (length < sizeof(message))
		return false;
	std::memcpy(&message, payload, sizeof(message));
	if (message.idiag_family != AF_INET && message.idiag_family != AF_INET6)
		return false;
	const std::uint8_t family = message.idiag_family == AF_INET ? 4 : 6;

	facts.found = true;
	facts.state = static_cast<TcpState>(message.idiag_state);
	facts.timer = timer_of(message.idiag_timer);
	facts.retransmits = message.idiag_retrans;
	facts.timer_expires_ms = message.idiag_expires;
	facts.recv_queue = message.idiag_rqueue;
	facts.send_queue = message.idiag_wqueue;
	facts.uid = message.idiag_uid;
	facts.inode = message.idiag_inode;
	facts.id.local = endpoint(family, message.id.idiag_sport, message.id.idiag_src);
	facts.id.remote = endpoint(family, message.id.idiag_dport, message.id.idiag_dst);
	facts.id.interface = message.id.idiag_if;
	facts.id.cookie =
		std::uint64_t{message.id.idiag_cookie[1]} << 32 | message.id.idiag_cookie[0];

	const auto *attribute = reinterpret_cast<const nlattr *>(
		static_cast<const unsigned char *>(payload) + NLMSG_ALIGN(sizeof(message)));
	int left = static_cast<int>(length) - static_cast<int>(NLMSG_ALIGN(sizeof(message)));
	// nla_next() skips padding that may be behind the end: left may become negative,
	// which nla_ok() of some versions takes for a huge number.
	for (; left > 0 && nla_ok(attribute, left); attribute = nla_next(attribute, &left))
		read_attribute(attribute, layout, facts);
	return true;
}

bool is_wanted(const SocketId &wanted, const SocketId &answered) noexcept
{
	if (wanted.cookie != 0)
		return wanted.cookie == answered.cookie &&
		       wanted.local.port == answered.local.port &&
		       wanted.remote.port == answered.remote.port;
	return same_endpoint(wanted.local, answered.local) &&
	       same_endpoint(wanted.remote, answered.remote);
}

// The kernel's inet_diag_bc_run() moves by `yes` if a condition is true and by `no` if
// not.  It accepts if it arrives exactly at the end, and rejects if it arrives four bytes
// after it.  inet_diag_bc_audit() requires every target to be on the chain of `yes`
// steps. For each range:
//     S_GE first   or go on with the next range (the last range: reject)
//     S_LE last    or the same
//     JMP          to the end, not needed in the last range
// S_EQ would be shorter, but old kernels do not know it.
std::vector<inet_diag_bc_op> local_port_filter(std::vector<std::uint16_t> ports)
{
	constexpr std::size_t op_bytes = sizeof(inet_diag_bc_op);
	constexpr std::size_t condition_bytes = 2 * op_bytes; // the second holds the port
	constexpr std::size_t range_bytes = 2 * condition_bytes + op_bytes;

	std::sort(ports.begin(), ports.end());
	std::vector<std::pair<std::uint16_t, std::uint16_t>> ranges;
	for (const std::uint16_t port : ports)
	{
		if (!ranges.empty() && port <= ranges.back().second + 1)
			ranges.back().second = port;
		else
			ranges.emplace_back(port, port);
	}
	if (ranges.size() * range_bytes > UINT16_MAX)
		throw std::length_error("too many port ranges for an inet_diag filter");

	std::vector<inet_diag_bc_op> program;
	const auto distance = [](std::size_t bytes)
	{
		return static_cast<unsigned short>(bytes);
	};
	for (std::size_t i = 0; i < ranges.size(); i++)
	{
		const bool last = i + 1 == ranges.size();
		// The last range has no JMP, so this is four bytes beyond the end there.
		program.push_back({INET_DIAG_BC_S_GE, condition_bytes, distance(range_bytes)});
		program.push_back({0, 0, ranges[i].first});
		program.push_back({INET_DIAG_BC_S_LE, condition_bytes,
		                   distance(range_bytes - condition_bytes)});
		program.push_back({0, 0, ranges[i].second});
		if (!last)
			program.push_back({INET_DIAG_BC_JMP, op_bytes,
			                   distance((ranges.size() - i - 1) * range_bytes)});
	}
	return program;
}

} // namespace guard
