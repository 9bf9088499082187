// inet_diag's messages as bytes: complete, cut, overlong and malformed replies, and the
// port filter compared with the rules of the kernel's interpreter.
#include "kernel/inet_diag.hpp"

#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>

using namespace guard;

namespace
{

constexpr TcpInfoLayout layout = TcpInfoLayout::linux_6_18;

using Bytes = std::vector<unsigned char>;

inet_diag_msg message()
{
	inet_diag_msg m{};
	m.idiag_family = AF_INET;
	m.idiag_state = 1;
	m.idiag_timer = 2;
	m.idiag_retrans = 3;
	m.id.idiag_sport = htons(5432);
	m.id.idiag_dport = htons(40000);
	m.id.idiag_src[0] = htonl(0x7f000001);
	m.id.idiag_dst[0] = htonl(0x0a000002);
	m.id.idiag_if = 7;
	m.id.idiag_cookie[0] = 0x11111111;
	m.id.idiag_cookie[1] = 0x22222222;
	m.idiag_expires = 4000;
	m.idiag_rqueue = 10;
	m.idiag_wqueue = 20;
	m.idiag_uid = 99;
	m.idiag_inode = 12345;
	return m;
}

Bytes payload(const inet_diag_msg &m = message())
{
	Bytes bytes(sizeof(m));
	std::memcpy(bytes.data(), &m, sizeof(m));
	return bytes;
}

// Appends an attribute with `content` whose length field is `claimed` bytes, including
// the header; 0: the real length.
void append(Bytes &bytes, int type, const Bytes &content, std::uint16_t claimed = 0)
{
	nlattr a{};
	a.nla_type = static_cast<std::uint16_t>(type);
	a.nla_len =
		claimed ? claimed : static_cast<std::uint16_t>(sizeof(a) + content.size());
	const auto *at = reinterpret_cast<const unsigned char *>(&a);
	bytes.insert(bytes.end(), at, at + sizeof(a));
	bytes.insert(bytes.end(), content.begin(), content.end());
	bytes.resize((bytes.size() + 3) / 4 * 4);
}

// Parses a heap block of exactly this size, so that ASan detects each overread.
bool parse(const Bytes &bytes, SocketFacts &facts)
{
	const std::unique_ptr<unsigned char[]> exact(new unsigned char[bytes.size()]);
	std::copy(bytes.begin(), bytes.end(), exact.get());
	return parse_diag_reply(exact.get(), bytes.size(), layout, facts);
}

Bytes whole_reply()
{
	Bytes bytes = payload();
	append(bytes, INET_DIAG_SHUTDOWN, {0});
	append(bytes, INET_DIAG_INFO, Bytes(280, 0x01));
	append(bytes, INET_DIAG_SKMEMINFO, Bytes(36, 0x02));
	append(bytes, INET_DIAG_CONG, {'c', 'u', 'b', 'i', 'c', 0});
	append(bytes, 77, Bytes(13, 0xff));
	return bytes;
}

// The kernel's inet_diag_bc_run() for the operations used.
bool kernel_accepts(const std::vector<inet_diag_bc_op> &program, std::uint16_t sport)
{
	int left = static_cast<int>(program.size() * sizeof(inet_diag_bc_op));
	const auto *op = program.data();
	while (left > 0)
	{
		bool yes = true;
		switch (op->code)
		{
		case INET_DIAG_BC_S_GE:
			yes = sport >= op[1].no;
			break;
		case INET_DIAG_BC_S_LE:
			yes = sport <= op[1].no;
			break;
		case INET_DIAG_BC_JMP:
			yes = false;
			break;
		default:
			throw std::logic_error("operation not expected");
		}
		const int step = yes ? op->yes : op->no;
		left -= step;
		op += step / 4;
	}
	return left == 0;
}

} // namespace

TEST(InetDiagReply, ReadsACompleteReply)
{
	SocketFacts f;
	ASSERT_TRUE(parse(whole_reply(), f));
	EXPECT_TRUE(f.found);
	EXPECT_EQ(f.state, TcpState::established);
	EXPECT_EQ(f.timer, Timer::keepalive);
	EXPECT_EQ(f.retransmits, 3);
	EXPECT_EQ(f.timer_expires_ms, 4000U);
	EXPECT_EQ(f.recv_queue, 10U);
	EXPECT_EQ(f.send_queue, 20U);
	EXPECT_EQ(f.uid, 99U);
	EXPECT_EQ(f.inode, 12345U);
	EXPECT_EQ(f.id.cookie, 0x2222222211111111U);
	EXPECT_EQ(f.id.interface, 7U);
	EXPECT_EQ(f.id.local.family, 4);
	EXPECT_EQ(f.id.local.port, 5432);
	EXPECT_EQ(f.id.remote.port, 40000);
	EXPECT_EQ(f.id.remote.address[0], 10);
	EXPECT_EQ(f.id.remote.address[3], 2);
	EXPECT_EQ(f.info.received, 280U);
	EXPECT_EQ(f.info.probes, 1);
	EXPECT_EQ(f.memory_count, 9);
	EXPECT_EQ(f.memory[8], 0x02020202U);
	EXPECT_STREQ(f.congestion, "cubic");
}

