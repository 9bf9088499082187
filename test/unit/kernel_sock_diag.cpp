// SockDiag with the running kernel and sockets of this process.
#include "kernel/sock_diag.hpp"

#include "kernel_loopback.hpp"
#include "kernel_namespace.hpp"
#include "kernel_process.hpp"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>
#include <sys/resource.h>

using namespace guard;
using loopback::connect_times;
using loopback::Connection;
using loopback::id_of;
using loopback::ids_of;
using loopback::inode_of;
using loopback::Listener;

namespace
{

constexpr Details everything = {true, true, true};

SocketFacts ask(SockDiag &diag, const SocketId &id, Details details = everything)
{
	SocketFacts facts;
	diag.query(&id, 1, &facts, details);
	return facts;
}

bool has_ipv6()
{
	try
	{
		Listener listener("::1");
		return true;
	}
	catch (const std::system_error &)
	{
		return false;
	}
}

} // namespace

TEST(SockDiagQuery, FindsAnIPv4Socket)
{
	Listener listener;
	Connection c(listener);
	loopback::set(c.server, SOL_SOCKET, SO_KEEPALIVE, 1);
	loopback::set(c.server, IPPROTO_TCP, TCP_KEEPIDLE, 100);
	ASSERT_EQ(write(c.client, "hello", 5), 5);

	SockDiag diag;
	const SocketFacts f = ask(diag, id_of(c.server));
	ASSERT_TRUE(f.found);
	EXPECT_EQ(f.state, TcpState::established);
	EXPECT_EQ(f.timer, Timer::keepalive);
	EXPECT_GT(f.timer_expires_ms, 90000U);
	EXPECT_LT(f.timer_expires_ms, 120000U);
	EXPECT_EQ(f.retransmits, 0);
	EXPECT_EQ(f.recv_queue, 5U);
	EXPECT_EQ(f.send_queue, 0U);
	EXPECT_EQ(f.uid, geteuid());
	EXPECT_EQ(f.inode, inode_of(c.server));
	EXPECT_EQ(f.id.cookie, loopback::cookie(c.server));
	EXPECT_TRUE(same_endpoint(f.id.local, id_of(c.server).local));
	EXPECT_TRUE(same_endpoint(f.id.remote, id_of(c.server).remote));
	EXPECT_GE(f.info.received, 192U);
	EXPECT_EQ(f.info.state, 1);
	EXPECT_EQ(f.info.bytes_received, 5U);
	EXPECT_EQ(f.memory_count, 9);
	EXPECT_GT(f.memory[1], 0U) << "rcvbuf";

	char congestion[16] = {};
	socklen_t length = sizeof(congestion);
	getsockopt(c.server, IPPROTO_TCP, TCP_CONGESTION, congestion, &length);
	EXPECT_STREQ(f.congestion, congestion);
}

TEST(SockDiagQuery, ReturnsOnlyTheRequestedDetails)
{
	Listener listener;
	Connection c(listener);
	SockDiag diag;
	const SocketFacts f = ask(diag, id_of(c.server), {false, false, false});
	ASSERT_TRUE(f.found);
	EXPECT_EQ(f.timer, Timer::off) << "SO_KEEPALIVE is off";
	EXPECT_EQ(f.info.received, 0U);
	EXPECT_STREQ(f.congestion, "");
	EXPECT_EQ(f.memory_count, 0);
}

TEST(SockDiagQuery, FindsAnIPv6Socket)
{
	if (!has_ipv6())
		GTEST_SKIP() << "IPv6 is not available";
	Listener listener("::1");
	Connection c(listener, "::1");
	SockDiag diag;
	const SocketFacts f = ask(diag, id_of(c.server));
	ASSERT_TRUE(f.found);
	EXPECT_EQ(f.id.local.family, 6);
	EXPECT_EQ(f.inode, inode_of(c.server));
}

