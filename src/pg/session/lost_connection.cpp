#include "pg/postgres.hpp"

#include "pg/session/lost_connection.hpp"

#include "pg/settings.hpp"
#include "pg/text.hpp"

extern "C"
{
#include "lib/stringinfo.h"
}

namespace guard::pg
{
namespace
{

// In double quotes, which never end early and never span lines: quotes, backslashes and
// control characters are escaped.
void append_quoted(StringInfo line, const char *text)
{
	appendStringInfoChar(line, '"');
	for (const char *c = text_for_log(text); *c != '\0'; c++)
	{
		if (*c == '"' || *c == '\\')
			appendStringInfo(line, "\\%c", *c);
		else if (*c == '\n')
			appendStringInfoString(line, "\\n");
		else if (*c == '\t')
			appendStringInfoString(line, "\\t");
		else if (static_cast<unsigned char>(*c) < ' ' || *c == 0x7f)
			appendStringInfo(line, "\\x%02x", *c);
		else
			appendStringInfoChar(line, *c);
	}
	appendStringInfoChar(line, '"');
}

void append_string(StringInfo line, const char *key, const char *value)
{
	appendStringInfo(line, " %s=", key);
	append_quoted(line, value);
}

void append_policies(StringInfo line, const Event &event)
{
	const PolicyNames policies = policies_of(event);
	appendStringInfoString(line, policies.count == 0 ? " policies=none" : " policies=");
	for (int i = 0; i < policies.count; i++)
	{
		if (i > 0)
			appendStringInfoChar(line, ',');
		append_quoted(line, policies.name[i]);
	}
}

void append_transaction(StringInfo line, const Event &event)
{
	if (event.transaction_us != not_known)
		appendStringInfo(line, " transaction=%.3fs", event.transaction_us / 1e6);
	else if (event.state != STATE_DISABLED) // track_activities
		appendStringInfoString(line, " transaction=none");
}

} // namespace

void log_lost_connection(const Event &event)
{
	if (!log_lost_connections || !is_lost(event.cause))
		return;

	StringInfoData line;
	initStringInfo(&line);
	append_string(&line, "user", event.role_name);
	append_string(&line, "database", event.database);
	append_string(&line, "application", event.application_name);
	append_policies(&line, event);
	const char *state = state_name(event.state);
	append_string(&line, "state", state ? state : "");
	append_transaction(&line, event);
	if (event.tcp.known)
		appendStringInfo(&line, " silent_for=%.3fs", event.tcp.silent_ms / 1000.0);
	append_string(&line, "detail", detail_of(event));
	ereport(LOG_SERVER_ONLY,
	        (errmsg("lost connection to client %s: %s,%s",
	                endpoint_text(event.client).text, cause_name(event.cause), line.data),
	         errhidestmt(true), errhidecontext(true)));
}

} // namespace guard::pg
