#include "model/cause.hpp"

#include <cerrno>

#include "kernel/socket.hpp"

namespace guard
{
namespace
{

constexpr const char *cause_names[cause_count] = {
	"client_closed", "client_vanished",    "reset",           "keepalive_timeout",
	"user_timeout",  "retransmit_timeout", "unreachable",     "dead_after",
	"stall_timeout", "terminated",         "server_shutdown", "authentication_failed",
	"unknown",       "would_end",
};

bool has_state(const Evidence &evidence, TcpState state)
{
	return evidence.info.state == static_cast<std::uint8_t>(state);
}

// tcp_write_err() has closed the socket.  It keeps icsk_retransmits and
// icsk_probes_out as they were; unanswered probes with data pending are window probes,
// or keepalive probes that stopped when the data was sent.
Cause timeout_cause(const Evidence &evidence)
{
	const TcpInfo &info = evidence.info;
	if (info.retransmits == 0 && !evidence.data_pending)
		return info.probes > 0 ? Cause::keepalive_timeout : Cause::unknown;
	if (evidence.user_timeout_ms == 0)
		return Cause::retransmit_timeout;
	// retransmits_timed_out() tests one or the other; tcp_probe_timer() tests both.
	bool window_probes = info.retransmits == 0 && info.probes >= evidence.retries2;
	return window_probes ? Cause::retransmit_timeout : Cause::user_timeout;
}

// The cause when neither side ended the connection by a message.
Cause loss_cause(const Evidence &evidence)
{
	// The state of the connection shows a FIN more reliably than the error does: TLS
	// turns a missing close_notify into ECONNRESET (be_tls_read), and what the server
	// writes after it is answered by a reset.
	if (evidence.tcp &&
	    (evidence.fin_received || has_state(evidence, TcpState::close_wait)))
		return Cause::client_vanished;

	switch (evidence.socket_error)
	{
	case 0: // the end of the stream; with TLS, the FIN may not have arrived yet
		return evidence.error_not_told ||
		               (evidence.tcp && !has_state(evidence, TcpState::established))
		           ? Cause::unknown
		           : Cause::client_vanished;
	case ECONNRESET: // TLS also uses it for what it does not understand
		return !evidence.tcp || has_state(evidence, TcpState::close) ? Cause::reset
		                                                             : Cause::unknown;
	case EPIPE: // tcp_reset() in TCP_CLOSE_WAIT: the FIN came first
		return Cause::client_vanished;
	case ETIMEDOUT:
		return timeout_cause(evidence);
	case EHOSTUNREACH: // sk_err_soft, icmp_err_convert[]
	case ENETUNREACH:
	case ECONNREFUSED:
	case EHOSTDOWN:
	case ENONET:
	case ENOPROTOOPT:
	case EOPNOTSUPP:
	case EPROTO:
	case EACCES:
		return Cause::unreachable;
	case ECONNABORTED: // tcp_abort(): an administrator (ss --kill)
		return Cause::terminated;
	default:
		return Cause::unknown;
	}
}

} // namespace

const char *cause_name(Cause cause) noexcept
{
	return cause_names[static_cast<int>(cause)];
}

bool is_lost(Cause cause) noexcept
{
	switch (cause)
	{
	case Cause::client_closed:
	case Cause::terminated:
	case Cause::server_shutdown:
	case Cause::authentication_failed:
	case Cause::would_end:
		return false;
	default:
		return true;
	}
}

bool is_end_of_session(Cause cause) noexcept
{
	return cause != Cause::authentication_failed && cause != Cause::would_end;
}

Cause cause_of(const Evidence &evidence) noexcept
{
	switch (evidence.end)
	{
	case SessionEnd::terminate_message:
		return Cause::client_closed;
	case SessionEnd::killed:
		switch (evidence.terminated_by)
		{
		case TerminatedBy::postmaster:
			return Cause::server_shutdown;
		case TerminatedBy::watcher_dead_after:
			return Cause::dead_after;
		case TerminatedBy::watcher_stall_timeout:
			return Cause::stall_timeout;
		default:
			return Cause::terminated;
		}
	case SessionEnd::fatal:
		return evidence.authentication ? Cause::authentication_failed : Cause::terminated;
	case SessionEnd::end_of_stream:
	case SessionEnd::connection_lost:
		return loss_cause(evidence);
	case SessionEnd::not_told:
		break;
	}
	return Cause::unknown;
}

} // namespace guard
