#include "pg/postgres.hpp"

#include "pg/ending.hpp"

#include "kernel/socket.hpp"
#include "kernel/socket_options.hpp"
#include "pg/events.hpp"
#include "pg/session.hpp"

#include <csignal>

extern "C"
{
#include "libpq/libpq.h"
#include "pgstat.h"
#include "postmaster/postmaster.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/ipc.h"
#include "storage/proc.h"
}

namespace guard::pg
{
namespace
{

emit_log_hook_type previous_log_hook = nullptr;

// What passed by in the server log.
int socket_error = 0; // the first errno of the client's socket
bool standby_eof = false;
bool replication_timeout = false;
int fatal_sqlstate = 0;
char fatal_message[detail_bytes] = "";

struct sigaction postgres_sigterm;
volatile sig_atomic_t sigterm_sender = 0;

bool starts_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

bool is_authentication_failure(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
}

// PostgreSQL swallows the errno of a lost client but for these messages, which are
// the same from 15 to 19 (pqcomm.c, walsender.c).  message_id is untranslated.
void on_log(ErrorData *error)
{
	if (previous_log_hook)
		previous_log_hook(error);
	if (MyProcPort == nullptr)
		return;

	if (error->elevel == COMMERROR && error->message_id != nullptr)
	{
		const char *id = error->message_id;
		if ((starts_with(id, "could not receive data from client") ||
		     starts_with(id, "could not send data to client")) &&
		    socket_error == 0)
			socket_error = error->saved_errno;
		else if (starts_with(id, "unexpected EOF on standby connection"))
			standby_eof = true;
		else if (starts_with(id,
		                     "terminating walsender process due to replication timeout"))
			replication_timeout = true;
	}
	else if (error->elevel == FATAL && !proc_exit_inprogress)
	{
		fatal_sqlstate = error->sqlerrcode;
		strlcpy(fatal_message, error->message ? error->message : "", detail_bytes);
		if (my_slot == nullptr && ClientAuthInProgress &&
		    is_authentication_failure(fatal_sqlstate))
			record_failed_authentication(fatal_message);
	}
}

void on_sigterm(int number, siginfo_t *info, void *context)
{
	sigterm_sender = info->si_pid;
	if (postgres_sigterm.sa_flags & SA_SIGINFO)
		postgres_sigterm.sa_sigaction(number, info, context);
	else if (postgres_sigterm.sa_handler != SIG_DFL &&
	         postgres_sigterm.sa_handler != SIG_IGN)
		postgres_sigterm.sa_handler(number);
}

// A walsender leaves with exit status 0 in every case.
SessionEnd walsender_end()
{
	if (standby_eof || socket_error != 0)
		return SessionEnd::end_of_stream;
	if (replication_timeout)
		return SessionEnd::fatal;
	return SessionEnd::terminate_message;
}

bool walsender_stops()
{
	return am_walsender && MyWalSnd != nullptr && MyWalSnd->state == WALSNDSTATE_STOPPING;
}

SessionEnd session_end()
{
	switch (pgStatSessionEndCause)
	{
	case DISCONNECT_CLIENT_EOF:
		return SessionEnd::end_of_stream;
	case DISCONNECT_KILLED:
		return SessionEnd::killed;
	case DISCONNECT_FATAL:
		return ClientConnectionLost ? SessionEnd::connection_lost : SessionEnd::fatal;
	default:
		if (!am_walsender)
			return SessionEnd::terminate_message;
		return walsender_stops() ? SessionEnd::killed : walsender_end();
	}
}

// What the watcher decided about this session, if it is the watcher's SIGTERM.
WatcherVerdict watcher_verdict(const Session &session)
{
	std::uint32_t worker = pg_atomic_read_u32(&shared->worker);
	Watched watched;
	if (worker == 0 || ProcGlobal->allProcs[worker - 1].pid != sigterm_sender ||
	    !my_slot->watched.read(watched) || watched.pid != session.pid ||
	    watched.started != session.started)
		return WatcherVerdict::none;
	return watched.verdict;
}

Killer killer(const Session &session)
{
	if (sigterm_sender == PostmasterPid || walsender_stops())
		return Killer::postmaster;
	switch (watcher_verdict(session))
	{
	case WatcherVerdict::dead_after:
		return Killer::watcher_dead_after;
	case WatcherVerdict::stall_timeout:
		return Killer::watcher_stall_timeout;
	case WatcherVerdict::none:
		break;
	}
	return Killer::somebody;
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
	default:
		return "another error";
	}
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

void describe(const Evidence &evidence, char *detail)
{
	detail[0] = '\0';
	switch (evidence.end)
	{
	case SessionEnd::terminate_message:
		break;
	case SessionEnd::killed:
		if (evidence.killer == Killer::watcher_dead_after ||
		    evidence.killer == Killer::watcher_stall_timeout)
			describe_connection("ended by the watcher", evidence, detail);
		else if (sigterm_sender != 0)
			snprintf(detail, detail_bytes, "SIGTERM from process %d%s",
			         static_cast<int>(sigterm_sender),
			         sigterm_sender == PostmasterPid ? ", the postmaster" : "");
		break;
	case SessionEnd::fatal:
		if (replication_timeout)
			strlcpy(detail, "wal_sender_timeout", detail_bytes);
		else
			strlcpy(detail, fatal_message, detail_bytes);
		break;
	case SessionEnd::end_of_stream:
		describe_connection(error_name(evidence.socket_error), evidence, detail);
		break;
	case SessionEnd::connection_lost:
		describe_connection(
			psprintf("%s found while busy", error_name(evidence.socket_error)), evidence,
			detail);
		break;
	}
}

} // namespace

void install_ending_hooks()
{
	previous_log_hook = emit_log_hook;
	emit_log_hook = on_log;
}

void watch_for_termination()
{
	struct sigaction action;
	if (sigaction(SIGTERM, nullptr, &postgres_sigterm) != 0)
		return;
	action = postgres_sigterm;
	action.sa_flags |= SA_SIGINFO;
	action.sa_sigaction = on_sigterm;
	sigaction(SIGTERM, &action, nullptr);
}

Ending weigh_ending(const Session &session, Port *port)
{
	Evidence evidence = {};
	evidence.end = session_end();
	evidence.killer = killer(session);
	evidence.authentication = is_authentication_failure(fatal_sqlstate);
	evidence.tcp = session.transport == Transport::tcp;
	evidence.socket_error = socket_error;
	if (evidence.tcp)
	{
		read_tcp_info(port->sock, evidence.info);
		evidence.data_pending = unacknowledged_bytes(port->sock) > 0;
		evidence.user_timeout_ms =
			session.in_force[static_cast<int>(Setting::user_timeout)];
		// The client check sees that the socket is dead, and nobody asks it why.
		if (evidence.socket_error == 0)
			evidence.socket_error = take_error_of_dead_socket(port->sock);
	}

	Ending ending = {};
	ending.cause = cause_of(evidence);
	ending.info = evidence.info;
	describe(evidence, ending.detail);
	return ending;
}

} // namespace guard::pg