// By its IPv4-mapped addresses and by the IPv4 addresses.
TEST(SockDiagQuery, FindsAnIPv4MappedSocket)
{
	if (!has_ipv6())
		GTEST_SKIP() << "IPv6 is not available";
	Listener listener("::", true);
	Connection c(listener, "127.0.0.1");
	SocketId id = id_of(c.server);
	ASSERT_EQ(id.local.family, 6);
	SockDiag diag;
	EXPECT_EQ(ask(diag, id).inode, inode_of(c.server));

	id.local = unmapped(id.local);
	id.remote = unmapped(id.remote);
	ASSERT_EQ(id.local.family, 4);
	EXPECT_EQ(ask(diag, id).inode, inode_of(c.server));
	id.cookie = 0;
	EXPECT_EQ(ask(diag, id).inode, inode_of(c.server));
}

TEST(SockDiagQuery, DoesNotFindAWrongCookie)
{
	Listener listener;
	Connection c(listener);
	SocketId id = id_of(c.server);
	SockDiag diag;
	id.cookie++;
	EXPECT_FALSE(ask(diag, id).found);
	id.cookie = 0;
	EXPECT_TRUE(ask(diag, id).found) << "without a cookie the addresses are compared";
}

TEST(SockDiagQuery, DoesNotReturnTheListenerOfAClosedConnection)
{
	Listener listener;
	Connection c(listener);
	SocketId id = id_of(c.server);
	c.abort();
	SockDiag diag;
	EXPECT_FALSE(ask(diag, id).found);
	id.cookie = 0; // now the kernel does answer with the listener
	const SocketFacts f = ask(diag, id);
	EXPECT_FALSE(f.found);
	EXPECT_EQ(f.inode, 0U);
}

TEST(SockDiagQuery, ReadsAListenersQueue)
{
	Listener listener;
	Connection accepted(listener);
	loopback::Address address = loopback::Address::of("127.0.0.1", listener.port);
	loopback::Fd waiting(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	ASSERT_EQ(connect(waiting, address.raw(), address.length), 0);

	SocketId id{};
	id.local = loopback::local_address(listener.fd).endpoint();
	id.remote.family = 4;
	id.cookie = loopback::cookie(listener.fd);
	SockDiag diag;
	const SocketFacts f = ask(diag, id);
	ASSERT_TRUE(f.found);
	EXPECT_EQ(f.state, TcpState::listen);
	EXPECT_EQ(f.recv_queue, 1U);
	EXPECT_GT(f.send_queue, 1U);
}

TEST(SockDiagQuery, ReadsUnreadAndUnacknowledgedBytes)
{
	Listener listener;
	Connection c(listener);
	// The client does not read: its window closes, and the persist or the retransmission
	// timer runs.
	loopback::set(c.server, SOL_SOCKET, SO_SNDBUF, 1 << 20);
	std::string data(1 << 16, 'x');
	while (send(c.server, data.data(), data.size(), MSG_DONTWAIT) > 0)
		;
	usleep(300000);
	SockDiag diag;
	const SocketFacts f = ask(diag, id_of(c.server));
	ASSERT_TRUE(f.found);
	EXPECT_GT(f.send_queue, 0U);
	EXPECT_EQ(f.timer, Timer::persist);
}

TEST(SockDiagQuery, ReadsTheStateAfterAFin)
{
	Listener listener;
	Connection c(listener);
	c.client.close();
	usleep(10000);
	SockDiag diag;
	EXPECT_EQ(ask(diag, id_of(c.server)).state, TcpState::close_wait);
}

// Without network: probes of an idle connection, retransmissions of a busy one.
TEST(SockDiagQuery, ReadsProbesAndRetransmissions)
{
	const int result = OwnNetwork::run(
		[](OwnNetwork &network)
		{
			Listener listener;
			Connection idle(listener);
			Connection busy(listener);
			for (const int fd : {int{idle.server}, int{busy.server}})
			{
				loopback::set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
				loopback::set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
				loopback::set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
			}
			network.loopback_up(false);
			if (write(busy.server, "x", 1) != 1)
				return 1;
			usleep(2600000);

			const SocketId wanted[] = {id_of(idle.server), id_of(busy.server)};
			SocketFacts answers[2];
			SockDiag diag;
			diag.query(wanted, 2, answers, {});
			const auto &[silent, sending] = answers;
			if (silent.timer != Timer::keepalive || silent.retransmits < 1 ||
		        silent.info.probes != silent.retransmits || silent.info.retransmits != 0)
				return 2;
			if (sending.timer != Timer::retransmit || sending.retransmits < 1 ||
		        sending.info.retransmits != sending.retransmits ||
		        sending.send_queue != 1)
				return 3;
			return 0;
		});
	if (result == OwnNetwork::not_allowed)
		GTEST_SKIP() << "cannot create a network namespace";
	EXPECT_EQ(result, 0);
}

TEST(SockDiagQuery, DoesNotFindASocketWithoutAFamily)
{
	Listener listener;
	Connection c(listener);
	const SocketId wanted[] = {SocketId{}, id_of(c.server), SocketId{}};
	SocketFacts answers[3];
	SockDiag diag;
	diag.query(wanted, 3, answers, {});
	EXPECT_FALSE(answers[0].found);
	EXPECT_TRUE(answers[1].found);
	EXPECT_FALSE(answers[2].found);
	diag.query(wanted, 0, answers, {});
}

TEST(SockDiagQuery, OverwritesWhatTheAnswersWere)
{
	Listener listener;
	Connection c(listener);
	SocketId ids[3] = {id_of(c.server), id_of(c.server), id_of(c.server)};
	SocketFacts answers[3];
	SockDiag diag;
	diag.query(ids, 3, answers, everything);
	EXPECT_TRUE(answers[2].found);
	ids[1].local.family = ids[2].local.family = 0;
	diag.query(ids, 3, answers, everything);
	EXPECT_TRUE(answers[0].found);
	EXPECT_FALSE(answers[1].found);
	EXPECT_FALSE(answers[2].found);
}

TEST(SockDiagQuery, ReturnsAThousandSocketsInOrder)
{
	rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 2100)
		GTEST_SKIP() << "the limit of open files is too low";

	Listener listener;
	auto connections = connect_times(1000, listener);
	auto wanted = ids_of(connections);
	std::vector<std::uint32_t> inodes;
	for (int i = 0; i < 1000; i++)
	{
		inodes.push_back(inode_of(connections[i].server));
		if (i % 10 == 3)
		{
			connections[i].abort();
			inodes.back() = 0;
		}
		else if (i % 10 == 4)
		{
			wanted[i].cookie += 1000000;
			inodes.back() = 0;
		}
	}

	SockDiag diag;
	std::vector<SocketFacts> answers(wanted.size());
	for (int round = 0; round < 3; round++)
	{
		diag.query(wanted.data(), wanted.size(), answers.data(), everything);
		for (int i = 0; i < 1000; i++)
		{
			ASSERT_EQ(answers[i].found, inodes[i] != 0) << i;
			ASSERT_EQ(answers[i].inode, inodes[i]) << i;
		}
	}
	for (Connection &c : connections)
		c.abort();
}

