#include "kernel/tcp_info.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <sys/utsname.h>

namespace guard
{

namespace
{

// What the kernel of 6.18 fills at most.
constexpr std::size_t kernel_bytes = offsetof(TcpInfo, options2);
// All of TcpInfo that can be filled.
constexpr std::uint32_t all_bytes = offsetof(TcpInfo, ecn_mode) + 1;

// The compiler puts the first bit-field into the lowest bits on little-endian
// machines and into the highest on big-endian ones.
constexpr std::uint64_t bit_field(std::uint64_t unit, unsigned unit_bits, unsigned bit,
                                  unsigned width)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	const unsigned shift = unit_bits - bit - width;
#else
	const unsigned shift = bit;
	(void)unit_bits;
#endif
	return (unit >> shift) & ((std::uint64_t{1} << width) - 1);
}

std::uint8_t byte_bit_field(std::uint8_t byte, unsigned bit, unsigned width)
{
	return static_cast<std::uint8_t>(bit_field(byte, 8, bit, width));
}

template <typename T> std::uint64_t load(const unsigned char *at)
{
	T value;
	std::memcpy(&value, at, sizeof(value));
	return value;
}

} // namespace

std::uint8_t TcpInfo::snd_wscale() const noexcept
{
	return byte_bit_field(window_scales, 0, 4);
}

std::uint8_t TcpInfo::rcv_wscale() const noexcept
{
	return byte_bit_field(window_scales, 4, 4);
}

std::uint8_t TcpInfo::delivery_rate_app_limited() const noexcept
{
	return byte_bit_field(flags, 0, 1);
}

std::uint8_t TcpInfo::fastopen_client_fail() const noexcept
{
	return byte_bit_field(flags, 1, 2);
}

TcpInfoLayout tcp_info_layout(const char *release) noexcept
{
	// Kernel commit 4fa4ac5e5848 (tcp: accecn: add tcpi_ecn_mode and tcpi_option2 in
	// tcp_info), first in 7.0.
	return std::strtol(release, nullptr, 10) >= 7 ? TcpInfoLayout::linux_7_0
	                                              : TcpInfoLayout::linux_6_18;
}

namespace
{

// Asked for when the library is loaded, in the postmaster: not in every backend.
const TcpInfoLayout running_layout = []
{
	utsname name;
	return tcp_info_layout(uname(&name) == 0 ? name.release : "");
}();

} // namespace

TcpInfoLayout running_tcp_info_layout() noexcept
{
	return running_layout;
}

TcpInfo decode_tcp_info(const void *data, std::size_t length,
                        TcpInfoLayout layout) noexcept
{
	TcpInfo info{};
	const std::size_t known = std::min(length, kernel_bytes);

	if (known == 0)
		return info;
	std::memcpy(&info, data, known);
	info.received = static_cast<std::uint32_t>(known);

	if (layout == TcpInfoLayout::linux_7_0 && known > offsetof(TcpInfo, accecn_fail_mode))
	{
		if (known < kernel_bytes)
		{
			info.received = offsetof(TcpInfo, accecn_fail_mode);
			return info;
		}
		const std::uint64_t unit =
			load<std::uint32_t>(static_cast<const unsigned char *>(data) +
		                        offsetof(TcpInfo, accecn_fail_mode));
		info.ecn_mode = static_cast<std::uint8_t>(bit_field(unit, 32, 0, 2));
		info.accecn_opt_seen = static_cast<std::uint16_t>(bit_field(unit, 32, 2, 2));
		info.accecn_fail_mode = static_cast<std::uint16_t>(bit_field(unit, 32, 4, 4));
		info.options2 = static_cast<std::uint32_t>(bit_field(unit, 32, 8, 24));
		info.received = all_bytes;
	}
	return info;
}

std::optional<std::uint64_t> value_of(const TcpInfo &info,
                                      const TcpInfoField &field) noexcept
{
	if (!has_field(info, field))
		return std::nullopt;

	const unsigned char *at =
		reinterpret_cast<const unsigned char *>(&info) + field.offset;
	const std::uint64_t unit = field.size == 1   ? *at
	                           : field.size == 2 ? load<std::uint16_t>(at)
	                           : field.size == 4 ? load<std::uint32_t>(at)
	                                             : load<std::uint64_t>(at);
	return field.width == 0 ? unit
	                        : bit_field(unit, field.size * 8U, field.bit, field.width);
}

} // namespace guard
