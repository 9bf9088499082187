// Finding sessions' sockets by process and client address, with and without netlink.
#include "kernel/read_sockets.hpp"
#include "kernel/session_sockets.hpp"
#include "kernel/sock_diag.hpp"

#include "kernel_loopback.hpp"
#include "kernel_process.hpp"

#include <algorithm>
#include <set>
#include <vector>

#include <gtest/gtest.h>

using namespace guard;
using loopback::Connection;
using loopback::id_of;
using loopback::inode_of;
using loopback::Listener;

namespace
{

constexpr Details everything = {true, true, true};

// What PostgreSQL knows of a session: its process, its client and the server's port.
SessionSocket as_postgresql_knows(int fd, pid_t pid = getpid())
{
	SessionSocket wanted = {pid, {}};
	wanted.id.remote = loopback::remote_address(fd).endpoint();
	wanted.id.local.port = loopback::local_address(fd).endpoint().port;
	return wanted;
}

// With and without netlink.
class SessionSockets : public testing::TestWithParam<bool>
{
  protected:
	SocketFacts find(const SessionSocket &wanted)
	{
		SocketFacts facts;
		find_session_sockets(GetParam() ? &diag : nullptr, &wanted, 1, &facts,
		                     everything);
		return facts;
	}

	SockDiag diag;
};

INSTANTIATE_TEST_SUITE_P(Netlink, SessionSockets, testing::Values(true),
                         [](const auto &) { return "Allowed"; });
INSTANTIATE_TEST_SUITE_P(NoNetlink, SessionSockets, testing::Values(false),
                         [](const auto &) { return "Refused"; });

} // namespace

TEST_P(SessionSockets, AreFoundByProcessAndClient)
{
	for (const char *ip : {"127.0.0.1", "::1"})
	{
		Listener listener(ip);
		Connection c(listener, ip);
		const SocketFacts f = find(as_postgresql_knows(c.server));
		ASSERT_TRUE(f.found) << ip;
		EXPECT_EQ(f.inode, inode_of(c.server));
		EXPECT_TRUE(same_endpoint(f.id.local, id_of(c.server).local));
		EXPECT_EQ(f.info.received > 0, GetParam());
		EXPECT_EQ(f.congestion[0] != '\0', GetParam());
	}
}

TEST_P(SessionSockets, AreFoundByCookie)
{
	Listener listener;
	Connection c(listener);
	const SocketFacts f = find({getpid(), id_of(c.server)});
	ASSERT_TRUE(f.found);
	EXPECT_EQ(f.inode, inode_of(c.server));
}

// As from a dual-stack listener.  PostgreSQL may have the client's address in either
// form.
TEST_P(SessionSockets, FindAnIPv4MappedClient)
{
	Listener listener("::", true);
	Connection c(listener, "127.0.0.1");
	const SessionSocket wanted = as_postgresql_knows(c.server);
	ASSERT_EQ(wanted.id.remote.family, 6);
	EXPECT_EQ(find(wanted).inode, inode_of(c.server));
}

// One client address and port may be connected to two addresses of a server, or to two
// servers with the same port.
TEST_P(SessionSockets, TellApartTwoConnectionsOfOneClientPort)
{
	Listener first("127.0.0.1");
	Listener second("127.0.0.2", false, 0, first.port);
	const std::uint16_t port = Listener().port; // a free one
	Connection a(first, "127.0.0.1", 0, port);
	Connection b(second, "127.0.0.2", 0, port);
	ASSERT_TRUE(same_endpoint(loopback::remote_address(a.server).endpoint(),
	                          loopback::remote_address(b.server).endpoint()));

	// Another process that holds only the second socket.
	Process other([&] { a.server.close(); });
	b.server.close();
	const SessionSocket of_a = as_postgresql_knows(a.server);
	SessionSocket of_b = of_a;
	of_b.pid = other.pid;
	const SocketFacts found_a = find(of_a);
	const SocketFacts found_b = find(of_b);
	ASSERT_TRUE(found_a.found);
	ASSERT_TRUE(found_b.found);
	EXPECT_EQ(found_a.inode, inode_of(a.server));
	EXPECT_NE(found_b.inode, found_a.inode);
	EXPECT_EQ(found_b.id.local.address[3], 2);
}

TEST_P(SessionSockets, DoNotFindAnotherProcessesSocket)
{
	Listener listener;
	Connection c(listener);
	Process other([&] { c.server.close(); });
	const SocketFacts f = find(as_postgresql_knows(c.server, other.pid));
	EXPECT_FALSE(f.found);
	EXPECT_EQ(f.state, TcpState::close);
	EXPECT_TRUE(find(as_postgresql_knows(c.server)).found);
}

