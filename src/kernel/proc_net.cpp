#include "kernel/proc_net.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <system_error>

#include <unistd.h>

namespace guard
{

namespace
{

// Cuts the next word off the line; empty at its end.
std::string_view next_word(std::string_view &line) noexcept
{
	const std::size_t start = line.find_first_not_of(" \t\r\n");
	if (start == std::string_view::npos)
	{
		line = {};
		return {};
	}
	line.remove_prefix(start);
	const std::size_t end = std::min(line.find_first_of(" \t\r\n"), line.size());
	const std::string_view word = line.substr(0, end);
	line.remove_prefix(end);
	return word;
}

template <typename T> bool number(std::string_view text, int base, T &value) noexcept
{
	const auto [end, error] =
		std::from_chars(text.data(), text.data() + text.size(), value, base);
	return error == std::errc() && end == text.data() + text.size();
}

// "A:B", both hexadecimal.
template <typename A, typename B> bool pair(std::string_view word, A &a, B &b) noexcept
{
	const std::size_t colon = word.find(':');
	return colon != std::string_view::npos && number(word.substr(0, colon), 16, a) &&
	       number(word.substr(colon + 1), 16, b);
}

// "0100007F:1538": the address's words as this machine's integers, the port plain.
bool read_endpoint(std::string_view word, Endpoint &endpoint) noexcept
{
	const std::size_t colon = word.find(':');
	if (colon != 8 && colon != 32)
		return false;
	for (std::size_t i = 0; i < colon / 8; i++)
	{
		std::uint32_t part;
		if (!number(word.substr(8 * i, 8), 16, part))
			return false;
		std::memcpy(endpoint.address.data() + 4 * i, &part, sizeof(part));
	}
	endpoint.family = colon == 8 ? 4 : 6;
	return number(word.substr(colon + 1), 16, endpoint.port);
}

// The kernel's columns (get_tcp4_sock(), get_tcp6_sock(), get_timewait4_sock()):
// sl local rem st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...
bool read_line(std::string_view line, long ticks_per_second, SocketFacts &facts) noexcept
{
	if (const std::string_view slot = next_word(line); slot.empty() || slot.back() != ':')
		return false;
	std::uint8_t state;
	std::uint8_t timer;
	std::uint64_t ticks;
	std::uint32_t retransmits;
	std::uint32_t uid;
	int probes; // the kernel prints it as signed
	std::uint64_t inode;
	if (!read_endpoint(next_word(line), facts.id.local) ||
	    !read_endpoint(next_word(line), facts.id.remote) ||
	    !number(next_word(line), 16, state) ||
	    !pair(next_word(line), facts.send_queue, facts.recv_queue) ||
	    !pair(next_word(line), timer, ticks) ||
	    !number(next_word(line), 16, retransmits) || !number(next_word(line), 10, uid) ||
	    !number(next_word(line), 10, probes) || !number(next_word(line), 10, inode))
		return false;
	if (facts.id.local.family != facts.id.remote.family)
		return false;

	facts.found = true;
	facts.state = static_cast<TcpState>(state);
	facts.timer = timer_of(timer);
	const std::uint64_t ms =
		ticks <= UINT32_MAX && ticks_per_second > 0
			? ticks * 1000 / static_cast<std::uint64_t>(ticks_per_second)
			: UINT32_MAX;
	facts.timer_expires_ms =
		static_cast<std::uint32_t>(std::min<std::uint64_t>(ms, UINT32_MAX));
	const bool probing = facts.timer == Timer::keepalive || facts.timer == Timer::persist;
	const std::uint32_t count =
		probing ? static_cast<std::uint32_t>(std::max(probes, 0)) : retransmits;
	facts.retransmits =
		static_cast<std::uint8_t>(std::min<std::uint32_t>(count, UINT8_MAX));
	facts.uid = uid;
	facts.inode = static_cast<std::uint32_t>(inode);
	return true;
}

} // namespace

bool parse_proc_net_line(std::string_view line, long ticks_per_second,
                         SocketFacts &facts) noexcept
{
	facts = SocketFacts{};
	if (read_line(line, ticks_per_second, facts))
		return true;
	facts = SocketFacts{};
	return false;
}

std::vector<SocketFacts> read_proc_net_file(const std::string &path,
                                            const std::vector<std::uint16_t> &local_ports)
{
	std::ifstream file(path);
	if (!file)
		throw std::system_error(errno, std::generic_category(), "could not open " + path);
	const long ticks_per_second = sysconf(_SC_CLK_TCK);
	std::vector<SocketFacts> found;
	std::string line;
	while (std::getline(file, line))
	{
		SocketFacts facts;
		if (!parse_proc_net_line(line, ticks_per_second, facts))
			continue;
		if (local_ports.empty() || std::find(local_ports.begin(), local_ports.end(),
		                                     facts.id.local.port) != local_ports.end())
			found.push_back(facts);
	}
	if (file.bad())
		throw std::system_error(errno, std::generic_category(), "could not read " + path);
	return found;
}

std::vector<SocketFacts> read_proc_net(const std::vector<std::uint16_t> &local_ports,
                                       const std::string &root)
{
	const std::string directory = root + proc_net;
	std::vector<SocketFacts> found = read_proc_net_file(directory + "tcp", local_ports);
	try
	{
		const std::vector<SocketFacts> v6 =
			read_proc_net_file(directory + "tcp6", local_ports);
		found.insert(found.end(), v6.begin(), v6.end());
	}
	catch (const std::system_error &error)
	{
		if (error.code().value() != ENOENT) // a kernel or namespace without IPv6
			throw;
	}
	return found;
}

} // namespace guard
