// The one door through which code that may not meet a C++ exception reads sockets.
#pragma once

#include "kernel/inet_diag.hpp"
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

// SockDiag::query() on a socket of its own.  Nothing is left open or allocated.
ReadOutcome read_sockets(const SocketId *wanted, std::size_t n, SocketFacts *answers,
                         Details details) noexcept;

} // namespace guard
