// struct tcp_info: the table compared with the running kernel's own description of it,
// and decoding of what old and new kernels return.
#include "kernel/tcp_info.hpp"

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

using namespace guard;

namespace
{

const TcpInfoField &field(const std::string &name)
{
	for (const TcpInfoField &f : tcp_info_fields)
		if (name == f.name)
			return f;
	throw std::out_of_range(name);
}

// One member of a structure in the kernel's BTF (type information).
struct BtfMember
{
	std::string name;
	unsigned bit_offset;
	unsigned bit_width; // 0: not a bit-field
};

std::uint32_t word(const std::string &bytes, std::size_t at)
{
	std::uint32_t value;
	if (at + sizeof(value) > bytes.size())
		throw std::out_of_range("BTF ends early");
	std::memcpy(&value, bytes.data() + at, sizeof(value));
	return value;
}

// The members of `struct name`, read from /sys/kernel/btf/vmlinux (the kernel's
// Documentation/bpf/btf.rst); empty if there is none.
std::vector<BtfMember> btf_struct(const std::string &wanted)
{
	std::ifstream file("/sys/kernel/btf/vmlinux", std::ios::binary);
	const std::string b((std::istreambuf_iterator<char>(file)), {});
	if (b.empty())
		return {};
	const std::size_t header = word(b, 4);
	const std::size_t strings = header + word(b, 16);
	std::size_t at = header + word(b, 8);
	const std::size_t end = at + word(b, 12);
	const auto name = [&](std::uint32_t offset)
	{
		return std::string(b.c_str() + strings + offset);
	};

	while (at < end)
	{
		const std::uint32_t name_offset = word(b, at);
		const std::uint32_t info = word(b, at + 4);
		const unsigned kind = info >> 24 & 31;
		const unsigned count = info & 0xffff;
		at += 12;
		switch (kind)
		{
		case 1:  // INT
		case 14: // VAR
		case 17: // DECL_TAG
			at += 4;
			break;
		case 3: // ARRAY
			at += 12;
			break;
		case 4: // STRUCT
			if (name(name_offset) == wanted)
			{
				std::vector<BtfMember> members;
				for (unsigned i = 0; i < count; i++, at += 12)
				{
					const std::uint32_t where = word(b, at + 8);
					const bool has_width = info >> 31;
					members.push_back({name(word(b, at)),
					                   has_width ? where & 0xffffff : where,
					                   has_width ? where >> 24 : 0});
				}
				return members;
			}
			[[fallthrough]];
		case 5:  // UNION
		case 15: // DATASEC
		case 19: // ENUM64
			at += std::size_t{12} * count;
			break;
		case 6:  // ENUM
		case 13: // FUNC_PROTO
			at += std::size_t{8} * count;
			break;
		}
	}
	return {};
}

struct Pair
{
	int client;
	int server;

	Pair()
	{
		const int listener = socket(AF_INET, SOCK_STREAM, 0);
		sockaddr_in address{};
		address.sin_family = AF_INET;
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		socklen_t length = sizeof(address);
		bind(listener, reinterpret_cast<sockaddr *>(&address), length);
		listen(listener, 1);
		getsockname(listener, reinterpret_cast<sockaddr *>(&address), &length);
		client = socket(AF_INET, SOCK_STREAM, 0);
		connect(client, reinterpret_cast<sockaddr *>(&address), length);
		server = accept(listener, nullptr, nullptr);
		close(listener);
	}

	~Pair()
	{
		close(client);
		close(server);
	}
};

} // namespace

TEST(TcpInfo, TableMatchesTheRunningKernel)
{
	const std::vector<BtfMember> kernel = btf_struct("tcp_info");
	if (kernel.empty())
		GTEST_SKIP() << "this kernel does not publish BTF";

	// decode_tcp_info() rearranges Linux 7.0's last word, which is tested below.
	std::size_t same = 0;
	for (const BtfMember &member : kernel)
	{
		if (member.bit_offset / 8 >= 276 &&
		    running_tcp_info_layout() == TcpInfoLayout::linux_7_0)
			break;
		ASSERT_LT(same, tcp_info_fields.size());
		const TcpInfoField &ours = tcp_info_fields[same];
		EXPECT_EQ(member.name, std::string("tcpi_") + ours.name);
		EXPECT_EQ(member.bit_offset, ours.offset * 8U + ours.bit) << ours.name;
		EXPECT_EQ(member.bit_width, ours.width) << ours.name;
		same++;
	}
	EXPECT_GE(same, 50U);
}