TEST(InetDiagReply, ReadsAReplyCutAnywhere)
{
	const Bytes whole = whole_reply();
	for (std::size_t n = 0; n < whole.size(); n++)
	{
		SocketFacts f;
		const bool ok = parse(Bytes(whole.begin(), whole.begin() + n), f);
		EXPECT_EQ(ok, n >= sizeof(inet_diag_msg)) << n;
		EXPECT_EQ(f.found, ok);
		// An attribute is used only if it is complete.
		EXPECT_EQ(f.info.received, n >= 72 + 8 + 284 ? 280U : 0U) << n;
		EXPECT_EQ(f.memory_count, n >= 72 + 8 + 284 + 40 ? 9 : 0) << n;
	}
}

TEST(InetDiagReply, StopsAtAnAttributeThatIsTooLong)
{
	for (const unsigned claimed : {5U, 8U, 9U, 100U, 0x7fffU, 0xffffU})
	{
		Bytes bytes = payload();
		append(bytes, INET_DIAG_INFO, {1, 2, 3, 4}, static_cast<std::uint16_t>(claimed));
		SocketFacts f;
		ASSERT_TRUE(parse(bytes, f));
		EXPECT_EQ(f.info.received, claimed <= 8 ? claimed - 4 : 0) << claimed;
	}
}

TEST(InetDiagReply, StopsAtAnAttributeThatIsTooShort)
{
	for (std::uint16_t claimed = 1; claimed < 4; claimed++)
	{
		Bytes bytes = payload();
		append(bytes, 77, {0, 0, 0, 0}, claimed);
		append(bytes, INET_DIAG_INFO, Bytes(104, 1));
		SocketFacts f;
		ASSERT_TRUE(parse(bytes, f));
		EXPECT_EQ(f.info.received, 0U);
	}
}

// An attribute that ends in the last, unpadded byte: the next one would begin after the
// end.
TEST(InetDiagReply, ReadsAnUnpaddedLastAttribute)
{
	for (std::size_t extra = 1; extra < 4; extra++)
	{
		Bytes bytes = payload();
		append(bytes, 77, Bytes(extra, 1));
		bytes.resize(sizeof(inet_diag_msg) + 4 + extra);
		SocketFacts f;
		EXPECT_TRUE(parse(bytes, f));
	}
}

TEST(InetDiagReply, ReadsUnexpectedAttributeContents)
{
	Bytes bytes = payload();
	append(bytes, INET_DIAG_CONG, Bytes(300, 'x'));     // not terminated, too long
	append(bytes, INET_DIAG_SKMEMINFO, Bytes(7, 0x02)); // not whole words
	append(bytes, INET_DIAG_INFO, Bytes(1000, 0x01));
	SocketFacts f;
	ASSERT_TRUE(parse(bytes, f));
	EXPECT_EQ(std::string(f.congestion), std::string(15, 'x'));
	EXPECT_EQ(f.memory_count, 1);
	EXPECT_EQ(f.info.received, 280U);

	bytes = payload();
	append(bytes, INET_DIAG_CONG, {});
	append(bytes, INET_DIAG_SKMEMINFO, Bytes(400, 0x02));
	append(bytes, INET_DIAG_INFO, {});
	ASSERT_TRUE(parse(bytes, f));
	EXPECT_STREQ(f.congestion, "");
	EXPECT_EQ(f.memory_count, 9);
	EXPECT_EQ(f.info.received, 0U);
}

TEST(InetDiagReply, ReadsUnknownStatesAndTimers)
{
	inet_diag_msg m = message();
	m.idiag_timer = 5; // delayed ACK
	m.idiag_state = 200;
	SocketFacts f;
	ASSERT_TRUE(parse(payload(m), f));
	EXPECT_EQ(f.timer, Timer::off);
	EXPECT_EQ(tcp_state_name(f.state), nullptr);

	m = message();
	m.idiag_family = AF_UNIX;
	EXPECT_FALSE(parse(payload(m), f));
	EXPECT_FALSE(f.found);
}

TEST(InetDiagReply, ReadsRandomBytes)
{
	std::mt19937 random(1);
	const Bytes whole = whole_reply();
	for (int i = 0; i < 20000; i++)
	{
		Bytes bytes = whole;
		for (int flips = 1 + static_cast<int>(random() % 8); flips > 0; flips--)
			bytes[random() % bytes.size()] = static_cast<unsigned char>(random());
		bytes.resize(random() % (bytes.size() + 1));
		SocketFacts f;
		parse(bytes, f);
		ASSERT_LE(f.info.received, sizeof(TcpInfo));
		ASSERT_LE(f.memory_count, memory_figure_count);
		ASSERT_EQ(f.congestion[15], 0);
	}
}

