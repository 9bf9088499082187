// Reading and setting options of real sockets, and identifying a socket.
#include "kernel/socket_options.hpp"

#include "kernel/sock_diag.hpp"
#include "kernel_loopback.hpp"
#include "kernel_namespace.hpp"

#include <cstdio>

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

using namespace guard;
using loopback::Connection;
using loopback::Fd;
using loopback::Listener;

namespace
{

int system_default(const char *name)
{
	int value = -1;
	const std::string path = std::string("/proc/sys/net/ipv4/") + name;
	if (FILE *file = std::fopen(path.c_str(), "r"))
	{
		if (std::fscanf(file, "%d", &value) != 1)
			value = -1;
		std::fclose(file);
	}
	return value;
}

// Whether the socket has an error within 10 s, which stays there.
bool has_error(int fd)
{
	pollfd wait = {fd, 0, 0};
	return poll(&wait, 1, 10000) == 1;
}

} // namespace

TEST(SocketOptions, HaveTheSystemsDefaults)
{
	Listener listener;
	Connection c(listener);
	Options o;
	ASSERT_EQ(read_options(c.server, o), 0);
	EXPECT_EQ(o.keepalive, 0);
	EXPECT_EQ(o.keepalives_idle, system_default("tcp_keepalive_time"));
	EXPECT_EQ(o.keepalives_interval, system_default("tcp_keepalive_intvl"));
	EXPECT_EQ(o.keepalives_count, system_default("tcp_keepalive_probes"));
	EXPECT_EQ(o.user_timeout_ms, 0);
}

TEST(SocketOptions, ReadBackWhatWasSet)
{
	Listener listener;
	Connection c(listener);
	EXPECT_EQ(set_keepalive(c.server, true), 0);
	EXPECT_EQ(set_keepalives_idle(c.server, 32767), 0);
	EXPECT_EQ(set_keepalives_interval(c.server, 7), 0);
	EXPECT_EQ(set_keepalives_count(c.server, 127), 0);
	EXPECT_EQ(set_user_timeout(c.server, 2147483647), 0);
	Options o;
	ASSERT_EQ(read_options(c.server, o), 0);
	EXPECT_EQ(o.keepalive, 1);
	EXPECT_EQ(o.keepalives_idle, 32767);
	EXPECT_EQ(o.keepalives_interval, 7);
	EXPECT_EQ(o.keepalives_count, 127);
	EXPECT_EQ(o.user_timeout_ms, 2147483647);

	EXPECT_EQ(set_keepalive(c.server, false), 0);
	EXPECT_EQ(set_user_timeout(c.server, 0), 0);
	ASSERT_EQ(read_options(c.server, o), 0);
	EXPECT_EQ(o.keepalive, 0);
	EXPECT_EQ(o.user_timeout_ms, 0);
}

TEST(SocketOptions, CountUnreadBytesAfterAFin)
{
	Listener listener;
	Connection c(listener);
	EXPECT_EQ(unread_bytes(c.server), 0);
	ASSERT_EQ(write(c.client, "X", 1), 1);
	ASSERT_EQ(shutdown(c.client, SHUT_WR), 0);
	char byte;
	ASSERT_EQ(recv(c.server, &byte, 1, MSG_PEEK), 1); // it has arrived
	EXPECT_EQ(unread_bytes(c.server), 1);
	ASSERT_EQ(recv(c.server, &byte, 1, 0), 1);
	ASSERT_EQ(recv(c.server, &byte, 1, 0), 0); // so has the FIN
	EXPECT_EQ(unread_bytes(c.server), 0);
	EXPECT_EQ(unread_bytes(-1), 0);
}

TEST(SocketOptions, RefuseValuesOutOfBounds)
{
	Listener listener;
	Connection c(listener);
	Options before;
	ASSERT_EQ(read_options(c.server, before), 0);
	errno = 0;
	EXPECT_EQ(set_keepalives_idle(c.server, 0), EINVAL);
	EXPECT_EQ(set_keepalives_idle(c.server, 32768), EINVAL);
	EXPECT_EQ(set_keepalives_interval(c.server, 32768), EINVAL);
	EXPECT_EQ(set_keepalives_count(c.server, 128), EINVAL);
	EXPECT_EQ(set_user_timeout(c.server, -1), EINVAL);
	Options after;
	ASSERT_EQ(read_options(c.server, after), 0);
	EXPECT_EQ(after.keepalives_idle, before.keepalives_idle);
	EXPECT_EQ(after.keepalives_count, before.keepalives_count);
	EXPECT_EQ(errno, 0);
}

TEST(SocketOptions, KeepErrno)
{
	Options o;
	SocketId id;
	errno = ENOTTY;
	EXPECT_EQ(read_options(-1, o), EBADF);
	EXPECT_EQ(set_keepalive(-1, true), EBADF);
	EXPECT_EQ(read_socket_id(-1, id), EBADF);
	EXPECT_EQ(errno, ENOTTY);
}

