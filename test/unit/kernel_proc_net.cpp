// /proc/net/tcp and tcp6: lines of real kernels, unusual lines, and the running kernel's
// files compared with netlink's answers about the same sockets.
#include "kernel/proc_net.hpp"

#include "kernel/sock_diag.hpp"
#include "kernel_loopback.hpp"
#include "kernel_tree.hpp"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

using namespace guard;
using loopback::Connection;
using loopback::id_of;
using loopback::Listener;

namespace
{

constexpr const char *header =
	"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  "
	"timeout inode\n";

// As a little-endian machine prints them.
constexpr const char *listener_line =
	"   0: 00000000:1538 00000000:0000 0A 00000000:00000002 00:00000000 00000000   999 "
	"       0 31337 1 0000000000000000 100 0 0 10 0                      \n";
constexpr const char *probing_line =
	"  12: 0100007F:1538 0200000A:9C40 01 00000000:00000005 02:000001F4 00000000   999 "
	"       3 31338 2 0000000000000000 20 4 30 10 -1\n";
constexpr const char *retransmitting_line =
	"  13: 0100007F:1538 0300000A:9C41 01 00000100:00000000 01:0000000A 00000004   999 "
	"       2 31339 2 0000000000000000 20 4 30 10 -1\n";
constexpr const char *v6_line =
	"   1: 0000000000000000FFFF00000100007F:1538 0000000000000000FFFF00000200000A:9C42 "
	"08 "
	"00000000:00000001 00:00000000 00000000   999        0 31340 1 0000000000000000 20 4 "
	"30 10 -1\n";

SocketFacts parse(const std::string &line, long ticks = 100)
{
	SocketFacts facts;
	EXPECT_TRUE(parse_proc_net_line(line, ticks, facts)) << line;
	return facts;
}

bool fails(const std::string &line)
{
	SocketFacts facts;
	const bool ok = parse_proc_net_line(line, 100, facts);
	EXPECT_EQ(facts.found, ok);
	return !ok;
}

} // namespace

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
TEST(ProcNetLine, ReadsAListener)
{
	const SocketFacts f = parse(listener_line);
	EXPECT_EQ(f.state, TcpState::listen);
	EXPECT_EQ(f.id.local.family, 4);
	EXPECT_EQ(f.id.local.port, 5432);
	EXPECT_EQ(f.recv_queue, 2U);
	EXPECT_EQ(f.uid, 999U);
	EXPECT_EQ(f.inode, 31337U);
	EXPECT_EQ(f.id.cookie, 0U);
	EXPECT_EQ(f.info.received, 0U);
}

TEST(ProcNetLine, ReadsUnansweredProbes)
{
	const SocketFacts f = parse(probing_line);
	EXPECT_EQ(f.state, TcpState::established);
	EXPECT_EQ(f.timer, Timer::keepalive);
	EXPECT_EQ(f.timer_expires_ms, 5000U);
	EXPECT_EQ(f.retransmits, 3);
	EXPECT_EQ(f.recv_queue, 5U);
	EXPECT_EQ(f.send_queue, 0U);
	EXPECT_EQ(f.id.local.address[0], 127);
	EXPECT_EQ(f.id.remote.address[0], 10);
	EXPECT_EQ(f.id.remote.address[3], 2);
	EXPECT_EQ(f.id.remote.port, 40000);
	EXPECT_EQ(parse(probing_line, 1000).timer_expires_ms, 500U);
	EXPECT_EQ(parse(probing_line, 0).timer_expires_ms, UINT32_MAX) << "not known";
}

TEST(ProcNetLine, ReadsRetransmissions)
{
	const SocketFacts f = parse(retransmitting_line);
	EXPECT_EQ(f.timer, Timer::retransmit);
	EXPECT_EQ(f.retransmits, 4);
	EXPECT_EQ(f.send_queue, 256U);
}

TEST(ProcNetLine, ReadsAnIPv4MappedAddress)
{
	const SocketFacts f = parse(v6_line);
	EXPECT_EQ(f.state, TcpState::close_wait);
	EXPECT_EQ(f.id.local.family, 6);
	EXPECT_EQ(unmapped(f.id.remote).family, 4);
	EXPECT_EQ(unmapped(f.id.remote).address[0], 10);
}
#endif

TEST(ProcNetLine, ReadsUnusualLines)
{
	EXPECT_TRUE(fails(""));
	EXPECT_TRUE(fails("\n"));
	EXPECT_TRUE(fails(header));
	EXPECT_TRUE(fails("   0:"));
	EXPECT_TRUE(fails("   0: 00000000:1538"));
	EXPECT_TRUE(fails("   0: 0000000G:1538 00000000:0000 0A 0:0 0:0 0 0 0 0"));
	EXPECT_TRUE(fails("   0: 00000000:FFFFF 00000000:0000 0A 0:0 0:0 0 0 0 0"));
	EXPECT_TRUE(fails("   0: 000000000:1538 00000000:0000 0A 0:0 0:0 0 0 0 0"));
	EXPECT_TRUE(fails("   0: 0000000G:1538 0000000G:0000 0A 0:0 0:0 0 0 0 0"));
	EXPECT_TRUE(fails("   0: 000000000:1538 000000000:0000 0A 0:0 0:0 0 0 0 0"));
	EXPECT_TRUE(fails("   0: 00000000:1538 00000000:0000 FFF 0:0 0:0 0 0 0 0"));
	EXPECT_TRUE(fails("   0: 00000000:1538 00000000:0000 0A 00 0:0 0 0 0 0"));
	// Addresses of different families.
	const std::string zero(32, '0');
	EXPECT_TRUE(fails("   0: 00000000:1538 " + zero + ":0000 0A 0:0 0:0 0 0 0 0"));
	EXPECT_FALSE(fails("   0: " + zero + ":1538 " + zero + ":0000 0A 0:0 0:0 0 0 0 0"));
	// A negative number of probes, a timer that expires very late, an unknown timer.
	const SocketFacts f =
		parse("0: 00000000:1538 00000000:0000 01 0:0 02:FFFFFFFFFFFFFFFF 0 0 -1 0");
	EXPECT_EQ(f.retransmits, 0);
	EXPECT_EQ(f.timer_expires_ms, UINT32_MAX);
	EXPECT_EQ(parse("0: 00000000:1538 00000000:0000 01 0:0 09:0 0 0 0 0").timer,
	          Timer::off);
}