TEST(TcpInfo, FieldsHaveNoGapsButForAlignment)
{
	unsigned end = 0;
	for (const TcpInfoField &f : tcp_info_fields)
	{
		if (f.bit > 0)
			EXPECT_EQ(f.end(), end) << f.name;
		else
			EXPECT_EQ(f.offset, (end + f.size - 1) / f.size * f.size) << f.name;
		end = f.end();
	}
	EXPECT_EQ(tcp_info_fields.size(), 72U);
}

TEST(TcpInfo, ReadsARealSocket)
{
	const Pair pair;
	ASSERT_EQ(write(pair.client, "hello", 5), 5);
	char buffer[5];
	ASSERT_EQ(recv(pair.server, buffer, 5, MSG_WAITALL), 5);

	unsigned char bytes[512];
	socklen_t length = sizeof(bytes);
	ASSERT_EQ(getsockopt(pair.client, IPPROTO_TCP, TCP_INFO, bytes, &length), 0);
	const TcpInfo info = decode_tcp_info(bytes, length);

	EXPECT_GE(info.received, 192U);
	EXPECT_EQ(info.state, TCP_ESTABLISHED);
	EXPECT_EQ(value_of(info, field("bytes_acked")), 6U); // the SYN counts
	EXPECT_EQ(value_of(info, field("data_segs_out")), 1U);
	EXPECT_EQ(value_of(info, field("rtt")), info.rtt);
	EXPECT_GT(info.rtt, 0U);

	tcp_info theirs{};
	std::memcpy(&theirs, bytes, std::min<std::size_t>(length, sizeof(theirs)));
	EXPECT_EQ(info.snd_wscale(), theirs.tcpi_snd_wscale);
	EXPECT_EQ(info.rcv_wscale(), theirs.tcpi_rcv_wscale);
	EXPECT_GT(info.rcv_wscale(), 0);
	EXPECT_EQ(value_of(info, field("snd_wscale")), theirs.tcpi_snd_wscale);
	EXPECT_EQ(value_of(info, field("rcv_wscale")), theirs.tcpi_rcv_wscale);
	EXPECT_EQ(info.snd_mss, theirs.tcpi_snd_mss);
	EXPECT_EQ(info.total_retrans, theirs.tcpi_total_retrans);
}

// As in linux/tcp.h.
TEST(TcpInfo, BitFieldsAreThoseOfTheCompiler)
{
	struct
	{
		std::uint8_t snd_wscale : 4, rcv_wscale : 4;
		std::uint8_t delivery_rate_app_limited : 1, fastopen_client_fail : 2;
	} theirs;
	for (int byte = 0; byte <= 255; byte++)
	{
		std::memset(&theirs, byte, sizeof(theirs));
		TcpInfo info{};
		info.window_scales = info.flags = static_cast<std::uint8_t>(byte);
		EXPECT_EQ(info.snd_wscale(), theirs.snd_wscale) << byte;
		EXPECT_EQ(info.rcv_wscale(), theirs.rcv_wscale) << byte;
		EXPECT_EQ(info.delivery_rate_app_limited(), theirs.delivery_rate_app_limited)
			<< byte;
		EXPECT_EQ(info.fastopen_client_fail(), theirs.fastopen_client_fail) << byte;
	}
}

