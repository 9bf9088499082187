// The sockets of a server: here a process with children, in place of a postmaster and its
// backends.
#include "kernel/read_sockets.hpp"
#include "kernel/server_sockets.hpp"
#include "kernel/sock_diag.hpp"

#include "kernel_loopback.hpp"
#include "kernel_process.hpp"

#include <algorithm>
#include <cstdlib>
#include <set>

#include <gtest/gtest.h>
#include <sys/mman.h>

using namespace guard;
using loopback::Connection;
using loopback::inode_of;
using loopback::Listener;

namespace
{

// The socket with this inode.  It must be present exactly once.
const ServerSocket *find(const std::vector<ServerSocket> &sockets, std::uint32_t inode)
{
	const ServerSocket *found = nullptr;
	for (const ServerSocket &s : sockets)
		if (s.facts.inode == inode)
		{
			EXPECT_EQ(found, nullptr) << "present twice";
			found = &s;
		}
	return found;
}

class ServerSockets : public testing::TestWithParam<bool>
{
  protected:
	std::vector<ServerSocket> sockets(std::uint16_t server_port,
	                                  std::vector<pid_t> known_pids = {})
	{
		SockDiag diag;
		return find_server_sockets(GetParam() ? &diag : nullptr, getpid(), known_pids,
		                           server_port);
	}
};

INSTANTIATE_TEST_SUITE_P(Netlink, ServerSockets, testing::Values(true),
                         [](const auto &) { return "Allowed"; });
INSTANTIATE_TEST_SUITE_P(NoNetlink, ServerSockets, testing::Values(false),
                         [](const auto &) { return "Refused"; });

} // namespace

TEST_P(ServerSockets, HasListenersClientsAndOutboundSockets)
{
	Listener listener;         // of the "postmaster", inherited by all children
	Listener elsewhere("::1"); // of another server
	Connection client(listener);
	Connection outbound(elsewhere, "::1");
	Process backend(
		[&]
		{
			client.client.close();
			outbound.server.close();
		});
	Process idle(
		[&]
		{
			client.client.close();
			client.server.close();
			outbound.client.close();
			outbound.server.close();
		});

	const auto found = sockets(listener.port);
	const ServerSocket *s = find(found, inode_of(listener.fd));
	ASSERT_NE(s, nullptr);
	EXPECT_EQ(s->pid, getpid());
	EXPECT_EQ(s->kind, SocketKind::listener);
	if (GetParam())
	{
		EXPECT_EQ(s->facts.send_queue, 4096U);
	}

	s = find(found, inode_of(client.server));
	ASSERT_NE(s, nullptr);
	EXPECT_EQ(s->pid, backend.pid);
	EXPECT_EQ(s->kind, SocketKind::client);

	s = find(found, inode_of(outbound.client));
	ASSERT_NE(s, nullptr);
	EXPECT_EQ(s->pid, backend.pid);
	EXPECT_EQ(s->kind, SocketKind::outbound);
	EXPECT_EQ(s->facts.id.remote.port, elsewhere.port);

	EXPECT_EQ(find(found, inode_of(outbound.server)), nullptr)
		<< "a connection accepted, without a backend yet";
	EXPECT_TRUE(std::none_of(found.begin(), found.end(),
	                         [&](const ServerSocket &x) { return x.pid == idle.pid; }));
}

// The list of children may be incomplete.
TEST(FindServerSockets, LooksAtProcessesThatTheCallerKnows)
{
	Listener listener;
	Connection c(listener);
	const int result = with_failing_calls(
		SYS_openat,
		[&](FailingCalls &failing)
		{
			SockDiag diag;
			Process backend([&] { c.client.close(); });
			c.server.close();
			const auto has_backend = [&](const std::vector<pid_t> &known_pids)
			{
				failing.fail(EMFILE, 1); // that of the list
				const std::vector<ServerSocket> found =
					find_server_sockets(&diag, getpid(), known_pids, listener.port);
				return std::any_of(found.begin(), found.end(),
			                       [&](const ServerSocket &socket)
			                       { return socket.pid == backend.pid; });
			};
			return has_backend({})               ? 1
		           : !has_backend({backend.pid}) ? 2
		           : has_backend({getppid()})    ? 3
		                                         : 0;
		});
	expect_success(result);
}

// Its pid may belong to an unrelated process then.
TEST(FindServerSockets, LeavesOutAChildThatEndsMeanwhile)
{
	Listener listener;
	Connection first(listener);
	Connection second(listener);
	const int result = with_failing_calls(
		SYS_recvmsg,
		[&](FailingCalls &failing)
		{
			SockDiag diag;
			Process ends([&] { second.server.close(); });
			Process stays([&] { first.server.close(); });
			first.server.close();
			second.server.close();
			const auto pids = [&]
			{
				std::set<pid_t> found;
				for (const ServerSocket &socket :
			         find_server_sockets(&diag, getpid(), {}, listener.port))
					found.insert(socket.pid);
				return found;
			};
			if (pids() != std::set<pid_t>{getpid(), ends.pid, stays.pid})
				return 1;
			failing.precede([&] { ends.end(); });
			return pids() == std::set<pid_t>{getpid(), stays.pid} ? 0 : 2;
		});
	expect_success(result);
}

