#include "kernel/socket_options.hpp"

#include <cerrno>
#include <cstring>

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace guard
{

namespace
{

// The result of a system call as 0 or its errno, with the caller's errno restored: the
// code that a signal interrupts may be about to look at it.
class KeepErrno
{
  public:
	~KeepErrno() { errno = saved_; }
	static int error(int result) { return result < 0 ? errno : 0; }

  private:
	int saved_ = errno;
};

template <typename T> int get(int fd, int level, int option, T &value) noexcept
{
	const KeepErrno keep;
	socklen_t length = sizeof(value);
	return KeepErrno::error(getsockopt(fd, level, option, &value, &length));
}

int set(int fd, int level, int option, int value) noexcept
{
	const KeepErrno keep;
	return KeepErrno::error(setsockopt(fd, level, option, &value, sizeof(value)));
}

// What SIOCOUTQ or SIOCINQ says; 0 where the kernel does not say.
int queued_bytes(int fd, unsigned long request) noexcept
{
	const KeepErrno keep;
	int bytes = 0;
	return ioctl(fd, request, &bytes) < 0 ? 0 : bytes;
}

int to_endpoint(const sockaddr_storage &address, Endpoint &endpoint) noexcept
{
	endpoint = Endpoint{};
	if (address.ss_family == AF_INET)
	{
		sockaddr_in v4;
		std::memcpy(&v4, &address, sizeof(v4));
		endpoint.family = 4;
		endpoint.port = ntohs(v4.sin_port);
		std::memcpy(endpoint.address.data(), &v4.sin_addr, sizeof(v4.sin_addr));
		return 0;
	}
	if (address.ss_family == AF_INET6)
	{
		sockaddr_in6 v6;
		std::memcpy(&v6, &address, sizeof(v6));
		endpoint.family = 6;
		endpoint.port = ntohs(v6.sin6_port);
		std::memcpy(endpoint.address.data(), &v6.sin6_addr, sizeof(v6.sin6_addr));
		return 0;
	}
	return EAFNOSUPPORT;
}

} // namespace

int read_options(int fd, Options &options) noexcept
{
	struct
	{
		int level;
		int option;
		int &value;
	} const all[] = {
		{SOL_SOCKET, SO_KEEPALIVE, options.keepalive},
		{IPPROTO_TCP, TCP_KEEPIDLE, options.keepalives_idle},
		{IPPROTO_TCP, TCP_KEEPINTVL, options.keepalives_interval},
		{IPPROTO_TCP, TCP_KEEPCNT, options.keepalives_count},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, options.user_timeout_ms},
	};
	for (const auto &[level, option, value] : all)
		if (const int error = get(fd, level, option, value))
			return error;
	return 0;
}

int set_keepalive(int fd, bool on) noexcept
{
	return set(fd, SOL_SOCKET, SO_KEEPALIVE, on);
}

int set_keepalives_idle(int fd, int seconds) noexcept
{
	return set(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
}

int set_keepalives_interval(int fd, int seconds) noexcept
{
	return set(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds);
}

int set_keepalives_count(int fd, int probes) noexcept
{
	return set(fd, IPPROTO_TCP, TCP_KEEPCNT, probes);
}

int set_user_timeout(int fd, int milliseconds) noexcept
{
	return set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, milliseconds);
}

int read_tcp_info(int fd, TcpInfo &info) noexcept
{
	const KeepErrno keep;
	unsigned char bytes[512];
	socklen_t length = sizeof(bytes);
	const int error =
		KeepErrno::error(getsockopt(fd, IPPROTO_TCP, TCP_INFO, bytes, &length));
	info = decode_tcp_info(bytes, error ? 0 : length);
	return error;
}

int unacknowledged_bytes(int fd) noexcept
{
	return queued_bytes(fd, SIOCOUTQ);
}

int unread_bytes(int fd) noexcept
{
	return queued_bytes(fd, SIOCINQ);
}

int take_error_of_dead_socket(int fd) noexcept
{
	TcpInfo info;
	int pending = 0;
	read_tcp_info(fd, info);
	if (info.state == static_cast<std::uint8_t>(TcpState::close))
		get(fd, SOL_SOCKET, SO_ERROR, pending);
	return pending;
}

int read_socket_id(int fd, SocketId &id) noexcept
{
	const KeepErrno keep;
	sockaddr_storage address;
	socklen_t length = sizeof(address);

	id = SocketId{};
	if (getsockname(fd, reinterpret_cast<sockaddr *>(&address), &length) < 0)
		return errno;
	int error = to_endpoint(address, id.local);
	if (!error)
		error = get(fd, SOL_SOCKET, SO_COOKIE, id.cookie);
	if (error)
		return error;
	// sk_bound_dev_if, which the kernel's lookup compares.  tcp_v6_syn_recv_sock() sets
	// it for link-local peers.
	get(fd, SOL_SOCKET, SO_BINDTOIFINDEX, id.interface);

	length = sizeof(address);
	if (getpeername(fd, reinterpret_cast<sockaddr *>(&address), &length) < 0)
		return errno;
	return to_endpoint(address, id.remote);
}

} // namespace guard
