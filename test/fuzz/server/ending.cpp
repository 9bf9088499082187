// How a session ended, after any messages, with any contents of its slot: there is one
// event, which reads back as it was recorded, and one well-formed line in the log.
#include "shared_copy.hpp"

// For what it remembers of the messages.
#include "pg/session/ending.cpp"

namespace guard::pg::fuzz
{
namespace
{

int lines = 0;

// name="...", with quotes, backslashes and control characters escaped.
void check_line(const char *line)
{
	require(strncmp(line, "lost connection to client ", 26) == 0);
	require(pg_verifymbstr(line, strlen(line), true));
	bool quoted = false;
	for (; *line != '\0'; line++)
	{
		require(static_cast<unsigned char>(*line) >= ' ' && *line != 0x7f);
		if (*line == '"')
			quoted = !quoted;
		else if (quoted && *line == '\\')
			require(*++line != '\0');
	}
	require(!quoted);
}

void look_at_log(ErrorData *error)
{
	if (error->elevel != LOG && error->elevel != LOG_SERVER_ONLY)
		return;
	check_line(error->message);
	lines++;
	error->output_to_server = false;
}

void begin()
{
	require(my_slot != nullptr);
	copy_shared();
	previous_log_hook = nullptr;
	emit_log_hook = look_at_log;
}

void forget_messages()
{
	socket_error = fatal_sqlstate = 0;
	client_eof = fin_received = replication_timeout = protocol_violated = false;
	sigterm_seen = sigterm_of_checkpointer = data_pending_at_sigterm = false;
	sigterm_sender = 0;
	info_at_sigterm = {};
	memset(fatal_message, 0, sizeof(fatal_message));
}

void any_message(Input &input)
{
	constexpr int levels[] = {COMMERROR, FATAL, ERROR, LOG, WARNING};
	constexpr const char *ids[] = {
		"could not receive data from client: %m",
		"could not send data to client: %m",
		"unexpected EOF on standby connection",
		"terminating walsender process due to replication timeout",
		"invalid message length",
		"unexpected message type %d",
		"SSL error: %s",
		"unexpected EOF on client connection with an open transaction"};
	constexpr int states[] = {ERRCODE_ADMIN_SHUTDOWN, ERRCODE_CONNECTION_FAILURE,
	                          ERRCODE_PROTOCOL_VIOLATION, ERRCODE_QUERY_CANCELED,
	                          ERRCODE_INVALID_PASSWORD};
	ErrorData message = {};
	message.elevel = levels[input.between(0, int(lengthof(levels)) - 1)];
	const int id = input.between(0, int(lengthof(ids)) + 1);
	if (id <= int(lengthof(ids)))
		message.message_id = id < int(lengthof(ids)) ? ids[id] : any_bytes(input, 100);
	const int state = input.between(0, int(lengthof(states)));
	message.sqlerrcode =
		state < int(lengthof(states)) ? states[state] : input.any<std::int32_t>();
	message.saved_errno = input.any<std::uint8_t>();
	if (input.flag())
		message.message = any_bytes(input, 400);
	message.output_to_server = true;
	on_log(&message);
	require(ends(fatal_message));
}

// PostgreSQL's handler only notes it.
void sigterm()
{
	raise(SIGTERM);
	ProcDiePending = false;
	InterruptPending = false;
}

Ending classify(Input &input, const Session &session)
{
	pgStatSessionEndCause = static_cast<SessionEndType>(input.between(0, 3));
	ClientConnectionLost = input.flag();
	am_walsender = input.flag();
	am_db_walsender = am_walsender && input.flag();
	const int level = log_level();
	constexpr int levels[] = {WARNING, ERROR, FATAL, PANIC};
	log_level() = levels[input.between(0, int(lengthof(levels)) - 1)];
	const Ending ending = classify_disconnect(session, MyProcPort);
	log_level() = level;
	return ending;
}

void check(const Event &event, const Ending &ending)
{
	require(event.cause == ending.cause && event.pid == MyProcPid);
	require(ends(event.database) && ends(event.role_name) &&
	        ends(event.application_name));
	const PolicyNames policies = policies_of(event);
	require(policies.count <= most_sources);
	for (const char(&name)[name_bytes] : policies.name)
		require(ends(name));
	const char *detail = detail_of(event);
	require(detail >= event.texts && ends(event.texts));
	require(strncmp(detail, ending.detail, strlen(detail)) == 0);
}

void run(Input &input)
{
	restore_shared();
	forget_messages();
	for (int messages = input.between(0, 4); messages > 0; messages--)
		any_message(input);
	if (input.flag())
		sigterm();
	pg_atomic_write_u32(&shared->worker,
	                    input.between<std::uint32_t>(0, ProcGlobal->allProcCount));
	if (input.flag())
		sigterm_sender = input.flag() ? PostmasterPid : MyProcPid;
	scribble(input, my_slot->observation);
	if (input.flag())
	{
		my_slot->observation.value.pid = MyProcPid;
		my_slot->observation.value.started = MyStartTimestamp;
	}
	any_wanted(input, my_slot->wanted);
	Session session = own_session;
	session.transport = input.flag() ? Transport::tcp : Transport::unix_socket;

	// As record_session() in session.cpp.
	Wanted wanted;
	if (!my_slot->wanted.read(wanted))
		wanted = {};
	const Ending ending = classify(input, session);
	require(cause_name(ending.cause) != nullptr && ends(ending.detail));
	lines = 0;
	record_end(session, wanted, ending, MyProcPort);
	am_walsender = am_db_walsender = false;
	if (lines != (is_lost(ending.cause) ? 1 : 0))
		fprintf(stderr, "%d lines for %s\n", lines, cause_name(ending.cause));
	require(lines == (is_lost(ending.cause) ? 1 : 0));
	EventWalk walk;
	begin_walk(walk, nullptr);
	const Event *event = next_event(walk);
	require(event != nullptr);
	check(*event, ending);
	require(others_unchanged());
}

} // namespace

extern const Target ending_target = {"ending", false, begin, run};

} // namespace guard::pg::fuzz
