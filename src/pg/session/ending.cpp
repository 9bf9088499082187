#include "pg/postgres.hpp"

#include "pg/session/ending.hpp"

#include "kernel/kernel_settings.hpp"
#include "kernel/socket.hpp"
#include "kernel/socket_options.hpp"
#include "pg/session/own_slot.hpp"
#include "pg/session/record.hpp"
#include "pg/settings.hpp"
#include "pg/text.hpp"

#include <csignal>
#include <ucontext.h>

extern "C"
{
#include "libpq/libpq.h"
#include "pgstat.h"
#include "postmaster/postmaster.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/pidfile.h"
#include "utils/timeout.h"
}

namespace guard::pg
{
namespace
{

emit_log_hook_type previous_log_hook = nullptr;

// What passed by in the server log.
int socket_error = 0; // the first errno of the client's socket
bool client_eof = false;
bool fin_received = false;
bool replication_timeout = false;
int fatal_sqlstate = 0;           // 0: none seen
char fatal_message[detail_bytes]; // of that FATAL, or of a violation of the protocol
bool protocol_violated = false;   // which PostgreSQL treats as the client's end

struct sigaction postgres_sigterm;
volatile sig_atomic_t sigterm_seen = false;
volatile sig_atomic_t sigterm_sender = 0; // of the first one, which decides
volatile sig_atomic_t sigterm_of_checkpointer = false;
// The connection when the first SIGTERM came: PostgreSQL's last message to the client
// was not on its way yet.
TcpInfo info_at_sigterm;
bool data_pending_at_sigterm = false;

bool starts_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

bool is_authentication_failure(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
}

void remember_fatal_message(const ErrorData *error)
{
	copy_clipped(fatal_message, error->message ? error->message : "", detail_bytes);
}

void look_for_fin()
{
	TcpInfo info;
	if (read_tcp_info(MyProcPort->sock, info) == 0 &&
	    info.state == static_cast<std::uint8_t>(TcpState::close_wait))
		fin_received = true;
}

// Whether nobody has closed the connection.
bool is_up()
{
	TcpInfo info;
	return read_tcp_info(MyProcPort->sock, info) != 0 || // a Unix socket
	       info.state == static_cast<std::uint8_t>(TcpState::established);
}

// COMMERROR, in pqcomm.c, be-secure-openssl.c and walsender.c.
void on_communication_error(const ErrorData *error)
{
	const char *id = error->message_id;
	if (starts_with(id, "could not receive data from client") ||
	    starts_with(id, "could not send data to client"))
	{
		if (socket_error == 0)
			socket_error = error->saved_errno;
		look_for_fin();
	}
	else if (starts_with(id, "unexpected EOF on standby connection"))
		client_eof = true;
	else if (starts_with(id, "terminating walsender process due to replication timeout"))
		replication_timeout = true;
	else if (starts_with(id, "invalid message length") ||
	         starts_with(id, "unexpected message type") || starts_with(id, "SSL error"))
	{
		// Of a connection that is up: the client has not gone yet, and if it goes now it
		// is because of the server's answer.
		protocol_violated = is_up();
		remember_fatal_message(error);
	}
}

// StatementTimeoutHandler() makes a SIGTERM of authentication_timeout, and
// ProcessInterrupts() the same message of that as of any other SIGTERM.
bool authentication_has_failed()
{
	return is_authentication_failure(fatal_sqlstate) ||
	       (fatal_sqlstate == ERRCODE_QUERY_CANCELED &&
	        get_timeout_indicator(STATEMENT_TIMEOUT, false));
}

// What the watcher decided about this session, if the SIGTERM was the watcher's.  The
// worker may have exited since.
WatcherVerdict watcher_verdict(const Session &session)
{
	PeerObservation observation;
	if (!my_slot->observation.read(observation) || observation.pid != session.pid ||
	    observation.started != session.started ||
	    observation.decided_by != sigterm_sender)
		return WatcherVerdict::none;
	return observation.verdict;
}

// "terminating connection due to administrator command": log_lost_connection() says more,
// and that it was no administrator.
bool is_said_by_lost_connection(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN && my_slot != nullptr &&
	       log_lost_connections && message_level_is_interesting(LOG_SERVER_ONLY) &&
	       watcher_verdict(own_session) != WatcherVerdict::none;
}

void on_fatal(ErrorData *error)
{
	if (is_said_by_lost_connection(error))
		error->output_to_server = false; // see emit_log_hook in EmitErrorReport()
	fatal_sqlstate = error->sqlerrcode;
	remember_fatal_message(error);
	// Before there is a PGPROC (the startup packet), nothing shared can be locked.
	if (my_slot == nullptr && ClientAuthInProgress && MyProc != nullptr &&
	    authentication_has_failed())
		record_failed_authentication(fatal_message);
}

// PostgreSQL swallows the errno of a lost client but for these messages, which are
// the same from 15 to 19.  message_id is untranslated.
void on_log(ErrorData *error)
{
	if (previous_log_hook)
		previous_log_hook(error);
	if (MyProcPort == nullptr || proc_exit_inprogress)
		return;

	if (error->elevel == COMMERROR && error->message_id != nullptr)
		on_communication_error(error);
	else if (error->elevel == FATAL)
		on_fatal(error);
	else if (error->elevel == ERROR && error->message_id != nullptr &&
	         starts_with(error->message_id, "unexpected EOF on client connection"))
		client_eof = true; // in COPY
}

// HandleWalSndInitStopping(), in the handler of SIGUSR1, ends a walsender that does
// not stream by a SIGTERM to itself when the server shuts down.
bool interrupts_procsignal_handler(const void *context)
{
	return sigismember(&static_cast<const ucontext_t *>(context)->uc_sigmask, SIGUSR1) ==
	       1;
}

void on_sigterm(int number, siginfo_t *info, void *context)
{
	if (!sigterm_seen)
	{
		sigterm_seen = true;
		sigterm_sender = info->si_pid;
		sigterm_of_checkpointer =
			info->si_pid == MyProcPid && interrupts_procsignal_handler(context);
		if (own_is_tcp())
		{
			read_tcp_info(MyProcPort->sock, info_at_sigterm);
			data_pending_at_sigterm = unacknowledged_bytes(MyProcPort->sock) > 0;
		}
	}
	if (postgres_sigterm.sa_flags & SA_SIGINFO)
		postgres_sigterm.sa_sigaction(number, info, context);
	else if (postgres_sigterm.sa_handler != SIG_DFL &&
	         postgres_sigterm.sa_handler != SIG_IGN)
		postgres_sigterm.sa_handler(number);
}

bool logs(int level)
{
	return message_level_is_interesting(level);
}

// As pg_ctl sees it.
bool server_stops()
{
	char text[MAXPGPATH] = "";
	int file = BasicOpenFile("postmaster.pid", O_RDONLY);
	if (file < 0 || read(file, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	if (file >= 0)
		close(file);
	const char *line = text;
	for (int i = 1; i < LOCK_FILE_LINE_PM_STATUS && line != nullptr; i++)
		line = (line = strchr(line, '\n')) ? line + 1 : nullptr;
	return line != nullptr && starts_with(line, PM_STATUS_STOPPING);
}

// A walsender that streams is told to stop by PROCSIG_WALSND_INIT_STOPPING, which a
// physical one shows.  A logical one leaves without a word, and with its client there; or
// with its client's goodbye to that unread.
bool walsender_stops()
{
	if (!am_walsender || MyWalSnd == nullptr)
		return false;
	if (MyWalSnd->state == WALSNDSTATE_STOPPING)
		return true;
	look_for_fin();
	return am_db_walsender && pgStatSessionEndCause == DISCONNECT_NORMAL &&
	       (!fin_received || unread_bytes(MyProcPort->sock) > 0) && server_stops();
}

// A walsender that streams leaves with exit status 0 in every case.
SessionEnd walsender_end(bool stops)
{
	if (client_eof || socket_error != 0 || ClientConnectionLost)
		return SessionEnd::end_of_stream;
	if (stops)
		return SessionEnd::killed;
	if (replication_timeout || protocol_violated)
		return SessionEnd::fatal;
	return logs(COMMERROR) ? SessionEnd::terminate_message : SessionEnd::not_told;
}

SessionEnd fatal_end()
{
	switch (fatal_sqlstate)
	{
	case 0:
		return SessionEnd::not_told;
	case ERRCODE_CONNECTION_FAILURE:
		return ClientConnectionLost ? SessionEnd::connection_lost : SessionEnd::fatal;
	case ERRCODE_PROTOCOL_VIOLATION:
		// "terminating connection because protocol synchronization was lost": so
		// ends the end of the stream in COPY.
		if (client_eof || socket_error != 0)
			return SessionEnd::end_of_stream;
		return logs(ERROR) ? SessionEnd::fatal : SessionEnd::not_told;
	default:
		return SessionEnd::fatal;
	}
}

SessionEnd session_end(bool stops)
{
	switch (pgStatSessionEndCause)
	{
	case DISCONNECT_CLIENT_EOF:
		return SessionEnd::end_of_stream;
	case DISCONNECT_KILLED:
		return SessionEnd::killed;
	case DISCONNECT_FATAL:
		return fatal_end();
	default:
		return am_walsender ? walsender_end(stops) : SessionEnd::terminate_message;
	}
}

// A violation of the protocol looks to PostgreSQL like the end of the stream.
SessionEnd protocol_end(const Evidence &evidence)
{
	return evidence.end == SessionEnd::end_of_stream && protocol_violated
	           ? SessionEnd::fatal
	           : evidence.end;
}

TerminatedBy terminated_by(const Session &session, bool stops)
{
	if ((sigterm_seen && sigterm_sender == PostmasterPid) || sigterm_of_checkpointer ||
	    stops)
		return TerminatedBy::postmaster;
	switch (watcher_verdict(session))
	{
	case WatcherVerdict::dead_after:
		return TerminatedBy::watcher_dead_after;
	case WatcherVerdict::stall_timeout:
		return TerminatedBy::watcher_stall_timeout;
	case WatcherVerdict::none:
		break;
	}
	return TerminatedBy::other;
}

const char *error_name(int error)
{
	switch (error)
	{
	case 0:
		return "no error";
	case ECONNRESET:
		return "ECONNRESET";
	case EPIPE:
		return "EPIPE";
	case ETIMEDOUT:
		return "ETIMEDOUT";
	case EHOSTUNREACH:
		return "EHOSTUNREACH";
	case ENETUNREACH:
		return "ENETUNREACH";
	case ECONNREFUSED:
		return "ECONNREFUSED";
	case ECONNABORTED:
		return "ECONNABORTED";
	case EACCES:
		return "EACCES";
	default:
		return "another error";
	}
}

// TLS has an ECONNRESET for a FIN.
const char *loss_name(const Evidence &evidence)
{
	return evidence.fin_received ? "FIN" : error_name(evidence.socket_error);
}

void describe_connection(const char *what, const Evidence &evidence, char *detail)
{
	if (!evidence.tcp)
	{
		strlcpy(detail, what, detail_bytes);
		return;
	}
	const char *state = tcp_state_name(static_cast<TcpState>(evidence.info.state));
	snprintf(detail, detail_bytes,
	         "%s in state %s, %u unanswered probes, %u retransmissions, data %s", what,
	         state ? state : "?", evidence.info.probes, evidence.info.retransmits,
	         evidence.data_pending ? "in flight" : "not in flight");
}

bool is_by_watcher(const Evidence &evidence)
{
	return evidence.end == SessionEnd::killed &&
	       (evidence.terminated_by == TerminatedBy::watcher_dead_after ||
	        evidence.terminated_by == TerminatedBy::watcher_stall_timeout);
}

void describe(const Evidence &evidence, char *detail)
{
	detail[0] = '\0';
	switch (evidence.end)
	{
	case SessionEnd::terminate_message:
		break;
	case SessionEnd::killed:
		if (evidence.terminated_by == TerminatedBy::postmaster)
			strlcpy(detail, "server shutdown", detail_bytes);
		else if (is_by_watcher(evidence))
			describe_connection("ended by the watcher", evidence, detail);
		else if (sigterm_sender != 0)
			snprintf(detail, detail_bytes, "SIGTERM from process %d",
			         static_cast<int>(sigterm_sender));
		break;
	case SessionEnd::fatal:
		if (replication_timeout)
			strlcpy(detail, "wal_sender_timeout", detail_bytes);
		else
			strlcpy(detail, fatal_message, detail_bytes);
		break;
	case SessionEnd::not_told:
		strlcpy(detail, "reason not logged because of log_min_messages", detail_bytes);
		break;
	case SessionEnd::end_of_stream:
		describe_connection(loss_name(evidence), evidence, detail);
		break;
	case SessionEnd::connection_lost:
		describe_connection(psprintf("%s found while busy", loss_name(evidence)),
		                    evidence, detail);
		break;
	}
}

} // namespace

void install_ending_hooks()
{
	previous_log_hook = emit_log_hook;
	emit_log_hook = on_log;
}

void wrap_sigterm_handler()
{
	struct sigaction action;
	if (sigaction(SIGTERM, nullptr, &postgres_sigterm) != 0)
		return;
	action = postgres_sigterm;
	action.sa_flags |= SA_SIGINFO;
	action.sa_sigaction = on_sigterm;
	sigaction(SIGTERM, &action, nullptr);
}

Ending classify_disconnect(const Session &session, Port *port)
{
	Evidence evidence = {};
	const bool stops = walsender_stops(); // asked once: the answer changes meanwhile
	evidence.end = session_end(stops);
	evidence.terminated_by = terminated_by(session, stops);
	evidence.authentication = is_authentication_failure(fatal_sqlstate);
	evidence.tcp = session.transport == Transport::tcp;
	evidence.fin_received = fin_received;
	evidence.socket_error = socket_error;
	evidence.error_not_told = !logs(COMMERROR);
	if (evidence.tcp)
	{
		if (is_by_watcher(evidence))
		{
			evidence.info = info_at_sigterm;
			evidence.data_pending = data_pending_at_sigterm;
		}
		else
		{
			read_tcp_info(port->sock, evidence.info);
			evidence.data_pending = unacknowledged_bytes(port->sock) > 0;
		}
		evidence.user_timeout_ms =
			session.in_force[static_cast<int>(Setting::user_timeout)];
		// The client check sees that the socket is dead, and nobody asks it why.  What
		// the kernel has not told yet is what it would have told first: an errno that
		// came before was made up by TLS.
		if (int unknown_errno = take_error_of_dead_socket(port->sock))
			evidence.socket_error = unknown_errno;
		if (evidence.socket_error == ETIMEDOUT)
			evidence.retries2 =
				static_cast<int>(integer_sysctl_or("net/ipv4/tcp_retries2", 15));
	}
	evidence.end = protocol_end(evidence);

	Ending ending = {};
	ending.cause = cause_of(evidence);
	ending.info = evidence.info;
	describe(evidence, ending.detail);
	return ending;
}

} // namespace guard::pg