// With a small receive buffer the kernel drops most replies of a batch.
TEST(SockDiagQuery, RepeatsLostRequests)
{
	Listener listener;
	auto connections = connect_times(200, listener);
	auto wanted = ids_of(connections);
	std::vector<SocketFacts> answers(wanted.size());
	SockDiag smallest(1); // has room for one
	smallest.query(wanted.data(), wanted.size(), answers.data(), everything);
	for (std::size_t i = 0; i < wanted.size(); i++)
		ASSERT_EQ(answers[i].inode, inode_of(connections[i].server)) << i;
	SockDiag diag(4096);
	diag.query(wanted.data(), wanted.size(), answers.data(), everything);
	for (std::size_t i = 0; i < wanted.size(); i++)
		ASSERT_EQ(answers[i].inode, inode_of(connections[i].server)) << i;

	DumpFilter filter;
	filter.local_ports = {listener.port};
	EXPECT_EQ(diag.dump(filter).size(), 201U);
	for (Connection &c : connections)
		c.abort();
}

TEST(SockDiagDump, FiltersByPortsAndStates)
{
	Listener a;
	Listener b;
	Listener other;
	Connection on_a(a);
	Connection on_b(b);
	Connection on_other(other);

	SockDiag diag;
	DumpFilter filter;
	filter.local_ports = {b.port, a.port};
	std::set<std::uint32_t> inodes;
	for (const SocketFacts &f : diag.dump(filter))
	{
		EXPECT_TRUE(f.id.local.port == a.port || f.id.local.port == b.port);
		inodes.insert(f.inode);
	}
	const std::set<std::uint32_t> all = {inode_of(a.fd), inode_of(b.fd),
	                                     inode_of(on_a.server), inode_of(on_b.server)};
	EXPECT_EQ(inodes, all);

	filter.states = state_bit(TcpState::listen);
	EXPECT_EQ(diag.dump(filter).size(), 2U);
	filter.states = ~(state_bit(TcpState::listen) | state_bit(TcpState::time_wait));
	EXPECT_EQ(diag.dump(filter).size(), 2U);
}

