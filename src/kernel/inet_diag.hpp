// The messages of the kernel's inet_diag as bytes: makes requests and parses replies,
// but does not send or receive.
#pragma once

#include "kernel/socket.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

#include <linux/inet_diag.h>

namespace guard
{

// What is asked for beyond the facts that every reply has.
struct Details
{
	bool info = true;        // SocketFacts::info
	bool congestion = false; // SocketFacts::congestion
	bool memory = false;     // SocketFacts::memory
};

// A TCP request without socket: family is 4 or 6, states a mask of state_bit().
inet_diag_req_v2 diag_request(std::uint8_t family, std::uint32_t states,
                              Details details) noexcept;

// A request for exactly `wanted`, whose family must be 4 or 6.
inet_diag_req_v2 diag_request(const SocketId &wanted, Details details) noexcept;

// Reads the payload of a SOCK_DIAG_BY_FAMILY reply (an inet_diag_msg and what follows
// it).  Attributes that are cut, too long or unknown are ignored.  Returns false,
// and leaves facts zero, if not even the inet_diag_msg is whole or if its family is
// neither AF_INET nor AF_INET6.
bool parse_diag_reply(const void *payload, std::size_t length, TcpInfoLayout layout,
                      SocketFacts &facts) noexcept;

// Whether a reply is about the wanted socket: ports and cookie, or where no cookie is
// wanted, ports and addresses.
bool is_wanted(const SocketId &wanted, const SocketId &answered) noexcept;

// The program (INET_DIAG_REQ_BYTECODE) that accepts sockets with one of these local
// ports; empty for no ports.  Neighbouring ports become ranges.  Throws
// std::length_error beyond some 3200 ranges: a jump has 16 bits.
std::vector<inet_diag_bc_op> local_port_filter(std::vector<std::uint16_t> ports);

} // namespace guard