TEST_P(ServerSockets, FindsListenersAlone)
{
	Listener listener;
	Connection client(listener);
	SockDiag diag;
	const auto found = find_listeners(GetParam() ? &diag : nullptr, getpid());
	const ServerSocket *s = find(found, inode_of(listener.fd));
	ASSERT_NE(s, nullptr);
	EXPECT_EQ(s->pid, getpid());
	EXPECT_EQ(s->facts.recv_queue, 0U);
	if (GetParam())
	{
		EXPECT_EQ(s->facts.send_queue, 4096U);
	}
	EXPECT_TRUE(std::all_of(found.begin(), found.end(),
	                        [](const ServerSocket &x) {
								return x.kind == SocketKind::listener &&
		                               x.facts.state == TcpState::listen;
							}));
}

TEST_P(ServerSockets, SkipsAListenerThatIsClosed)
{
	Listener listener;
	Connection client(listener);
	const std::uint16_t port = listener.port;
	listener.fd.close();
	Process backend([&] { client.client.close(); });
	const auto found = sockets(port);
	const ServerSocket *s = find(found, inode_of(client.server));
	ASSERT_NE(s, nullptr);
	EXPECT_EQ(s->kind, SocketKind::client);
	const auto unknown_port = sockets(1);
	s = find(unknown_port, inode_of(client.server));
	ASSERT_NE(s, nullptr);
	EXPECT_EQ(s->kind, SocketKind::outbound);
}

// Neither a grandchild nor an unrelated process is one of the server's processes.
TEST_P(ServerSockets, HasOnlySocketsOfTheServersProcesses)
{
	Listener listener;
	Connection c(listener);
	auto *grandchild =
		static_cast<pid_t *>(mmap(nullptr, sizeof(pid_t), PROT_READ | PROT_WRITE,
	                              MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	Process child(
		[&]
		{
			Process *own = new Process([] {});
			*grandchild = own->pid;
			c.server.close();
			c.client.close();
			listener.fd.close();
		});
	ASSERT_GT(*grandchild, 0);
	const auto found = sockets(listener.port, {*grandchild, child.pid, 1});
	EXPECT_TRUE(std::none_of(found.begin(), found.end(),
	                         [&](const ServerSocket &s)
	                         { return s.pid == *grandchild || s.pid == 1; }));
	EXPECT_EQ(find(found, inode_of(c.server)), nullptr);
	kill(*grandchild, SIGKILL);
	munmap(grandchild, sizeof(pid_t));
}

TEST(ReadServerSockets, ReturnsAnArrayToFree)
{
	Listener listener;
	ServerSocket *sockets;
	std::size_t count;
	const ReadOutcome outcome =
		read_server_sockets(getpid(), nullptr, 0, listener.port, &sockets, &count);
	EXPECT_EQ(outcome.kind, ReadOutcome::ok);
	EXPECT_EQ(outcome.error, 0);
	EXPECT_TRUE(std::any_of(sockets, sockets + count,
	                        [&](const ServerSocket &s)
	                        { return s.facts.inode == inode_of(listener.fd); }));
	std::free(sockets);
}

TEST(ReadServerSockets, WorksWithoutNetlink)
{
	Listener listener;
	const auto in_sandbox = [&]
	{
		refuse_netlink_sockets(EAFNOSUPPORT);
		ServerSocket *sockets;
		std::size_t count;
		const ReadOutcome outcome =
			read_server_sockets(getpid(), nullptr, 0, listener.port, &sockets, &count);
		const bool found = std::any_of(sockets, sockets + count,
		                               [&](const ServerSocket &s) {
										   return s.facts.inode == inode_of(listener.fd);
									   });
		std::free(sockets);
		_exit(outcome.kind != ReadOutcome::refused ? 2 : found ? 0 : 3);
	};
	// In a new process, because this one may have a netlink socket already.
	GTEST_FLAG_SET(death_test_style, "threadsafe");
	EXPECT_EXIT(in_sandbox(), testing::ExitedWithCode(0), "");
}

TEST(ReadListeners, ReturnsAnArrayOrNothing)
{
	ServerSocket *sockets;
	std::size_t count;
	{
		Listener listener;
		Connection c(listener);
		EXPECT_EQ(read_listeners(getpid(), &sockets, &count).kind, ReadOutcome::ok);
		ASSERT_EQ(count, 1U);
		EXPECT_EQ(sockets->facts.inode, inode_of(listener.fd));
		EXPECT_EQ(sockets->kind, SocketKind::listener);
		std::free(sockets);
	}
	EXPECT_EQ(read_listeners(getpid(), &sockets, &count).kind, ReadOutcome::ok);
	EXPECT_EQ(count, 0U);
	EXPECT_EQ(sockets, nullptr);
}
