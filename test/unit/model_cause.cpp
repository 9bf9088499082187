#include "model/cause.hpp"

#include <cerrno>
#include <string>

#include <gtest/gtest.h>

#include "kernel/socket.hpp"

namespace
{

using guard::Cause;
using guard::cause_of;
using guard::Evidence;
using guard::SessionEnd;
using guard::TcpState;
using guard::TerminatedBy;

// A TCP connection whose stream has ended.
Evidence ended(TcpState state, int error)
{
	Evidence evidence = {};
	evidence.end = SessionEnd::end_of_stream;
	evidence.tcp = true;
	evidence.socket_error = error;
	evidence.retries2 = 15;
	evidence.info.state = static_cast<std::uint8_t>(state);
	return evidence;
}

Evidence timed_out(int probes, int retransmits, bool data_pending, int user_timeout_ms)
{
	Evidence evidence = ended(TcpState::close, ETIMEDOUT);
	evidence.info.probes = static_cast<std::uint8_t>(probes);
	evidence.info.retransmits = static_cast<std::uint8_t>(retransmits);
	evidence.data_pending = data_pending;
	evidence.user_timeout_ms = user_timeout_ms;
	return evidence;
}

Evidence by(SessionEnd end, TerminatedBy terminated_by = TerminatedBy::none)
{
	Evidence evidence = ended(TcpState::established, 0);
	evidence.end = end;
	evidence.terminated_by = terminated_by;
	return evidence;
}

Evidence unix_socket(int error)
{
	Evidence evidence = {};
	evidence.end = SessionEnd::end_of_stream;
	evidence.socket_error = error;
	return evidence;
}

TEST(Cause, NamesMatchTheColumns)
{
	const char *names[] = {
		"client_closed", "client_vanished",    "reset",           "keepalive_timeout",
		"user_timeout",  "retransmit_timeout", "unreachable",     "dead_after",
		"stall_timeout", "terminated",         "server_shutdown", "authentication_failed",
		"unknown",       "would_end",
	};
	static_assert(sizeof(names) / sizeof(*names) == guard::cause_count);
	for (int i = 0; i < guard::cause_count; i++)
		EXPECT_STREQ(guard::cause_name(static_cast<Cause>(i)), names[i]);
}

TEST(Cause, IsLostUnlessTheEndWasAnnounced)
{
	for (int i = 0; i < guard::cause_count; i++)
	{
		auto cause = static_cast<Cause>(i);
		bool announced = cause == Cause::client_closed || cause == Cause::terminated ||
		                 cause == Cause::server_shutdown ||
		                 cause == Cause::authentication_failed ||
		                 cause == Cause::would_end;
		EXPECT_EQ(guard::is_lost(cause), !announced) << guard::cause_name(cause);
		bool session = cause != Cause::authentication_failed && cause != Cause::would_end;
		EXPECT_EQ(guard::is_end_of_session(cause), session) << guard::cause_name(cause);
	}
}

TEST(Cause, TerminateMessageCountsInEverySocketState)
{
	for (auto state : {TcpState::established, TcpState::close_wait, TcpState::close})
		for (int error : {0, ECONNRESET, ETIMEDOUT})
		{
			Evidence evidence = ended(state, error);
			evidence.end = SessionEnd::terminate_message;
			EXPECT_EQ(cause_of(evidence), Cause::client_closed);
		}
}

TEST(Cause, DependsOnTheSenderOfSigterm)
{
	EXPECT_EQ(cause_of(by(SessionEnd::killed, TerminatedBy::postmaster)),
	          Cause::server_shutdown);
	EXPECT_EQ(cause_of(by(SessionEnd::killed, TerminatedBy::other)), Cause::terminated);
	EXPECT_EQ(cause_of(by(SessionEnd::killed)), Cause::terminated);
	EXPECT_EQ(cause_of(by(SessionEnd::killed, TerminatedBy::watcher_dead_after)),
	          Cause::dead_after);
	EXPECT_EQ(cause_of(by(SessionEnd::killed, TerminatedBy::watcher_stall_timeout)),
	          Cause::stall_timeout);
	// ... also if the connection was already dead
	Evidence evidence = timed_out(3, 0, false, 0);
	evidence.end = SessionEnd::killed;
	evidence.terminated_by = TerminatedBy::other;
	EXPECT_EQ(cause_of(evidence), Cause::terminated);
}

TEST(Cause, OfAFatalMessage)
{
	Evidence evidence = by(SessionEnd::fatal);
	EXPECT_EQ(cause_of(evidence), Cause::terminated);
	evidence.authentication = true;
	EXPECT_EQ(cause_of(evidence), Cause::authentication_failed);
}

TEST(Cause, IsUnknownWithoutAnyInformation)
{
	EXPECT_EQ(cause_of(by(SessionEnd::not_told)), Cause::unknown);
}

TEST(Cause, OfAFin)
{
	EXPECT_EQ(cause_of(ended(TcpState::close_wait, 0)), Cause::client_vanished);
	// The errno is not known, but the state is.
	Evidence evidence = ended(TcpState::close_wait, 0);
	evidence.error_not_told = true;
	EXPECT_EQ(cause_of(evidence), Cause::client_vanished);
	// The server then wrote, which was answered with a reset.
	EXPECT_EQ(cause_of(ended(TcpState::close, EPIPE)), Cause::client_vanished);
	// The client check: nothing was read.
	evidence = ended(TcpState::close_wait, 0);
	evidence.end = SessionEnd::connection_lost;
	EXPECT_EQ(cause_of(evidence), Cause::client_vanished);
}

TEST(Cause, OfAFinUnderTls)
{
	// be_tls_read(): no close_notify
	EXPECT_EQ(cause_of(ended(TcpState::close_wait, ECONNRESET)), Cause::client_vanished);
	// ... and the server has written since
	Evidence evidence = ended(TcpState::close, ECONNRESET);
	evidence.fin_received = true;
	EXPECT_EQ(cause_of(evidence), Cause::client_vanished);
	// close_notify was received, the FIN not yet
	EXPECT_EQ(cause_of(ended(TcpState::established, 0)), Cause::client_vanished);
}

TEST(Cause, ResetNeedsADeadSocket)
{
	EXPECT_EQ(cause_of(ended(TcpState::close, ECONNRESET)), Cause::reset);
	// TLS reports this for invalid records.
	EXPECT_EQ(cause_of(ended(TcpState::established, ECONNRESET)), Cause::unknown);
}

TEST(Cause, KeepaliveWithAndWithoutUserTimeout)
{
	EXPECT_EQ(cause_of(timed_out(3, 0, false, 0)), Cause::keepalive_timeout);
	EXPECT_EQ(cause_of(timed_out(1, 0, false, 2500)), Cause::keepalive_timeout);
	EXPECT_EQ(cause_of(timed_out(0, 0, false, 0)), Cause::unknown);
}

TEST(Cause, OfATimeoutWithDataInFlight)
{
	EXPECT_EQ(cause_of(timed_out(0, 4, true, 0)), Cause::retransmit_timeout);
	EXPECT_EQ(cause_of(timed_out(0, 4, true, 3000)), Cause::user_timeout);
	// Unanswered keepalive probes were sent before the data was written.
	EXPECT_EQ(cause_of(timed_out(2, 4, true, 0)), Cause::retransmit_timeout);
	EXPECT_EQ(cause_of(timed_out(2, 4, true, 3000)), Cause::user_timeout);
	EXPECT_EQ(cause_of(timed_out(20, 4, true, 3000)), Cause::user_timeout);
}

TEST(Cause, OfATimeoutWithAZeroWindow)
{
	EXPECT_EQ(cause_of(timed_out(15, 0, true, 0)), Cause::retransmit_timeout);
	EXPECT_EQ(cause_of(timed_out(0, 0, true, 3000)), Cause::user_timeout);
	EXPECT_EQ(cause_of(timed_out(14, 0, true, 3000)), Cause::user_timeout);
	// tcp_retries2 came first.
	EXPECT_EQ(cause_of(timed_out(15, 0, true, 3600000)), Cause::retransmit_timeout);
}

TEST(Cause, UnreachableForEveryIcmpError)
{
	for (int error : {EHOSTUNREACH, ENETUNREACH, ECONNREFUSED, EHOSTDOWN, ENONET,
	                  ENOPROTOOPT, EOPNOTSUPP, EPROTO, EACCES})
	{
		Evidence evidence = timed_out(0, 4, true, 3000);
		evidence.socket_error = error;
		EXPECT_EQ(cause_of(evidence), Cause::unreachable) << error;
	}
}

TEST(Cause, TerminatedWhenTheSocketWasDestroyed)
{
	EXPECT_EQ(cause_of(ended(TcpState::close, ECONNABORTED)), Cause::terminated);
}

TEST(Cause, UnknownWithoutEnoughInformation)
{
	Evidence evidence = ended(TcpState::close, 0);
	EXPECT_EQ(cause_of(evidence), Cause::unknown);
	evidence.error_not_told = true;
	evidence.info.probes = 3;
	EXPECT_EQ(cause_of(evidence), Cause::unknown);
	evidence.info.state = static_cast<std::uint8_t>(TcpState::established);
	EXPECT_EQ(cause_of(evidence), Cause::unknown);
	// TCP_INFO failed
	EXPECT_EQ(cause_of(ended(TcpState::unknown, 0)), Cause::unknown);
	EXPECT_EQ(cause_of(ended(TcpState::close, EIO)), Cause::unknown);
}

TEST(Cause, OfAUnixSocket)
{
	EXPECT_EQ(cause_of(unix_socket(0)), Cause::client_vanished);
	EXPECT_EQ(cause_of(unix_socket(EPIPE)), Cause::client_vanished);
	EXPECT_EQ(cause_of(unix_socket(ECONNRESET)), Cause::reset);
	EXPECT_EQ(cause_of(unix_socket(EIO)), Cause::unknown);
	Evidence evidence = unix_socket(0);
	evidence.error_not_told = true;
	EXPECT_EQ(cause_of(evidence), Cause::unknown);
}

} // namespace
