#include "kernel/session_sockets.hpp"

#include "kernel/proc_fd.hpp"
#include "kernel/proc_net.hpp"
#include "kernel/sock_diag.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace guard
{

namespace
{

// A walk through the kernel's table may miss a socket while others come and go.
constexpr int walks = 3;

// States in which no process holds the socket.
constexpr std::uint32_t unheld_states =
	state_bit(TcpState::listen) | state_bit(TcpState::time_wait) |
	state_bit(TcpState::syn_recv) | state_bit(TcpState::new_syn_recv);

std::uint32_t ports_of(const SocketId &id)
{
	return std::uint32_t{id.local.port} << 16 | id.remote.port;
}

bool by_ports(const SocketFacts &a, const SocketFacts &b)
{
	return ports_of(a.id) < ports_of(b.id);
}

bool may_be(const SessionSocket &wanted, const SocketFacts &candidate)
{
	return same_endpoint(wanted.id.remote, candidate.id.remote) &&
	       (wanted.id.local.family == 0 ||
	        same_endpoint(wanted.id.local, candidate.id.local));
}

// All connections with the local ports of these sockets, ordered by ports.
std::vector<SocketFacts> list_candidates(SockDiag *diag, const SessionSocket *wanted,
                                         const std::vector<std::size_t> &which,
                                         Details details)
{
	DumpFilter filter;
	filter.states = ~unheld_states;
	filter.details = details;
	bool family_used[2] = {};
	for (const std::size_t i : which)
	{
		filter.local_ports.push_back(wanted[i].id.local.port);
		family_used[wanted[i].id.remote.family == 6] = true;
	}
	std::sort(filter.local_ports.begin(), filter.local_ports.end());
	filter.local_ports.erase(
		std::unique(filter.local_ports.begin(), filter.local_ports.end()),
		filter.local_ports.end());

	std::vector<SocketFacts> candidates;
	if (!diag)
		candidates = read_proc_net(filter.local_ports);
	else
		for (const bool v6 : {false, true})
			if (family_used[v6])
			{
				filter.family = v6 ? 6 : 4;
				const std::vector<SocketFacts> found = diag->dump(filter);
				candidates.insert(candidates.end(), found.begin(), found.end());
			}
	std::sort(candidates.begin(), candidates.end(), by_ports);
	return candidates;
}

// Fills the answers to wanted[i] for i in `which`, and returns those still missing.
std::vector<std::size_t> search(SockDiag *diag, const SessionSocket *wanted,
                                SocketFacts *answers,
                                const std::vector<std::size_t> &which, Details details)
{
	const std::vector<SocketFacts> candidates =
		list_candidates(diag, wanted, which, details);
	std::vector<std::size_t> missing;
	std::string descriptor;
	for (const std::size_t i : which)
	{
		SocketFacts key = {};
		key.id = wanted[i].id;
		const auto [first, last] =
			std::equal_range(candidates.begin(), candidates.end(), key, by_ports);
		const auto found = std::find_if(
			first, last,
			[&](const SocketFacts &candidate)
			{
				return may_be(wanted[i], candidate) &&
			           holds_socket(wanted[i].pid, candidate.inode, descriptor);
			});
		if (found != last)
			answers[i] = *found;
		else
			missing.push_back(i);
	}
	return missing;
}

} // namespace

void find_session_sockets(SockDiag *diag, const SessionSocket *wanted, std::size_t n,
                          SocketFacts *answers, Details details)
{
	std::vector<SocketId> exact(n);
	std::vector<std::size_t> missing;
	for (std::size_t i = 0; i < n; i++)
	{
		if (!diag)
			answers[i] = SocketFacts{};
		if (wanted[i].id.remote.family == 0)
			continue;
		if (diag && wanted[i].id.cookie != 0)
			exact[i] = wanted[i].id;
		else
			missing.push_back(i);
	}
	if (diag)
	{
		diag->query(exact.data(), n, answers, details);
		for (std::size_t i = 0; i < n; i++)
			if (exact[i].cookie != 0 && !answers[i].found)
				answers[i].state = TcpState::close;
	}
	for (int walk = 0; walk < walks && !missing.empty(); walk++)
		missing = search(diag, wanted, answers, missing, details);

	for (const std::size_t i : missing)
		if (shows_sockets(wanted[i].pid))
			answers[i].state = TcpState::close;
}

} // namespace guard
