// Listeners and connections on the loopback interface.
#pragma once

#include "kernel/socket.hpp"

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace loopback
{

inline int check(int result, const char *what)
{
	if (result < 0)
		throw std::system_error(errno, std::generic_category(), what);
	return result;
}

class Fd
{
  public:
	explicit Fd(int fd = -1) : fd_(fd) {}
	~Fd() { close(); }
	Fd(Fd &&other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
	Fd &operator=(Fd &&other) noexcept
	{
		std::swap(fd_, other.fd_);
		return *this;
	}
	operator int() const { return fd_; }
	void close()
	{
		if (fd_ >= 0)
			::close(fd_);
		fd_ = -1;
	}

  private:
	int fd_;
};

struct Address
{
	sockaddr_storage storage{};
	socklen_t length = sizeof(storage);

	sockaddr *raw() { return reinterpret_cast<sockaddr *>(&storage); }

	// ip: "127.0.0.1", "::1", "::", ...
	static Address of(const std::string &ip, std::uint16_t port, unsigned scope = 0)
	{
		Address a;
		auto *v4 = reinterpret_cast<sockaddr_in *>(&a.storage);
		auto *v6 = reinterpret_cast<sockaddr_in6 *>(&a.storage);
		if (inet_pton(AF_INET, ip.c_str(), &v4->sin_addr) == 1)
		{
			v4->sin_family = AF_INET;
			v4->sin_port = htons(port);
			a.length = sizeof(*v4);
			return a;
		}
		inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr);
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		v6->sin6_scope_id = scope;
		a.length = sizeof(*v6);
		return a;
	}

	guard::Endpoint endpoint() const
	{
		guard::Endpoint e{};
		if (storage.ss_family == AF_INET)
		{
			const auto &v4 = reinterpret_cast<const sockaddr_in &>(storage);
			e.family = 4;
			e.port = ntohs(v4.sin_port);
			std::memcpy(e.address.data(), &v4.sin_addr, 4);
		}
		else
		{
			const auto &v6 = reinterpret_cast<const sockaddr_in6 &>(storage);
			e.family = 6;
			e.port = ntohs(v6.sin6_port);
			std::memcpy(e.address.data(), &v6.sin6_addr, 16);
		}
		return e;
	}
};

inline Address local_address(int fd)
{
	Address a;
	check(getsockname(fd, a.raw(), &a.length), "getsockname");
	return a;
}

inline Address remote_address(int fd)
{
	Address a;
	check(getpeername(fd, a.raw(), &a.length), "getpeername");
	return a;
}

inline std::uint64_t cookie(int fd)
{
	std::uint64_t value = 0;
	socklen_t length = sizeof(value);
	check(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &value, &length), "SO_COOKIE");
	return value;
}

inline std::uint32_t inode_of(int fd)
{
	struct stat s;
	check(fstat(fd, &s), "fstat");
	return static_cast<std::uint32_t>(s.st_ino);
}

inline guard::SocketId id_of(int fd)
{
	guard::SocketId id{};
	id.local = local_address(fd).endpoint();
	id.remote = remote_address(fd).endpoint();
	id.cookie = cookie(fd);
	return id;
}

inline void set(int fd, int level, int option, int value)
{
	check(setsockopt(fd, level, option, &value, sizeof(value)), "setsockopt");
}

class Listener
{
  public:
	// dual_stack: an IPv6 listener that accepts IPv4 clients too.
	explicit Listener(const std::string &ip = "127.0.0.1", bool dual_stack = false,
	                  unsigned scope = 0, std::uint16_t wanted_port = 0)
	{
		Address address = Address::of(ip, wanted_port, scope);
		fd = Fd(check(socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0),
		              "socket"));
		if (address.storage.ss_family == AF_INET6)
			set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !dual_stack);
		check(bind(fd, address.raw(), address.length), "bind");
		check(listen(fd, 4096), "listen");
		port = local_address(fd).endpoint().port;
	}

	Fd fd;
	std::uint16_t port;
};

// A connection to a listener.  `server` is the socket that a backend would hold.
struct Connection
{
	// client_port: 0 for any port, else a port of 127.0.0.1.
	explicit Connection(Listener &listener, const std::string &ip = "127.0.0.1",
	                    unsigned scope = 0, std::uint16_t client_port = 0)
	{
		Address address = Address::of(ip, listener.port, scope);
		client = Fd(check(
			socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
		if (client_port != 0)
		{
			Address own = Address::of("127.0.0.1", client_port);
			set(client, SOL_SOCKET, SO_REUSEADDR, 1);
			check(bind(client, own.raw(), own.length), "bind");
		}
		check(connect(client, address.raw(), address.length), "connect");
		server =
			Fd(check(accept4(listener.fd, nullptr, nullptr, SOCK_CLOEXEC), "accept"));
	}

	// Closes without FIN and without TIME_WAIT.
	void abort()
	{
		const linger now = {1, 0};
		setsockopt(client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		client.close();
		server.close();
	}

	Fd client;
	Fd server;
};

inline std::vector<Connection> connect_times(int times, Listener &listener)
{
	std::vector<Connection> connections;
	for (int i = 0; i < times; i++)
		connections.emplace_back(listener);
	return connections;
}

// Of the servers' ends.
inline std::vector<guard::SocketId> ids_of(const std::vector<Connection> &connections)
{
	std::vector<guard::SocketId> ids;
	for (const Connection &c : connections)
		ids.push_back(id_of(c.server));
	return ids;
}

} // namespace loopback