TEST(InetDiagRequest, IdentifiesTheSocketExactly)
{
	SocketId id{};
	id.local = {6, 5432, {0x20, 1}};
	id.remote = {6, 40000, {0x20, 2}};
	id.interface = 3;
	id.cookie = 0x0123456789abcdef;
	const inet_diag_req_v2 r = diag_request(id, {true, true, true});
	EXPECT_EQ(r.sdiag_family, AF_INET6);
	EXPECT_EQ(r.sdiag_protocol, IPPROTO_TCP);
	EXPECT_EQ(r.idiag_ext, 1 << (2 - 1) | 1 << (4 - 1) | 1 << (7 - 1));
	EXPECT_EQ(r.id.idiag_sport, htons(5432));
	EXPECT_EQ(r.id.idiag_dport, htons(40000));
	EXPECT_EQ(r.id.idiag_if, 3U);
	EXPECT_EQ(r.id.idiag_cookie[0], 0x89abcdefU);
	EXPECT_EQ(r.id.idiag_cookie[1], 0x01234567U);

	id.cookie = 0;
	const inet_diag_req_v2 none = diag_request(id, {false, false, false});
	EXPECT_EQ(none.idiag_ext, 0);
	EXPECT_EQ(none.id.idiag_cookie[0], INET_DIAG_NOCOOKIE);
	EXPECT_EQ(none.id.idiag_cookie[1], INET_DIAG_NOCOOKIE);
}

TEST(InetDiagIsWanted, ComparesCookieAndPorts)
{
	SocketId a{};
	a.local = {4, 5432, {127, 0, 0, 1}};
	a.remote = {4, 40000, {127, 0, 0, 1}};
	a.cookie = 5;
	SocketId b = a;
	EXPECT_TRUE(is_wanted(a, b));
	b.cookie = 6;
	EXPECT_FALSE(is_wanted(a, b));
	b = a;
	b.remote.port = 0; // the listener
	EXPECT_FALSE(is_wanted(a, b));
}

TEST(InetDiagIsWanted, ComparesAddressesWithoutACookie)
{
	SocketId a{};
	a.local = {4, 5432, {127, 0, 0, 1}};
	a.remote = {4, 40000, {10, 0, 0, 1}};
	SocketId b = a;
	b.cookie = 6;
	EXPECT_TRUE(is_wanted(a, b));
	b.local = {6, 5432, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}};
	b.remote = {6, 40000, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1}};
	EXPECT_TRUE(is_wanted(a, b)) << "IPv4-mapped";
	b.remote.address[15] = 2;
	EXPECT_FALSE(is_wanted(a, b));
}

TEST(InetDiagFilter, AcceptsOnlyTheGivenPorts)
{
	const std::vector<std::vector<std::uint16_t>> sets = {
		{5432},     {5432, 5433},    {5433, 5432, 5433, 6432},
		{0, 65535}, {1, 3, 5, 7, 9}, {100, 101, 102, 200, 65534, 65535},
	};
	for (const auto &ports : sets)
	{
		const auto program = local_port_filter(ports);
		const std::set<std::uint16_t> wanted(ports.begin(), ports.end());
		for (int port = 0; port <= 65535; port++)
			ASSERT_EQ(kernel_accepts(program, static_cast<std::uint16_t>(port)),
			          wanted.count(static_cast<std::uint16_t>(port)) > 0)
				<< port << " of " << ports.size();
	}
}

TEST(InetDiagFilter, MergesEqualAndAdjacentPorts)
{
	EXPECT_EQ(local_port_filter({9, 9}).size(), local_port_filter({9}).size());
	EXPECT_EQ(local_port_filter({1, 2, 3, 4, 5}).size(), local_port_filter({9}).size());
}

TEST(InetDiagFilter, IsEmptyWithoutPorts)
{
	EXPECT_TRUE(local_port_filter({}).empty());
}

TEST(InetDiagFilter, HoldsTheLongestJump)
{
	std::vector<std::uint16_t> ports;
	for (int i = 0; i < 3276; i++)
		ports.push_back(static_cast<std::uint16_t>(2 * i));
	const auto program = local_port_filter(ports);
	EXPECT_TRUE(kernel_accepts(program, 0));
	EXPECT_TRUE(kernel_accepts(program, 6550));
	EXPECT_FALSE(kernel_accepts(program, 6551));

	ports.push_back(60000);
	EXPECT_THROW(local_port_filter(ports), std::length_error);
}