TEST(SocketOptions, FailOnAUnixSocket)
{
	int ends[2];
	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	const Fd a(ends[0]);
	const Fd b(ends[1]);
	Options o;
	SocketId id;
	EXPECT_EQ(read_options(a, o), EOPNOTSUPP);
	EXPECT_EQ(read_socket_id(a, id), EAFNOSUPPORT);
}

// A pending error belongs to the socket's owner: reading the options does not clear it.
TEST(SocketOptions, LeaveAPendingErrorToTheOwner)
{
	Listener listener;
	Connection c(listener);
	const linger now = {1, 0};
	setsockopt(c.client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	c.client.close(); // sends a reset
	usleep(10000);
	Options o;
	SocketId id;
	EXPECT_EQ(read_options(c.server, o), 0);
	EXPECT_EQ(read_socket_id(c.server, id), ENOTCONN);
	EXPECT_EQ(id.local.port, listener.port);
	EXPECT_EQ(set_keepalive(c.server, true), 0);
	char byte;
	EXPECT_EQ(recv(c.server, &byte, 1, 0), -1);
	EXPECT_EQ(errno, ECONNRESET);
}

TEST(SocketOptions, TakeTheErrorOfADeadSocketOnly)
{
	Listener listener;
	Connection living(listener);
	EXPECT_EQ(take_error_of_dead_socket(living.server), 0);
	EXPECT_EQ(take_error_of_dead_socket(-1), 0);

	Connection dead(listener);
	const linger now = {1, 0};
	setsockopt(dead.client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	dead.client.close(); // sends a reset
	ASSERT_TRUE(has_error(dead.server));
	EXPECT_EQ(take_error_of_dead_socket(dead.server), ECONNRESET);
	EXPECT_EQ(take_error_of_dead_socket(dead.server), 0);

	// UDP without a receiver: an error, but not of a dead connection.
	const Fd udp(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	Fd receiver(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	loopback::Address address = loopback::Address::of("127.0.0.1", 0);
	ASSERT_EQ(bind(receiver, address.raw(), address.length), 0);
	address = loopback::local_address(receiver);
	ASSERT_EQ(connect(udp, address.raw(), address.length), 0);
	receiver.close();
	ASSERT_EQ(send(udp, "x", 1, 0), 1);
	ASSERT_TRUE(has_error(udp));
	EXPECT_EQ(take_error_of_dead_socket(udp), 0);
	EXPECT_EQ(recv(udp, &address, 1, 0), -1);
	EXPECT_EQ(errno, ECONNREFUSED);
}

TEST(SocketId, IdentifiesTheSocket)
{
	Listener listener;
	Connection c(listener);
	SocketId id;
	ASSERT_EQ(read_socket_id(c.server, id), 0);
	EXPECT_EQ(id.local.family, 4);
	EXPECT_EQ(id.local.port, listener.port);
	EXPECT_EQ(id.remote.port, loopback::local_address(c.client).endpoint().port);
	EXPECT_EQ(id.remote.address[0], 127);
	EXPECT_EQ(id.interface, 0U);
	EXPECT_EQ(id.cookie, loopback::cookie(c.server));
	SocketId other;
	ASSERT_EQ(read_socket_id(c.client, other), 0);
	EXPECT_NE(other.cookie, id.cookie);
	EXPECT_TRUE(same_endpoint(other.local, id.remote));
}

TEST(SocketId, OfAListenerHasNoPeer)
{
	Listener listener;
	SocketId id;
	EXPECT_EQ(read_socket_id(listener.fd, id), ENOTCONN);
	EXPECT_EQ(id.local.port, listener.port);
	EXPECT_EQ(id.remote.family, 0);
	EXPECT_NE(id.cookie, 0U);
}

// A connection between link-local addresses is bound to its interface.  The kernel finds
// it only by the interface.
TEST(SocketId, OfALinkLocalConnectionHasItsInterface)
{
	const int result = OwnNetwork::run(
		[](OwnNetwork &network)
		{
			if (!network.add_ipv6("fe80::1"))
				return OwnNetwork::not_allowed;
			usleep(100000);
			Listener listener("::");
			Connection c(listener, "fe80::1", network.loopback_index());
			SocketId id;
			if (read_socket_id(c.server, id) != 0 ||
		        id.interface != network.loopback_index())
				return 1;
			SockDiag diag;
			SocketFacts facts;
			diag.query(&id, 1, &facts, {});
			if (!facts.found || facts.id.cookie != id.cookie)
				return 2;
			id.interface = 0; // the test tests something
			diag.query(&id, 1, &facts, {});
			return facts.found ? 3 : 0;
		});
	if (result == OwnNetwork::not_allowed)
		GTEST_SKIP() << "cannot create a network namespace with IPv6";
	EXPECT_EQ(result, 0);
}
