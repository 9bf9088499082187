// Every TCP socket that the processes of a server hold.
#pragma once

#include "kernel/socket.hpp"

#include <type_traits>
#include <vector>

#include <sys/types.h>

namespace guard
{

class SockDiag;

enum class SocketKind : std::uint8_t
{
	listener,
	client,   // accepted: it has the local port of a listener
	outbound, // connected by the process itself
};

struct ServerSocket
{
	pid_t pid;
	SocketKind kind;
	SocketFacts facts;
};

static_assert(std::is_trivially_copyable_v<ServerSocket>);

// The TCP sockets of the postmaster and its children, by pid, the postmaster's first;
// each socket once.  Sockets in CLOSE are not among them: the kernel's table does not
// have them.
//
// known_pids: more candidates for children, because the kernel's list of children may
// lack some; those that are not children of the postmaster are ignored.
// server_port: the port of the server's listeners, needed when they are already closed.
// diag: nullptr where netlink is refused.
//
// Costs a dump of all sockets of the network namespace, as a process's own connections
// can have any port.  Throws as SockDiag and read_proc_net() do.
std::vector<ServerSocket> find_server_sockets(SockDiag *diag, pid_t postmaster,
                                              const std::vector<pid_t> &known_pids,
                                              std::uint16_t server_port);

// The listeners of the postmaster alone, without a dump of the connections.  Throws as
// above.
std::vector<ServerSocket> find_listeners(SockDiag *diag, pid_t postmaster);

} // namespace guard
