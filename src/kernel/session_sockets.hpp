// The sockets of sessions: found by their cookies if those are known, otherwise by what
// PostgreSQL knows about a session, which is its process and its client's address.
#pragma once

#include "kernel/inet_diag.hpp"
#include "kernel/socket.hpp"

#include <cstddef>

#include <sys/types.h>

namespace guard
{

class SockDiag;

struct SessionSocket
{
	pid_t pid;
	// With a cookie: exactly that socket.  Without: the one with this remote end and
	// this local port (and local address, if that has a family) that the process holds.
	// If the remote end has no family, no socket is wanted.
	SocketId id;
};

// Fills answers[i] for wanted[i].  Where answers[i].found is false, its state is `close`
// if the kernel has no such socket (it has ended the connection, or the process has
// ended), and `unknown` if that cannot be found out, or if none was wanted.
// diag: nullptr if netlink is refused.  Then the answers contain no more than
// /proc/net/tcp, and sockets are found by process, because that file has no cookies.
//
// Sockets without cookie need a dump for each of their address families, filtered by
// local port in the kernel, and a look at their processes' descriptors: only those tell
// which of two connections with the same remote end belongs to which process, and that it
// does not belong to another server.  Throws as SockDiag and read_proc_net() do.
void find_session_sockets(SockDiag *diag, const SessionSocket *wanted, std::size_t n,
                          SocketFacts *answers, Details details);

} // namespace guard
