// The kernel's struct tcp_info (include/uapi/linux/tcp.h), independent of how old
// the build host's headers are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

namespace guard
{

// Byte for byte the kernel's layout as of Linux 6.18 up to `options2`, names without
// "tcpi_", units the kernel's.  A field means something only where has_field() (or
// value_of()) says that it was received.
struct TcpInfo
{
	std::uint8_t state; // TcpState's numbers
	std::uint8_t ca_state;
	std::uint8_t retransmits;
	std::uint8_t probes; // unanswered keepalive or zero-window probes
	std::uint8_t backoff;
	std::uint8_t options;
	std::uint8_t window_scales; // bit-fields: read with snd_wscale(), rcv_wscale()
	std::uint8_t flags;         // delivery_rate_app_limited(), fastopen_client_fail()

	std::uint32_t rto; // microseconds, as are ato, rtt, rttvar, rcv_rtt, min_rtt
	std::uint32_t ato;
	std::uint32_t snd_mss;
	std::uint32_t rcv_mss;

	std::uint32_t unacked;
	std::uint32_t sacked;
	std::uint32_t lost;
	std::uint32_t retrans;
	std::uint32_t fackets;

	std::uint32_t last_data_sent; // milliseconds ago, as are the next three
	std::uint32_t last_ack_sent;  // the kernel never fills it in
	std::uint32_t last_data_recv;
	std::uint32_t last_ack_recv;

	std::uint32_t pmtu;
	std::uint32_t rcv_ssthresh;
	std::uint32_t rtt;
	std::uint32_t rttvar;
	std::uint32_t snd_ssthresh;
	std::uint32_t snd_cwnd;
	std::uint32_t advmss;
	std::uint32_t reordering;

	std::uint32_t rcv_rtt;
	std::uint32_t rcv_space;

	std::uint32_t total_retrans;

	std::uint64_t pacing_rate; // bytes a second
	std::uint64_t max_pacing_rate;
	std::uint64_t bytes_acked;
	std::uint64_t bytes_received;
	std::uint32_t segs_out;
	std::uint32_t segs_in;

	std::uint32_t notsent_bytes;
	std::uint32_t min_rtt;
	std::uint32_t data_segs_in;
	std::uint32_t data_segs_out;

	std::uint64_t delivery_rate; // bytes a second

	std::uint64_t busy_time; // microseconds, as are the next two
	std::uint64_t rwnd_limited;
	std::uint64_t sndbuf_limited;

	std::uint32_t delivered;
	std::uint32_t delivered_ce;

	std::uint64_t bytes_sent;
	std::uint64_t bytes_retrans;
	std::uint32_t dsack_dups;
	std::uint32_t reord_seen;

	std::uint32_t rcv_ooopack;
	std::uint32_t snd_wnd;
	std::uint32_t rcv_wnd;
	std::uint32_t rehash;

	std::uint16_t total_rto;
	std::uint16_t total_rto_recoveries;
	std::uint32_t total_rto_time; // milliseconds

	std::uint32_t received_ce;
	std::uint32_t delivered_e1_bytes;
	std::uint32_t delivered_e0_bytes;
	std::uint32_t delivered_ce_bytes;
	std::uint32_t received_e1_bytes;
	std::uint32_t received_e0_bytes;
	std::uint32_t received_ce_bytes;
	std::uint16_t accecn_fail_mode;
	std::uint16_t accecn_opt_seen;

	// Linux 7.0 moved these two into the last four bytes (see TcpInfoLayout); here they
	// have places of their own.
	std::uint32_t options2;
	std::uint8_t ecn_mode;

	std::uint8_t unused[3];
	// Bytes of this struct that the kernel filled, from the start: 0 is none.
	std::uint32_t received;

	std::uint8_t snd_wscale() const noexcept;
	std::uint8_t rcv_wscale() const noexcept;
	std::uint8_t delivery_rate_app_limited() const noexcept;
	std::uint8_t fastopen_client_fail() const noexcept;
};

static_assert(std::is_trivially_copyable_v<TcpInfo> &&
              std::is_standard_layout_v<TcpInfo>);

// Which form the kernel's bytes 276 to 279 have.  It is the one place where the kernel
// did not merely append.
enum class TcpInfoLayout : std::uint8_t
{
	linux_6_18, // u16 accecn_fail_mode, u16 accecn_opt_seen
	linux_7_0,  // u32: ecn_mode:2, accecn_opt_seen:2, accecn_fail_mode:4, options2:24
};

// The layout of a kernel with this release, as uname(2) has it ("6.18.44-amd64").
TcpInfoLayout tcp_info_layout(const char *release) noexcept;

// The running kernel's, looked up once.
TcpInfoLayout running_tcp_info_layout() noexcept;

// Reads what the kernel returned.  Fields beyond `length` are zero and not received;
// bytes beyond the struct that we know are ignored.  data may be unaligned; it may be
// null where length is 0.
TcpInfo decode_tcp_info(const void *data, std::size_t length,
                        TcpInfoLayout layout = running_tcp_info_layout()) noexcept;

// Where a field is in TcpInfo.
struct TcpInfoField
{
	const char *name;     // the kernel's, without "tcpi_"
	std::uint16_t offset; // bytes from the start of TcpInfo
	std::uint8_t size;    // bytes of the unit that holds it: 1, 2, 4 or 8
	std::uint8_t bit;     // a bit-field's position in declaration order, else 0
	std::uint8_t width;   // a bit-field's width, else 0: the whole unit

