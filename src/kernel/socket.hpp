// What identifies a TCP socket, and what the kernel tells about one through any of its
// interfaces.  Everything is trivially copyable, because it is kept in shared memory.
#pragma once

#include "kernel/tcp_info.hpp"

#include <array>
#include <cstdint>
#include <type_traits>

namespace guard
{

// One end of a connection as the kernel shows it: an IPv4 client of a dual-stack
// listener has family 6 and an address ::ffff:a.b.c.d (see unmapped()).
struct Endpoint
{
	std::uint8_t family;                  // 4 or 6; 0: none
	std::uint16_t port;                   // host order
	std::array<std::uint8_t, 16> address; // network order; IPv4 uses the first four
};

struct SocketId
{
	Endpoint local;
	Endpoint remote;
	// The index of the interface that the socket is bound to, 0: any.  A connection
	// between link-local addresses or in a VRF is bound, and is not found without it.
	std::uint32_t interface;
	std::uint64_t cookie; // SO_COOKIE, never 0 on a socket; 0: not known
};

// The kernel's numbers (include/net/tcp_states.h).
enum class TcpState : std::uint8_t
{
	unknown = 0,
	established,
	syn_sent,
	syn_recv,
	fin_wait1,
	fin_wait2,
	time_wait,
	close,
	close_wait,
	last_ack,
	listen,
	closing,
	new_syn_recv,
	bound_inactive,
};

// A state as a bit of a mask of states.
constexpr std::uint32_t state_bit(TcpState state) noexcept
{
	return std::uint32_t{1} << static_cast<unsigned>(state);
}

// The kernel's name without TCP_ ("ESTABLISHED"); null for a number unknown here.
const char *tcp_state_name(TcpState state) noexcept;

// Which timer runs, with the kernel's numbers in idiag_timer.
enum class Timer : std::uint8_t
{
	off = 0,
	retransmit = 1, // also the tail-loss probe and RACK
	keepalive = 2,
	time_wait = 3,
	persist = 4, // zero window
};

const char *timer_name(Timer timer) noexcept;

// Any other number is off: 5 (delayed ACK, newer kernels) says nothing about the peer.
constexpr Timer timer_of(std::uint8_t kernel_number) noexcept
{
	return kernel_number <= 4 ? static_cast<Timer>(kernel_number) : Timer::off;
}

// The socket memory figures in the order of INET_DIAG_SKMEMINFO (the kernel's
// enum in include/uapi/linux/sock_diag.h, names without SK_MEMINFO_).  All are bytes
// but the last, which counts packets.
constexpr int memory_figure_count = 9;
inline constexpr std::array<const char *, memory_figure_count> memory_figure_names = {
	"rmem_alloc",  "rcvbuf", "wmem_alloc", "sndbuf", "fwd_alloc",
	"wmem_queued", "optmem", "backlog",    "drops",
};

struct SocketFacts
{
	bool found; // false: the kernel has no such socket, and the rest is zero
	TcpState state;
	Timer timer;
	// idiag_retrans: retransmissions while `timer` is retransmit, unanswered probes
	// while it is keepalive or persist.
	std::uint8_t retransmits;
	std::uint32_t timer_expires_ms; // from now
	// For a listener the accept queue and its limit (/proc has no limit: 0); else bytes
	// not yet read, and bytes not yet acknowledged.
	std::uint32_t recv_queue;
	std::uint32_t send_queue;
	std::uint32_t uid;
	std::uint32_t inode; // 0: no process holds it
	SocketId id;
	TcpInfo info;        // info.received is 0 where it was not asked for or not given
	char congestion[16]; // "" where it was not asked for or not given
	std::array<std::uint32_t, memory_figure_count> memory;
	std::uint8_t memory_count; // how many figures of `memory` were given
};

static_assert(std::is_trivially_copyable_v<SocketFacts>);

// Whether the 16 bytes of an IPv6 address are ::ffff:a.b.c.d, whose IPv4 address is the
// last four of them.
bool is_ipv4_mapped(const std::uint8_t *address) noexcept;

// The same endpoint with an IPv4-mapped IPv6 address as IPv4.
Endpoint unmapped(const Endpoint &endpoint) noexcept;

// Equal port and, mapped or not, equal address.
bool same_endpoint(const Endpoint &a, const Endpoint &b) noexcept;

// An end of a connection as text for messages: "192.0.2.1:5432", "[2001:db8::1]:5432";
// "[local]" for a Unix socket.
struct EndpointText
{
	char text[64];
};
EndpointText endpoint_text(const Endpoint &endpoint) noexcept;

} // namespace guard
