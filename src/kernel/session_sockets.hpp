// The sockets of sessions: by their cookies where those are known, else by what
// PostgreSQL itself knows of a session, its process and its client's address.
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
	// A remote end without family: no socket is wanted.
	SocketId id;
};

// Fills answers[i] for wanted[i].  Where answers[i].found is false, its state is `close`
// if the kernel has no such socket (it has given the connection up, or the process has
// ended), and `unknown` if that cannot be told, or if none was wanted.
// diag: nullptr where netlink is refused: then nothing has more than /proc/net/tcp tells,
// and cookies are not known to it, so that the process decides there too.
//
// Sockets without cookie cost a dump for each address family among them, filtered by
// local port in the kernel, and a look into their processes' descriptors: that alone
// tells which of two connections with the same remote end is whose, and that it is not
// another server's.  Throws as SockDiag and read_proc_net() do.
void find_session_sockets(SockDiag *diag, const SessionSocket *wanted, std::size_t n,
                          SocketFacts *answers, Details details);

} // namespace guard