	// The number of received bytes from which the field is there.
	constexpr std::uint32_t end() const noexcept { return offset + std::uint32_t{size}; }
};

constexpr bool has_field(const TcpInfo &info, const TcpInfoField &field) noexcept
{
	return field.end() <= info.received;
}

// The value in the kernel's unit, or nothing where the running kernel has no such
// field.
std::optional<std::uint64_t> value_of(const TcpInfo &info,
                                      const TcpInfoField &field) noexcept;

constexpr TcpInfoField whole_field(const char *name, std::size_t offset,
                                   std::size_t size) noexcept
{
	return {name, static_cast<std::uint16_t>(offset), static_cast<std::uint8_t>(size), 0,
	        0};
}

#define GUARD_TCPI(name)                                                                 \
	whole_field(#name, offsetof(TcpInfo, name), sizeof(TcpInfo::name))

// Every field, in the kernel's order.
inline constexpr std::array tcp_info_fields = {
	GUARD_TCPI(state),
	GUARD_TCPI(ca_state),
	GUARD_TCPI(retransmits),
	GUARD_TCPI(probes),
	GUARD_TCPI(backoff),
	GUARD_TCPI(options),
	TcpInfoField{"snd_wscale", offsetof(TcpInfo, window_scales), 1, 0, 4},
	TcpInfoField{"rcv_wscale", offsetof(TcpInfo, window_scales), 1, 4, 4},
	TcpInfoField{"delivery_rate_app_limited", offsetof(TcpInfo, flags), 1, 0, 1},
	TcpInfoField{"fastopen_client_fail", offsetof(TcpInfo, flags), 1, 1, 2},
	GUARD_TCPI(rto),
	GUARD_TCPI(ato),
	GUARD_TCPI(snd_mss),
	GUARD_TCPI(rcv_mss),
	GUARD_TCPI(unacked),
	GUARD_TCPI(sacked),
	GUARD_TCPI(lost),
	GUARD_TCPI(retrans),
	GUARD_TCPI(fackets),
	GUARD_TCPI(last_data_sent),
	GUARD_TCPI(last_ack_sent),
	GUARD_TCPI(last_data_recv),
	GUARD_TCPI(last_ack_recv),
	GUARD_TCPI(pmtu),
	GUARD_TCPI(rcv_ssthresh),
	GUARD_TCPI(rtt),
	GUARD_TCPI(rttvar),
	GUARD_TCPI(snd_ssthresh),
	GUARD_TCPI(snd_cwnd),
	GUARD_TCPI(advmss),
	GUARD_TCPI(reordering),
	GUARD_TCPI(rcv_rtt),
	GUARD_TCPI(rcv_space),
	GUARD_TCPI(total_retrans),
	GUARD_TCPI(pacing_rate),
	GUARD_TCPI(max_pacing_rate),
	GUARD_TCPI(bytes_acked),
	GUARD_TCPI(bytes_received),
	GUARD_TCPI(segs_out),
	GUARD_TCPI(segs_in),
	GUARD_TCPI(notsent_bytes),
	GUARD_TCPI(min_rtt),
	GUARD_TCPI(data_segs_in),
	GUARD_TCPI(data_segs_out),
	GUARD_TCPI(delivery_rate),
	GUARD_TCPI(busy_time),
	GUARD_TCPI(rwnd_limited),
	GUARD_TCPI(sndbuf_limited),
	GUARD_TCPI(delivered),
	GUARD_TCPI(delivered_ce),
	GUARD_TCPI(bytes_sent),
	GUARD_TCPI(bytes_retrans),
	GUARD_TCPI(dsack_dups),
	GUARD_TCPI(reord_seen),
	GUARD_TCPI(rcv_ooopack),
	GUARD_TCPI(snd_wnd),
	GUARD_TCPI(rcv_wnd),
	GUARD_TCPI(rehash),
	GUARD_TCPI(total_rto),
	GUARD_TCPI(total_rto_recoveries),
	GUARD_TCPI(total_rto_time),
	GUARD_TCPI(received_ce),
	GUARD_TCPI(delivered_e1_bytes),
	GUARD_TCPI(delivered_e0_bytes),
	GUARD_TCPI(delivered_ce_bytes),
	GUARD_TCPI(received_e1_bytes),
	GUARD_TCPI(received_e0_bytes),
	GUARD_TCPI(received_ce_bytes),
	GUARD_TCPI(accecn_fail_mode),
	GUARD_TCPI(accecn_opt_seen),
	GUARD_TCPI(options2),
	GUARD_TCPI(ecn_mode),
};

#undef GUARD_TCPI

// For how long nothing has been received, neither data nor an ACK, in ms, computed as
// keepalive_time_elapsed() does.
inline std::uint32_t silent_for(const TcpInfo &info) noexcept
{
	return info.last_data_recv < info.last_ack_recv ? info.last_data_recv
	                                                : info.last_ack_recv;
}

// The ends of what each kernel generation appended.
static_assert(offsetof(TcpInfo, total_retrans) + 4 == 104);
static_assert(offsetof(TcpInfo, max_pacing_rate) + 8 == 120);
static_assert(offsetof(TcpInfo, bytes_received) + 8 == 136);
static_assert(offsetof(TcpInfo, segs_in) + 4 == 144);
static_assert(offsetof(TcpInfo, data_segs_out) + 4 == 160);
static_assert(offsetof(TcpInfo, delivery_rate) + 8 == 168);
static_assert(offsetof(TcpInfo, sndbuf_limited) + 8 == 192);
static_assert(offsetof(TcpInfo, delivered_ce) + 4 == 200);
static_assert(offsetof(TcpInfo, reord_seen) + 4 == 224);
static_assert(offsetof(TcpInfo, snd_wnd) + 4 == 232);
static_assert(offsetof(TcpInfo, rehash) + 4 == 240);
static_assert(offsetof(TcpInfo, total_rto_time) + 4 == 248);
static_assert(offsetof(TcpInfo, accecn_opt_seen) + 2 == 280);

} // namespace guard
