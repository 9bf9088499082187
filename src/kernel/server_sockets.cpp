#include "kernel/server_sockets.hpp"

#include "kernel/proc_fd.hpp"
#include "kernel/proc_net.hpp"
#include "kernel/sock_diag.hpp"

#include <algorithm>
#include <set>

namespace guard
{

namespace
{

bool by_inode(const SocketFacts &a, const SocketFacts &b)
{
	return a.inode < b.inode;
}

// All sockets of the network namespace in these states that some process holds, ordered
// by inode.
std::vector<SocketFacts> held_sockets(SockDiag *diag, std::uint32_t states)
{
	std::vector<SocketFacts> all;
	if (!diag)
		all = read_proc_net();
	else
		for (const std::uint8_t family : {4, 6})
		{
			DumpFilter filter;
			filter.family = family;
			filter.states = states;
			const std::vector<SocketFacts> found = diag->dump(filter);
			all.insert(all.end(), found.begin(), found.end());
		}
	all.erase(std::remove_if(all.begin(), all.end(),
	                         [states](const SocketFacts &facts) {
								 return facts.inode == 0 ||
		                                (state_bit(facts.state) & states) == 0;
							 }),
	          all.end());
	std::sort(all.begin(), all.end(), by_inode);
	return all;
}

// nullptr if it is not among them.
const SocketFacts *find_inode(const std::vector<SocketFacts> &sockets,
                              std::uint32_t inode)
{
	SocketFacts key = {};
	key.inode = inode;
	const auto at = std::lower_bound(sockets.begin(), sockets.end(), key, by_inode);
	return at != sockets.end() && at->inode == inode ? &*at : nullptr;
}

// The postmaster's children, ascending.
std::vector<pid_t> find_children(pid_t postmaster, const std::vector<pid_t> &known_pids)
{
	std::vector<pid_t> pids = children_of(postmaster);
	for (const pid_t pid : known_pids)
		if (!std::binary_search(pids.begin(), pids.end(), pid) &&
		    is_child_of(pid, postmaster))
			pids.push_back(pid);
	std::sort(pids.begin(), pids.end());
	pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
	return pids;
}

} // namespace

std::vector<ServerSocket> find_server_sockets(SockDiag *diag, pid_t postmaster,
                                              const std::vector<pid_t> &known_pids,
                                              std::uint16_t server_port)
{
	std::vector<pid_t> pids = {postmaster};
	for (const pid_t pid : find_children(postmaster, known_pids))
		pids.push_back(pid);
	const std::vector<ProcessSocket> held = process_sockets(pids);
	const std::vector<SocketFacts> sockets = held_sockets(diag, ~0U);

	std::vector<ServerSocket> found;
	std::set<std::uint32_t> inodes;
	std::set<std::uint16_t> listening = {server_port};
	for (const ProcessSocket &of_process : held)
	{
		const SocketFacts *at = find_inode(sockets, of_process.inode);
		if (at == nullptr)
			continue; // no TCP socket, or closed meanwhile
		const bool listener = at->state == TcpState::listen;
		// The postmaster comes first, so an inherited listener is shown for the
		// postmaster.  A connection that the postmaster holds is about to be given to a
		// backend.
		if (of_process.pid == postmaster && !listener)
			continue;
		if (!inodes.insert(at->inode).second)
			continue;
		if (listener)
			listening.insert(at->id.local.port);
		found.push_back({of_process.pid, SocketKind::outbound, *at});
	}

	for (ServerSocket &socket : found)
		if (socket.facts.state == TcpState::listen)
			socket.kind = SocketKind::listener;
		else if (listening.count(socket.facts.id.local.port) > 0)
			socket.kind = SocketKind::client;

	// If a process has ended in the meantime, its pid may belong to an unrelated process.
	// The postmaster's sockets come first.
	pid_t looked_at = postmaster;
	bool still_child = true;
	found.erase(std::remove_if(found.begin(), found.end(),
	                           [&](const ServerSocket &socket)
	                           {
								   if (socket.pid != looked_at)
									   still_child = is_child_of(looked_at = socket.pid,
			                                                     postmaster);
								   return !still_child;
							   }),
	            found.end());
	return found;
}

std::vector<ServerSocket> find_listeners(SockDiag *diag, pid_t postmaster)
{
	const std::vector<SocketFacts> sockets =
		held_sockets(diag, state_bit(TcpState::listen));
	std::vector<ServerSocket> found;
	for (const ProcessSocket &held : process_sockets({postmaster}))
		if (const SocketFacts *at = find_inode(sockets, held.inode))
			found.push_back({postmaster, SocketKind::listener, *at});
	return found;
}

} // namespace guard
