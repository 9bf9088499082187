// Why a connection ended, from evidence.
#pragma once

#include <cstdint>

#include "kernel/tcp_info.hpp"

namespace guard
{

// In the order of keepalive_stats()'s columns.
enum class Cause : std::uint8_t
{
	client_closed,      // the client sent Terminate
	client_vanished,    // FIN without Terminate: the client's process died or gave up
	reset,              // RST
	keepalive_timeout,  // nothing in flight, and probes went unanswered
	user_timeout,       // data in flight, and TCP_USER_TIMEOUT was exceeded
	retransmit_timeout, // data in flight, and tcp_retries2 was exceeded
	unreachable,        // reported by ICMP
	dead_after,         // the guard's watcher
	stall_timeout,      // the guard's watcher
	terminated,         // by the server: pg_terminate_backend(), a timeout, FATAL
	server_shutdown,
	authentication_failed,
	unknown, // the evidence is not enough
	// Not an end: a policy that is log_only would have ended the session, which goes on.
	would_end,
};
constexpr int cause_count = 14;

const char *cause_name(Cause cause) noexcept;

// Whether the client was lost: neither it nor the server ended the connection in words.
bool is_lost(Cause cause) noexcept;

// Whether it is the cause of a session's end; false for would_end.
bool is_end_of_session(Cause cause) noexcept;

// How the backend came to its end, as PostgreSQL tells it.
enum class SessionEnd : std::uint8_t
{
	terminate_message, // orderly
	end_of_stream,     // nothing more to read, with or without an error
	connection_lost,   // FATAL, because the client check or a write found it gone
	fatal,             // any other FATAL
	killed,            // SIGTERM
	not_told,          // PostgreSQL logs too little (log_min_messages) to tell
};

enum class TerminatedBy : std::uint8_t
{
	none,
	postmaster,
	watcher_dead_after,
	watcher_stall_timeout,
	other,
};

struct Evidence
{
	SessionEnd end;
	TerminatedBy terminated_by;
	bool authentication; // the FATAL is of SQLSTATE class 28
	bool tcp;
	bool fin_received;   // when the first error was seen; TCP only
	bool data_pending;   // sent and not acknowledged, or not yet sent, at the end
	int socket_error;    // the first errno that the socket gave; 0: none
	bool error_not_told; // ... or PostgreSQL did not log it (log_min_messages)
	int user_timeout_ms; // TCP_USER_TIMEOUT in force
	int retries2;        // sysctl tcp_retries2; needed after ETIMEDOUT only
	TcpInfo info;        // at the end; TCP only
};

Cause cause_of(const Evidence &evidence) noexcept;

} // namespace guard
