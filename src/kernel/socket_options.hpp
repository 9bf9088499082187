// The options of a socket of this process: read and set.  Every function here is
// async-signal-safe, allocates nothing, leaves errno as it was, and returns 0 or the
// errno of the system call that failed.  SO_ERROR, which reading clears, is read by
// take_error_of_dead_socket() only.
#pragma once

#include "kernel/socket.hpp"

namespace guard
{

// What is in force for a TCP socket.  If idle, interval or count was not set on the
// socket, it is the system's default (sysctl tcp_keepalive_*).
struct Options
{
	int keepalive;           // SO_KEEPALIVE: 0 or 1
	int keepalives_idle;     // TCP_KEEPIDLE, seconds
	int keepalives_interval; // TCP_KEEPINTVL, seconds
	int keepalives_count;    // TCP_KEEPCNT, probes
	int user_timeout_ms;     // TCP_USER_TIMEOUT, 0: off
};

// Fails (EOPNOTSUPP) on a socket that is not TCP; then options is undefined.
int read_options(int fd, Options &options) noexcept;

int set_keepalive(int fd, bool on) noexcept;
// 1..32767 seconds; beyond: EINVAL.  Re-arms a running keepalive timer at once.
int set_keepalives_idle(int fd, int seconds) noexcept;
// 1..32767 seconds; beyond: EINVAL.  Counts from the next probe on.
int set_keepalives_interval(int fd, int seconds) noexcept;
// 1..127 probes; beyond: EINVAL.
int set_keepalives_count(int fd, int probes) noexcept;
// 0 (off) or milliseconds; negative: EINVAL.
int set_user_timeout(int fd, int milliseconds) noexcept;

// What the kernel knows about the connection; also after its end.
int read_tcp_info(int fd, TcpInfo &info) noexcept;

// The pending error of a dead socket (TCP_CLOSE); 0 if it was read before, or if the
// socket is alive.  For an owner that is about to close it.
int take_error_of_dead_socket(int fd) noexcept;

// Bytes that the peer has not acknowledged, sent or not (SIOCOUTQ); also after the end of
// the connection. 0 where the kernel does not say.
int unacknowledged_bytes(int fd) noexcept;

// Bytes that have arrived and that the owner has not read (SIOCINQ).  0 where the kernel
// does not say.
int unread_bytes(int fd) noexcept;

// Both ends, the interface it is bound to, and SO_COOKIE.  ENOTCONN: there is no peer
// (a listener, or reset in the meantime); everything but id.remote is filled in then.
// EAFNOSUPPORT: neither IPv4 nor IPv6.
int read_socket_id(int fd, SocketId &id) noexcept;

} // namespace guard