TEST(ProcNetLine, ReadsCutAndRandomLines)
{
	std::mt19937 random(1);
	const std::string whole = v6_line;
	for (std::size_t n = 0; n <= whole.size(); n++)
	{
		const std::vector<char> exact(whole.begin(), whole.begin() + n);
		SocketFacts facts;
		parse_proc_net_line({exact.data(), exact.size()}, 100, facts);
	}
	for (int i = 0; i < 20000; i++)
	{
		std::vector<char> noise(whole.begin(), whole.end());
		for (int flips = 1 + static_cast<int>(random() % 6); flips > 0; flips--)
			noise[random() % noise.size()] = static_cast<char>(random());
		SocketFacts facts;
		parse_proc_net_line({noise.data(), noise.size()}, 100, facts);
	}
}

TEST(ProcNetFile, FiltersByPortAndSkipsInvalidLines)
{
	const Tree tree;
	tree.write("proc/self/net/tcp", std::string(header) + listener_line + "rubbish\n" +
	                                    probing_line + "   0: 0000");
	EXPECT_EQ(read_proc_net_file(tree.root() + "/proc/self/net/tcp", {}).size(), 2U);
	EXPECT_EQ(read_proc_net_file(tree.root() + "/proc/self/net/tcp", {5432, 1}).size(),
	          2U);
	EXPECT_EQ(read_proc_net_file(tree.root() + "/proc/self/net/tcp", {5433}).size(), 0U);
	EXPECT_EQ(read_proc_net({}, tree.root()).size(), 2U) << "without tcp6";
	tree.write("proc/self/net/tcp6", std::string(header) + v6_line);
	EXPECT_EQ(read_proc_net({}, tree.root()).size(), 3U);
}

TEST(ProcNetFile, FailsWithTheErrnoOfTheSystemCall)
{
	const auto error = [](const Tree &tree)
	{
		try
		{
			read_proc_net({}, tree.root());
			return 0;
		}
		catch (const std::system_error &e)
		{
			return e.code().value();
		}
	};
	const Tree tree;
	EXPECT_EQ(error(tree), ENOENT);
	// A directory can be opened, and not be read.
	tree.write("proc/self/net/tcp/file", "");
	EXPECT_EQ(error(tree), EISDIR);
	const Tree only_v6;
	only_v6.write("proc/self/net/tcp", header);
	EXPECT_EQ(error(only_v6), 0);
	only_v6.write("proc/self/net/tcp6/file", "");
	EXPECT_EQ(error(only_v6), EISDIR);
}

TEST(ProcNet, AgreesWithNetlink)
{
	Listener listener;
	std::vector<Connection> connections;
	std::vector<SocketId> wanted;
	for (int i = 0; i < 50; i++)
	{
		connections.emplace_back(listener);
		Connection &c = connections.back();
		if (i % 2)
		{
			loopback::set(c.server, SOL_SOCKET, SO_KEEPALIVE, 1);
			loopback::set(c.server, IPPROTO_TCP, TCP_KEEPIDLE, 100 + i);
		}
		ASSERT_EQ(write(c.client, "hello", i % 5), i % 5);
		wanted.push_back(id_of(c.server));
	}
	const SocketId gone = wanted[9];
	connections[9].abort();

	SockDiag diag;
	std::vector<SocketFacts> netlink(wanted.size());
	diag.query(wanted.data(), wanted.size(), netlink.data(), {false, false, false});
	const auto by_port = read_proc_net({listener.port});
	EXPECT_EQ(by_port.size(), 50U); // the listener and 49 connections
	for (std::size_t i = 0; i < wanted.size(); i++)
	{
		const auto proc =
			std::find_if(by_port.begin(), by_port.end(),
		                 [&](const SocketFacts &facts)
		                 {
							 return same_endpoint(facts.id.local, wanted[i].local) &&
			                        same_endpoint(facts.id.remote, wanted[i].remote);
						 });
		ASSERT_EQ(proc != by_port.end(), wanted[i].cookie != gone.cookie) << i;
		ASSERT_EQ(proc != by_port.end(), netlink[i].found);
		if (!netlink[i].found)
			continue;
		EXPECT_EQ(proc->inode, netlink[i].inode);
		EXPECT_EQ(proc->state, netlink[i].state);
		EXPECT_EQ(proc->timer, netlink[i].timer);
		EXPECT_NEAR(proc->timer_expires_ms, netlink[i].timer_expires_ms, 1000.0);
		EXPECT_EQ(proc->recv_queue, netlink[i].recv_queue);
		EXPECT_EQ(proc->send_queue, netlink[i].send_queue);
		EXPECT_EQ(proc->uid, netlink[i].uid);
	}
	for (Connection &c : connections)
		c.abort();
}