TEST(SockDiagDump, CanLeaveOutTimeWait)
{
	Listener listener;
	{
		Connection c(listener);
		c.server.close(); // closes first: TIME_WAIT on the listener's port
		usleep(10000);
		c.client.close();
		usleep(10000);
	}
	SockDiag diag;
	DumpFilter filter;
	filter.local_ports = {listener.port};
	const auto all = diag.dump(filter);
	EXPECT_EQ(std::count_if(all.begin(), all.end(),
	                        [](const SocketFacts &f)
	                        { return f.state == TcpState::time_wait; }),
	          1);
	filter.states = ~state_bit(TcpState::time_wait);
	EXPECT_EQ(diag.dump(filter).size(), 1U);
}

TEST(SockDiagDump, HasIPv4MappedSocketsInIPv6)
{
	if (!has_ipv6())
		GTEST_SKIP() << "IPv6 is not available";
	Listener listener("::", true);
	Connection c(listener, "127.0.0.1");
	SockDiag diag;
	DumpFilter filter;
	filter.local_ports = {listener.port};
	filter.states = state_bit(TcpState::established);
	filter.family = 6;
	const auto found = diag.dump(filter);
	ASSERT_EQ(found.size(), 1U);
	EXPECT_EQ(found[0].inode, inode_of(c.server));
	EXPECT_EQ(found[0].id.cookie, loopback::cookie(c.server));
}

// More than one read of the dump, then exact requests over the same netlink socket.
TEST(SockDiagDump, ReturnsManySocketsAndAllowsAQueryAfterwards)
{
	Listener listener;
	auto connections = connect_times(300, listener);
	SockDiag diag;
	DumpFilter filter;
	filter.local_ports = {listener.port};
	filter.details = everything;
	EXPECT_EQ(diag.dump(filter).size(), 301U);
	EXPECT_TRUE(ask(diag, id_of(connections[299].server)).found);

	filter.local_ports.clear();
	EXPECT_GE(diag.dump(filter).size(), 601U);
	for (Connection &c : connections)
		c.abort();
}

TEST(SockDiagDump, WorksWithManyPorts)
{
	Listener listener;
	SockDiag diag;
	DumpFilter filter;
	for (int i = 0; i < 1000; i++)
		filter.local_ports.push_back(static_cast<std::uint16_t>(2 * i + 1));
	filter.local_ports.push_back(listener.port);
	filter.states = state_bit(TcpState::listen);
	const auto found = diag.dump(filter);
	EXPECT_TRUE(std::any_of(found.begin(), found.end(),
	                        [&](const SocketFacts &f)
	                        { return f.id.local.port == listener.port; }));
}

TEST(SockDiag, CanBeOpenedManyTimesAndMoved)
{
	Listener listener;
	Connection c(listener);
	SockDiag a;
	SockDiag b;
	SockDiag moved = std::move(a);
	EXPECT_TRUE(ask(moved, id_of(c.server)).found);
	a = std::move(b);
	EXPECT_TRUE(ask(a, id_of(c.server)).found);
}

TEST(SockDiag, ReportsARefusal)
{
	for (const int error : {EPERM, EACCES, EAFNOSUPPORT, EPROTONOSUPPORT, ENOENT})
		EXPECT_TRUE(SockDiagError(error, "").is_refused()) << error;
	for (const int error : {EMFILE, ENOBUFS, ENOMEM, EIO, EINVAL})
		EXPECT_FALSE(SockDiagError(error, "").is_refused()) << error;
}

