// Whether the peer of a connection is alive, and when the connection will be given up.
#pragma once

#include <cstdint>
#include <optional>

#include "kernel/socket.hpp"
#include "model/detection.hpp"
#include "model/duration.hpp"
#include "model/tcp_timing.hpp"

namespace guard
{

enum class Health : std::uint8_t
{
	alive,
	probing,        // probes are unanswered
	retransmitting, // data is unanswered
	zero_window,    // answers, reads nothing
	closed_by_peer, // FIN received
	dead,           // the kernel has given up
};

// keepalive_status()'s word for it.
const char *health_name(Health health) noexcept;

// What the kernel shows of a socket now (inet_diag and tcp_info), and what the watcher
// has stored about it.
struct ConnectionSnapshot
{
	TcpState state;
	Timer timer;
	Millis expires;                       // until the timer fires; 0 where it is late
	int retransmits;                      // tcpi_retransmits
	int probes;                           // tcpi_probes
	int backoff;                          // tcpi_backoff
	Millis rto;                           // tcpi_rto, with the back-off in it
	std::uint32_t unacked;                // tcpi_unacked, packets
	std::uint32_t retransmitted;          // tcpi_retrans, packets
	Duration last_data_sent;              // ago, where it is known; see asking()
	Millis last_data_recv;                // ago
	Millis last_ack_recv;                 // ago
	std::optional<std::uint32_t> snd_wnd; // bytes, where the kernel has it
	// Since the first retransmission on timeout of those that are unanswered, where it
	// is known (since_first_timeout()).
	Duration since_first_timeout;
	// The value of `probes` that the watcher has seen answered by data; 0: none.
	int answered_probes;
	// For how long asking() and zero_window() have held without interruption and without
	// anything received, where the watcher has seen it.
	Duration asked_for;
	Duration stalled_for;
};

struct Verdict
{
	Health health;
	// From now until the kernel or the watcher gives the peer up, if it stays silent.
	// A report that the peer is unreachable, from a router or ARP, moves the kernel's
	// timers (tcp_ld_RTO_revert): until the next one fires, this may be wrong by a
	// period.
	Span gives_up_in;
};

// From tcpi_total_rto_time, which Linux 6.7 and later have.  It is the time from the
// first retransmission on timeout until now only during the first such episode of a
// connection, because the time of earlier episodes is included (tcp_get_info,
// tcp_update_rto_stats).
Duration since_first_timeout(const TcpInfo &info) noexcept;

// For how long nothing has been received, computed as tcp_keepalive_timer() does
// (keepalive_time_elapsed).
Millis silent_for(const ConnectionSnapshot &snapshot) noexcept;

// Whether the kernel waits for an answer: the last probe or retransmission was sent after
// the last receipt.  A peer that has answered it is alive, however long it takes until
// the kernel sends the next one.  Silence counts for dead_after only while this is true,
// and from the moment when it became true.
bool asking(const ConnectionSnapshot &snapshot, const DetectionSettings &settings,
            const KernelLimits &limits) noexcept;

// Whether data waits for the peer to open its window.
bool zero_window(const ConnectionSnapshot &snapshot) noexcept;

Verdict verdict(const ConnectionSnapshot &snapshot, const DetectionSettings &settings,
                const KernelLimits &limits) noexcept;

} // namespace guard
