// Reads sockets for code that must not get a C++ exception: the only way into the rest of
// this directory's socket readers.
#pragma once

#include "kernel/inet_diag.hpp"
#include "kernel/server_sockets.hpp"
#include "kernel/session_sockets.hpp"
#include "kernel/socket.hpp"

#include <cstddef>

namespace guard
{

struct ReadOutcome
{
	enum Kind
	{
		ok,
		refused, // netlink is forbidden here; errno in `error`
		failed,
	} kind;
	int error;         // errno, 0 if there is none
	char message[128]; // for people; "" when ok
};

// find_session_sockets().  refused: the answers come from /proc/net/tcp.
ReadOutcome read_session_sockets(const SessionSocket *wanted, std::size_t n,
                                 SocketFacts *answers, Details details) noexcept;

// find_server_sockets() for n pids.  refused: as above.  What it finds is an array that
// the caller has to free(), also after a failure.
ReadOutcome read_server_sockets(pid_t postmaster, const pid_t *pids, std::size_t n,
                                std::uint16_t server_port, ServerSocket **sockets,
                                std::size_t *count) noexcept;

// find_listeners(), in the same way.
ReadOutcome read_listeners(pid_t postmaster, ServerSocket **sockets,
                           std::size_t *count) noexcept;

// SockDiag::query() on a socket of its own.  Nothing is left open or allocated.
ReadOutcome read_sockets(const SocketId *wanted, std::size_t n, SocketFacts *answers,
                         Details details) noexcept;

} // namespace guard