// Every length that an old or faulty kernel could return.
TEST(TcpInfo, UsesOnlyTheReceivedBytes)
{
	for (std::size_t length = 0; length <= 400; length++)
	{
		const std::vector<unsigned char> bytes(length, 0xff); // ASan sees an overread
		const TcpInfo info =
			decode_tcp_info(bytes.data(), length, TcpInfoLayout::linux_6_18);
		ASSERT_EQ(info.received, std::min<std::size_t>(length, 280));
		for (const TcpInfoField &f : tcp_info_fields)
		{
			const auto value = value_of(info, f);
			ASSERT_EQ(value.has_value(), f.end() <= length && f.end() <= 280)
				<< f.name << " of " << length;
			if (value)
			{
				const unsigned bits = f.width ? f.width : f.size * 8U;
				ASSERT_EQ(*value, ~std::uint64_t{0} >> (64 - bits)) << f.name;
			}
		}
	}
}

TEST(TcpInfo, ReadsUnalignedBytes)
{
	std::vector<unsigned char> bytes(281);
	const std::uint64_t rate = 0x0102030405060708;
	std::memcpy(bytes.data() + 1 + 104, &rate, sizeof(rate));
	EXPECT_EQ(value_of(decode_tcp_info(bytes.data() + 1, 280), field("pacing_rate")),
	          rate);
}

TEST(TcpInfo, HasNoFieldsWithoutBytes)
{
	const TcpInfo info = decode_tcp_info(nullptr, 0);
	EXPECT_EQ(info.received, 0U);
	for (const TcpInfoField &f : tcp_info_fields)
		EXPECT_FALSE(value_of(info, f).has_value());
}

TEST(TcpInfo, LastWordOf6_18)
{
	std::vector<unsigned char> bytes(280);
	const std::uint16_t tail[2] = {0x0009, 0x0002};
	std::memcpy(bytes.data() + 276, tail, sizeof(tail));
	const TcpInfo info = decode_tcp_info(bytes.data(), 280, TcpInfoLayout::linux_6_18);
	EXPECT_EQ(value_of(info, field("accecn_fail_mode")), 9U);
	EXPECT_EQ(value_of(info, field("accecn_opt_seen")), 2U);
	EXPECT_FALSE(value_of(info, field("ecn_mode")));
	EXPECT_FALSE(value_of(info, field("options2")));
}

TEST(TcpInfo, LastWordOf7_0)
{
	struct Tail
	{
		std::uint32_t ecn_mode : 2, accecn_opt_seen : 2, accecn_fail_mode : 4,
			options2 : 24;
	} tail = {3, 2, 9, 0xabcdef};
	std::vector<unsigned char> bytes(280);
	std::memcpy(bytes.data() + 276, &tail, sizeof(tail));

	const TcpInfo info = decode_tcp_info(bytes.data(), 280, TcpInfoLayout::linux_7_0);
	EXPECT_EQ(value_of(info, field("accecn_fail_mode")), 9U);
	EXPECT_EQ(value_of(info, field("accecn_opt_seen")), 2U);
	EXPECT_EQ(value_of(info, field("ecn_mode")), 3U);
	EXPECT_EQ(value_of(info, field("options2")), 0xabcdefU);

	const TcpInfo cut = decode_tcp_info(bytes.data(), 278, TcpInfoLayout::linux_7_0);
	EXPECT_TRUE(value_of(cut, field("received_ce_bytes")));
	EXPECT_FALSE(value_of(cut, field("accecn_fail_mode")));
	EXPECT_FALSE(value_of(cut, field("ecn_mode")));
}

TEST(TcpInfo, LayoutFollowsTheRelease)
{
	EXPECT_EQ(tcp_info_layout("6.18.44-amd64"), TcpInfoLayout::linux_6_18);
	EXPECT_EQ(tcp_info_layout("5.10.0"), TcpInfoLayout::linux_6_18);
	EXPECT_EQ(tcp_info_layout("7.0.0-rc1"), TcpInfoLayout::linux_7_0);
	EXPECT_EQ(tcp_info_layout("10.1"), TcpInfoLayout::linux_7_0);
	EXPECT_EQ(tcp_info_layout(""), TcpInfoLayout::linux_6_18);
	utsname running;
	ASSERT_EQ(uname(&running), 0);
	EXPECT_EQ(running_tcp_info_layout(), tcp_info_layout(running.release));
}