// No file descriptor left: an error with its errno, not a refusal.
TEST(SockDiag, DoesNotReportAFileLimitAsARefusal)
{
	rlimit old;
	getrlimit(RLIMIT_NOFILE, &old);
	rlimit none = old;
	none.rlim_cur = 0;
	setrlimit(RLIMIT_NOFILE, &none);
	int error = 0;
	bool refused = true;
	try
	{
		SockDiag diag;
	}
	catch (const SockDiagError &e)
	{
		error = e.code().value();
		refused = e.is_refused();
	}
	setrlimit(RLIMIT_NOFILE, &old);
	EXPECT_EQ(error, EMFILE);
	EXPECT_FALSE(refused);
}

// A sandbox without netlink, as container runtimes create with seccomp.
TEST(SockDiag, ReportsForbiddenNetlinkAsARefusal)
{
	const auto in_sandbox = []
	{
		refuse_netlink_sockets(EACCES);
		try
		{
			SockDiag diag;
			_exit(2);
		}
		catch (const SockDiagError &error)
		{
			_exit(error.is_refused() && error.code().value() == EACCES ? 0 : 3);
		}
	};
	EXPECT_EXIT(in_sandbox(), testing::ExitedWithCode(0), "");
}

namespace
{

// The errno with which it fails, 0 if it does not.
template <typename Call> int error_of(Call call)
{
	try
	{
		call();
		return 0;
	}
	catch (const SockDiagError &error)
	{
		return error.code().value();
	}
}

} // namespace

TEST(SockDiag, AsksAgainWhenItCannotSend)
{
	Listener listener;
	Connection c(listener);
	const SocketId id = id_of(c.server);
	const int result = with_failing_calls(
		SYS_sendto,
		[&](FailingCalls &failing)
		{
			SockDiag diag;
			const auto query = [&]
			{
				if (!ask(diag, id).found)
					throw SockDiagError(ENODATA, "not found");
			};
			for (const int error : {ENOBUFS, ENOMEM, EAGAIN, EINTR, EBUSY})
			{
				failing.fail(error, 1);
				if (error_of(query) != 0 || failing.calls() != 2)
					return 1;
				failing.fail(error, 1000);
				if (error_of(query) != error || failing.calls() != 6)
					return 2;
			}
			failing.fail(EPERM, 1);
			return error_of(query) == EPERM && failing.calls() == 1 ? 0 : 3;
		});
	expect_success(result);
}

TEST(SockDiagQuery, AsksAgainWhenItCannotRead)
{
	Listener listener;
	auto connections = connect_times(60, listener);
	auto wanted = ids_of(connections);
	const int result = with_failing_calls(
		SYS_recvmmsg,
		[&](FailingCalls &failing)
		{
			SockDiag diag;
			const auto finds = [&](std::size_t from, std::size_t n)
			{
				std::vector<SocketFacts> answers(n);
				diag.query(&wanted[from], n, answers.data(), {});
				for (std::size_t i = 0; i < n; i++)
					if (answers[i].id.cookie != wanted[from + i].cookie)
						return false;
				return true;
			};
			for (const int error : {EINTR, ENOBUFS})
			{
				failing.fail(error, 5);
				if (!finds(0, 1) || failing.calls() != 6)
					return 1;
				// The first request is given up.  Its answers come with those of the next
			    // ones, and are not taken for them.
				failing.fail(error, 6);
				if (!finds(0, 60))
					return 2;
				std::reverse(wanted.begin(), wanted.end());
				if (!finds(0, 60))
					return 3;
				failing.fail(error, 1000);
				if (error_of([&] { finds(0, 1); }) != ENOBUFS || failing.calls() != 30)
					return 4;
				failing.fail(error, 0);
				if (!finds(0, 60))
					return 5;
			}
			failing.fail(EIO, 1);
			return error_of([&] { finds(0, 1); }) == EIO ? 0 : 6;
		});
	expect_success(result);
}

TEST(SockDiagQuery, AsksForManySocketsAtOnce)
{
	Listener listener;
	auto connections = connect_times(200, listener);
	auto wanted = ids_of(connections);
	const int result =
		with_failing_calls(SYS_sendto,
	                       [&](FailingCalls &failing)
	                       {
							   SockDiag diag;
							   std::vector<SocketFacts> answers(wanted.size());
							   failing.fail(EIO, 0);
							   diag.query(wanted.data(), 128, answers.data(), {});
							   if (failing.calls() != 1)
								   return 1;
							   failing.fail(EIO, 0);
							   diag.query(wanted.data(), 200, answers.data(), {});
							   return failing.calls() == 2 ? 0 : 2;
						   });
	expect_success(result);
}