TEST_P(SessionSockets, FindAConnectionThatTheKernelHasGivenUp)
{
	Listener listener;
	Connection c(listener);
	const SessionSocket by_client = as_postgresql_knows(c.server);
	const SessionSocket by_cookie = {getpid(), id_of(c.server)};
	const linger now = {1, 0};
	setsockopt(c.client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	c.client.close();
	for (const SessionSocket &wanted : {by_client, by_cookie})
	{
		const SocketFacts f = find(wanted);
		EXPECT_FALSE(f.found);
		EXPECT_EQ(f.state, TcpState::close);
	}

	// A new connection with the same addresses is not confused with it.
	Connection successor(listener, "127.0.0.1", 0, by_client.id.remote.port);
	EXPECT_EQ(find(by_client).inode, inode_of(successor.server))
		<< "this process holds it too";
	Process other([&] { successor.server.close(); });
	SessionSocket of_other = by_client;
	of_other.pid = other.pid;
	EXPECT_FALSE(find(of_other).found);
	if (GetParam())
	{
		EXPECT_FALSE(find(by_cookie).found);
	}
}

TEST_P(SessionSockets, FindNothingForAnEndedProcess)
{
	Listener listener;
	Connection c(listener);
	Process other([] {});
	const pid_t ended = other.pid;
	other.end();
	const SocketFacts f = find(as_postgresql_knows(c.server, ended));
	EXPECT_FALSE(f.found);
	EXPECT_EQ(f.state, TcpState::unknown);
}

TEST_P(SessionSockets, FindManySocketsOfEachKind)
{
	Listener v4;
	Listener v6("::1");
	std::vector<Connection> connections;
	std::vector<SessionSocket> wanted;
	for (int i = 0; i < 150; i++)
	{
		if (i % 2)
			connections.emplace_back(v6, "::1");
		else
			connections.emplace_back(v4);
		const int fd = connections.back().server;
		wanted.push_back(i % 3 ? as_postgresql_knows(fd)
		                       : SessionSocket{getpid(), id_of(fd)});
	}
	wanted.insert(wanted.begin() + 75, SessionSocket{getpid(), {}}); // no socket
	connections.insert(connections.begin() + 75, Connection(v4));
	std::vector<SocketFacts> facts(wanted.size());
	find_session_sockets(GetParam() ? &diag : nullptr, wanted.data(), wanted.size(),
	                     facts.data(), everything);
	for (std::size_t i = 0; i < facts.size(); i++)
	{
		EXPECT_EQ(facts[i].found, i != 75) << i;
		if (i != 75)
		{
			EXPECT_EQ(facts[i].inode, inode_of(connections[i].server)) << i;
		}
	}
	EXPECT_EQ(facts[75].state, TcpState::unknown);
}

TEST(ReadSessionSockets, ClosesAllWhoseCookiesAreGone)
{
	Listener listener;
	Connection c(listener);
	SessionSocket gone = {getpid(), id_of(c.server)};
	gone.id.cookie += 1000000;
	const std::vector<SessionSocket> wanted(2, gone);
	std::vector<SocketFacts> facts(wanted.size());
	SockDiag diag;
	find_session_sockets(&diag, wanted.data(), wanted.size(), facts.data(), everything);
	for (const SocketFacts &f : facts)
	{
		EXPECT_FALSE(f.found);
		EXPECT_EQ(f.state, TcpState::close);
	}
}

// read_session_sockets() reports that netlink is refused, and returns the sockets.
TEST(ReadSessionSockets, WorksWithoutNetlink)
{
	Listener listener;
	Connection c(listener);
	const SessionSocket wanted = as_postgresql_knows(c.server);
	const auto in_sandbox = [&]
	{
		refuse_netlink_sockets(EPERM);
		SocketFacts facts;
		SessionSocket own = wanted;
		own.pid = getpid();
		const ReadOutcome outcome = read_session_sockets(&own, 1, &facts, everything);
		_exit(outcome.kind != ReadOutcome::refused ? 2
		      : outcome.error != EPERM             ? 3
		      : !facts.found                       ? 4
		      : facts.inode != inode_of(c.server)  ? 5
		                                           : 0);
	};
	// In a new process, because this one may have a netlink socket already.
	GTEST_FLAG_SET(death_test_style, "threadsafe");
	EXPECT_EXIT(in_sandbox(), testing::ExitedWithCode(0), "");
}

namespace
{

// The inodes of this process's netlink sockets.
std::set<std::uint32_t> netlink_sockets()
{
	std::set<std::uint32_t> inodes;
	for (int fd = 0; fd < 1024; ++fd)
	{
		int family = 0;
		socklen_t length = sizeof(family);
		if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) == 0 &&
		    family == AF_NETLINK)
			inodes.insert(inode_of(fd));
	}
	return inodes;
}

} // namespace

// With one socket for both, each process would read answers to the other.
TEST(ReadSessionSockets, HasANetlinkSocketOfItsOwnInAForkedProcess)
{
	Listener listener;
	Connection c(listener);
	const auto found = [&]
	{
		const SessionSocket own = {getpid(), id_of(c.server)};
		SocketFacts facts;
		return read_session_sockets(&own, 1, &facts, everything).kind ==
		           ReadOutcome::ok &&
		       facts.found;
	};
	ASSERT_TRUE(found());
	const auto of_parent = netlink_sockets();
	ASSERT_TRUE(found());
	EXPECT_EQ(netlink_sockets(), of_parent) << "it is kept";
	ASSERT_FALSE(of_parent.empty());

	const pid_t child = fork();
	if (child == 0)
	{
		const bool first = found();
		const auto of_child = netlink_sockets();
		_exit(!first                                ? 2
		      : of_child.size() != of_parent.size() ? 3
		      : of_child == of_parent               ? 4
		      : !found()                            ? 5
		      : netlink_sockets() != of_child       ? 6
		                                            : 0);
	}
	int status = -1;
	waitpid(child, &status, 0);
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(WEXITSTATUS(status), 0);
}
