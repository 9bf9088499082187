// /proc/net/tcp and tcp6, used where netlink is refused.  They show no cookie, tcp_info,
// congestion algorithm or socket memory, and have to be read as a whole: all sockets of
// the network namespace.
#pragma once

#include "kernel/socket.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace guard
{

// What /proc/net is a link to.  /proc mounted with subset=pid does not have the link.
constexpr const char *proc_net = "/proc/self/net/";

// Reads one line of either file; the width of the addresses tells the family.
// Returns false, and leaves facts zero, for a header or a line that is not whole.
// facts.retransmits is the kernel's "retrnsmt" or, while the keepalive or persist timer
// runs, "timeout" (icsk_probes_out), so that it has the same meaning as in inet_diag.
// ticks_per_second: the unit of the timer's expiry, sysconf(_SC_CLK_TCK).
bool parse_proc_net_line(std::string_view line, long ticks_per_second,
                         SocketFacts &facts) noexcept;

// The sockets in one such file with one of these local ports (none given: all).  Throws
// std::system_error if the file cannot be read.
std::vector<SocketFacts>
read_proc_net_file(const std::string &path,
                   const std::vector<std::uint16_t> &local_ports);

// Both files under root ("": the system's).  Throws as above for /proc/net/tcp; tcp6 may
// be absent.
std::vector<SocketFacts> read_proc_net(const std::vector<std::uint16_t> &local_ports = {},
                                       const std::string &root = "");

} // namespace guard