// Each batch may get no answer as often, whether or not there were some before.
TEST(SockDiagQuery, GivesUpAfterAsManyFailuresInARow)
{
	Listener listener;
	auto connections = connect_times(60, listener);
	auto wanted = ids_of(connections);
	const int result = with_failing_calls(
		SYS_recvmmsg,
		[&](FailingCalls &failing)
		{
			SockDiag diag;
			std::vector<SocketFacts> answers(wanted.size());
			const auto calls = [&](int spared)
			{
				failing.fail(EINTR, 1000, spared);
				if (error_of([&]
			                 { diag.query(wanted.data(), 60, answers.data(), {}); }) !=
			        ENOBUFS)
					return -1;
				return failing.calls();
			};
			if (calls(0) != 5 * 6)
				return 1;
			// What is left in the receive buffer is read.
			failing.fail(EINTR, 0);
			diag.query(wanted.data(), 60, answers.data(), {});
			// The first call reads some answers.
			return calls(1) == 1 + 6 + 5 * 6 ? 0 : 2;
		});
	expect_success(result);
}

// The rest of it would be read as the next answer, and no other one can be started.
TEST(SockDiagDump, BeginsAnewAfterOneThatWasReadInPart)
{
	Listener listener;
	auto connections = connect_times(1000, listener);
	const int result = with_failing_calls(
		SYS_recvmsg,
		[&](FailingCalls &failing)
		{
			SockDiag diag;
			DumpFilter filter;
			filter.local_ports = {listener.port};
			failing.fail(EINTR, 0);
			if (diag.dump(filter).size() != 1001 || failing.calls() < 4)
				return 1;
			failing.fail(ENOBUFS, 1, 2);
			if (diag.dump(filter).size() != 1001)
				return 2;
			failing.fail(EIO, 1, 2);
			if (error_of([&] { diag.dump(filter); }) != EIO)
				return 3;
			if (diag.dump(filter).size() != 1001)
				return 4;
			failing.fail(EIO, 1, 2);
			if (error_of([&] { diag.dump(filter); }) != EIO)
				return 5;
			return ask(diag, id_of(connections[0].server)).found ? 0 : 6;
		});
	for (Connection &c : connections)
		c.abort();
	expect_success(result);
}

TEST(SockDiagDump, HasNoAnswersToAnEarlierQuery)
{
	Listener listener;
	Connection c(listener);
	const SocketId id = id_of(c.server);
	const int result =
		with_failing_calls(SYS_recvmmsg,
	                       [&](FailingCalls &failing)
	                       {
							   SockDiag diag;
							   failing.fail(EINTR, 1000);
							   if (error_of([&] { ask(diag, id); }) != ENOBUFS)
								   return 1;
							   DumpFilter filter;
							   filter.local_ports = {listener.port};
							   return diag.dump(filter).size() == 2 ? 0 : 2;
						   });
	expect_success(result);
}

TEST(SockDiagDump, IsRepeatedWhenItCannotBeRead)
{
	Listener listener;
	Connection c(listener);
	const int result = with_failing_calls(
		SYS_recvmsg,
		[&](FailingCalls &failing)
		{
			SockDiag diag;
			DumpFilter filter;
			filter.local_ports = {listener.port};
			std::size_t found = 0;
			const auto dump = [&]
			{
				found = diag.dump(filter).size();
			};
			failing.fail(EINTR, 0);
			dump();
			const int calls = failing.calls();
			if (calls != 2) // the sockets, and that there are no more
				return 5;
			failing.fail(EINTR, 5);
			if (error_of(dump) != 0 || found != 2 || failing.calls() != 5 + calls)
				return 1;
			for (const int error : {EINTR, ENOBUFS})
			{
				failing.fail(error, error == EINTR ? 6 : 3);
				if (error_of(dump) != 0 || found != 2)
					return 2;
				failing.fail(error, 1000);
				if (error_of(dump) != error ||
			        failing.calls() != (error == EINTR ? 5 * 6 : 5))
					return 3;
			}
			failing.fail(EIO, 1);
			return error_of(dump) == EIO && failing.calls() == 1 ? 0 : 4;
		});
	expect_success(result);
}
