// keepalive_explain()
#include "pg/postgres.hpp"

#include "pg/compat.hpp"
#include "pg/functions/outcome.hpp"
#include "pg/functions/preload.hpp"
#include "pg/functions/session_list.hpp"
#include "pg/functions/stored_choices.hpp"
#include "pg/functions/visible_policies.hpp"
#include "pg/policy/matching.hpp"

extern "C"
{
#include "catalog/pg_type.h"
#include "utils/acl.h"
#include "utils/inet.h"

	PG_FUNCTION_INFO_V1(keepalive_explain);
	PG_FUNCTION_INFO_V1(keepalive_explain_session);
}

namespace guard::pg
{
namespace
{

constexpr Argument explain_arguments[] = {
	{"database", TEXTOID, true},
	{"role", TEXTOID, false},
	{"client_addr", INETOID, true},
	{"backend", TEXTOID, true},
};

constexpr Argument explain_session_arguments[] = {{"pid", INT4OID, false}};

constexpr Column explain_columns[] = {
	{"position", INT4OID},
	{"kind", TEXTOID},
	{"policy", TEXTOID},
	{"priority", INT4OID},
	{"matches", BOOLOID},
	{"reason", TEXTOID},
	{"gives", TEXTARRAYOID},
	{"enforcement", TEXTOID},
	{"final", BOOLOID},
	{"log_only", BOOLOID},
	{"keepalive", BOOLOID},
	{"tcp_keepalives_idle", INTERVALOID},
	{"tcp_keepalives_interval", INTERVALOID},
	{"tcp_keepalives_count", INT4OID},
	{"tcp_user_timeout", INTERVALOID},
	{"client_connection_check_interval", INTERVALOID},
	{"dead_after", INTERVALOID},
	{"stall_timeout", INTERVALOID},
	{"detects_idle", INTERVALOID},
	{"detects_busy", INTERVALOID},
};

using ExplainRow = RowValues<explain_columns>;

// The session that is asked about.
struct Subject
{
	Connection connection;
	Oid role;
	Choices choices;
	const char *chooser; // whose choices these are
};

const char *pattern_text(const char *what, PatternKind kind, const char *pattern)
{
	switch (kind)
	{
	case PatternKind::regex:
		return psprintf("%s does not match /%s", what, pattern);
	case PatternKind::group:
		return psprintf("%s is not a member of %s", what, pattern);
	default:
		return psprintf("%s is not %s", what, pattern);
	}
}

// The database or role of a policy that does not exist, nullptr if both do.
const char *missing_object(const Rule &rule, const Policy &policy)
{
	if (rule.database == PatternKind::name &&
	    !OidIsValid(get_database_oid(policy.database, true)))
		return psprintf("there is no database \"%s\"", policy.database);
	if ((rule.role == PatternKind::name || rule.role == PatternKind::group) &&
	    !OidIsValid(get_role_oid(policy.role, true)))
		return psprintf("there is no role \"%s\"", policy.role);
	return nullptr;
}

const char *mismatch_text(Mismatch mismatch, const Rule &rule, const Policy &policy,
                          const Connection &connection)
{
	switch (mismatch)
	{
	case Mismatch::backend:
		return rule.backend == BackendKind::client ? "for clients only"
		                                           : "for replication only";
	case Mismatch::client:
		return connection.family == 0 ? "never matches a Unix socket"
		                              : "the client's address is not in its network";
	case Mismatch::database:
		return connection.database == nullptr
		           ? "the connection has no database"
		           : pattern_text("the database", rule.database, policy.database);
	case Mismatch::role:
		return pattern_text("the role", rule.role, policy.role);
	case Mismatch::none:
		break;
	}
	return nullptr;
}

// Nullptr if the policy matches.
const char *why_no_match(const Rule &rule, const Policy &policy, const Subject &subject)
{
	const Connection &connection = subject.connection;
	Mismatch mismatch = why_not(rule, policy, connection);
	if (mismatch == Mismatch::none && !database_agrees(rule, policy, connection))
		mismatch = Mismatch::database;
	if (mismatch == Mismatch::none &&
	    !role_agrees(rule, policy, connection, subject.role))
		mismatch = Mismatch::role;
	if (mismatch == Mismatch::none)
		return nullptr;
	const char *missing = missing_object(rule, policy);
	return missing ? missing : mismatch_text(mismatch, rule, policy, connection);
}

// The policies that match, one after the other in match order.
struct Walk
{
	Composition composition;
	bool ended;        // no later policy can give anything
	const char *final; // the policy that is, if it has ended the walk
};

// Returns what the policy gives.
std::uint8_t walk_on(Walk *walk, const Policy &policy)
{
	if (walk->ended)
		return 0;
	const Composition before = walk->composition;
	walk->ended = !add_policy(walk->composition, policy);
	if (policy.settings.final)
		walk->final = policy.name;
	return items_given(before, walk->composition);
}

const char *why_nothing(const Walk &walk, const Policy &policy)
{
	if (policy.settings.given == 0)
		return "sets nothing";
	if (walk.final != nullptr && walk.final != policy.name)
		return psprintf("policy \"%s\" is final", walk.final);
	return "policies before it give all that it sets";
}

void add_own_settings(ExplainRow &row, const Settings &settings)
{
	row.add_text(enforcement_name(settings.enforcement));
	row.add(BoolGetDatum(settings.final));
	row.add(BoolGetDatum(settings.log_only));
	if (settings.has(item_keepalive))
		row.add(BoolGetDatum(settings.value[item_keepalive] != 0));
	else
		row.add_null();
	for (int item = 0; item < item_count; item++)
	{
		if (item == item_keepalive)
			continue;
		const std::int64_t value = settings.value[item];
		if (!settings.has(item))
			row.add_null();
		else if (item == item_of(Setting::keepalives_count))
			row.add(Int32GetDatum(settings.value[item]));
		else if (item <= item_of(Setting::keepalives_interval))
			row.add(interval_datum(value * 1000));
		else
			row.add(interval_datum(value));
	}
	row.add_nulls(2);
}

void put_policy(ReturnSetInfo *result, int position, const Policy &policy,
                const char *no_match, Walk *walk)
{
	ExplainRow row;
	row.add(Int32GetDatum(position));
	row.add_text("policy");
	row.add_text(policy.name);
	row.add(Int32GetDatum(policy.priority));
	row.add(BoolGetDatum(no_match == nullptr));
	if (no_match != nullptr)
	{
		row.add_text(no_match);
		row.add_null();
	}
	else
	{
		const std::uint8_t items = walk_on(walk, policy);
		row.add_text(items == 0 ? why_nothing(*walk, policy) : nullptr);
		row.add(item_names_datum(items));
	}
	add_own_settings(row, policy.settings);
	put_row(result, row);
}

// Which choices count and which do not.  Nullptr if there are none.
const char *choices_text(const Subject &subject, const Outcome &outcome,
                         const Basis &basis)
{
	StringInfoData honoured;
	StringInfoData refused;
	initStringInfo(&honoured);
	initStringInfo(&refused);
	for (int i = outcome.tcp ? 0 : tcp_setting_count; i < setting_count; i++)
	{
		const Choice &choice = subject.choices[i];
		if (!choice.made)
			continue;
		const std::int32_t value =
			choice.value != 0 ? choice.value : basis.system_default[i];
		StringInfo list = value == outcome.values[i] ? &honoured : &refused;
		appendStringInfo(list, "%s%s", list->len > 0 ? ", " : "", item_name(i));
	}
	StringInfoData text;
	initStringInfo(&text);
	if (honoured.len > 0)
		appendStringInfo(&text, "%s chose %s", subject.chooser, honoured.data);
	if (refused.len > 0)
		appendStringInfo(&text, "%s may not choose %s",
		                 text.len > 0 ? ", and" : subject.chooser, refused.data);
	return text.len > 0 ? text.data : nullptr;
}

void put_outcome(ReturnSetInfo *result, int position, const char *kind,
                 const Subject &subject, const ComposedSettings &composed,
                 std::uint8_t given_by_policies)
{
	Basis basis = basis_without_policies();
	basis.tcp = subject.connection.family != 0;
	const Outcome outcome = outcome_of(composed, subject.choices, basis);
	const bool is_postgres = strcmp(kind, "postgresql") == 0;

	ExplainRow row;
	row.add(Int32GetDatum(position));
	row.add_text(kind);
	row.add_nulls(2);
	if (is_postgres)
		row.add(BoolGetDatum(true));
	else
		row.add_null();
	row.add_text(choices_text(subject, outcome, basis));
	if (is_postgres)
		row.add(item_names_datum(postgres_items & ~given_by_policies));
	else
		row.add_null();
	row.add_nulls(3);
	add_outcome(row, outcome, basis.limits);
	put_row(result, row);
}

void explain(ReturnSetInfo *result, const Subject &subject)
{
	const PolicyList list = visible_policies();
	const bool on = pg_atomic_read_u32(&shared->enabled) != 0;
	Walk walk = {};

	MemoryContext row_context = AllocSetContextCreate(
		CurrentMemoryContext, "keepalive explain", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(row_context);
	for (std::uint32_t i = 0; i < list.count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		const char *no_match = nullptr;
		if (!on)
			no_match = "keepalive_guard.enabled is off";
		else if (i >= list.enabled)
			no_match = "the policy is not enabled";
		else
			no_match = why_no_match(list.rules[i], list.policies[i], subject);
		put_policy(result, i + 1, list.policies[i], no_match, &walk);
		MemoryContextReset(row_context);
	}
	const ComposedSettings &composed = walk.composition.settings;
	put_outcome(result, list.count + 1, "postgresql", subject, {}, composed.given);
	put_outcome(result, list.count + 2, "outcome", subject, composed, composed.given);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(row_context);
}

BackendKind backend_argument(const char *text)
{
	if (strcmp(text, "client") == 0)
		return BackendKind::client;
	if (strcmp(text, "replication") == 0)
		return BackendKind::replication;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
	                errmsg("invalid value for argument \"backend\": \"%s\"", text),
	                errhint("Valid values are \"client\" and \"replication\".")));
}

// Such a connection is none yet; that may be a slip of the pen.
void notice_missing(const Subject &subject)
{
	const Connection &connection = subject.connection;
	if (connection.database != nullptr &&
	    !OidIsValid(get_database_oid(connection.database, true)))
		ereport(NOTICE, (errmsg("database \"%s\" does not exist", connection.database)));
	if (!OidIsValid(subject.role))
		ereport(NOTICE, (errmsg("role \"%s\" does not exist", connection.role)));
}

bool find_session(int pid, ListedSession *listed)
{
	const Viewer viewer = current_viewer();
	for (int number = 0; number < MaxBackends; number++)
		if (list_session(number, viewer, *listed) && listed->session.pid == pid)
			return listed->slot != nullptr;
	return false;
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_explain(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, explain_columns, explain_arguments);
	require_preload();
	require_policy_privilege();
	const char *database =
		PG_ARGISNULL(0) ? nullptr : text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *role = text_to_cstring(PG_GETARG_TEXT_PP(1));
	const inet *address = PG_ARGISNULL(2) ? nullptr : PG_GETARG_INET_PP(2);
	BackendKind backend = PG_ARGISNULL(3)
	                          ? BackendKind::client
	                          : backend_argument(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	std::uint8_t family = 0;
	if (address != nullptr)
		family = ip_family(address) == PGSQL_AF_INET ? 4 : 6;

	Subject subject = {};
	subject.connection = make_connection(database, role, family,
	                                     address ? ip_addr(address) : nullptr, backend);
	subject.role = get_role_oid(role, true);
	subject.choices = stored_choices(database, subject.role);
	subject.chooser = "ALTER ROLE or ALTER DATABASE";
	notice_missing(subject);
	explain(result, subject);
	return 0;
}

extern "C" PGDLLEXPORT Datum keepalive_explain_session(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result =
		begin_rows(fcinfo, explain_columns, explain_session_arguments);
	require_preload();
	require_policy_privilege();
	const int pid = PG_GETARG_INT32(0);
	ListedSession listed;
	if (!find_session(pid, &listed))
	{
		// As pg_log_backend_memory_contexts() does.
		ereport(
			WARNING,
			(errmsg("PID %d is not a client backend or WAL sender of this server", pid)));
		return 0;
	}
	if (!listed.visible)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		     errmsg("permission denied to explain the session of PID %d", pid),
		     errdetail("Only roles with privileges of the role that owns the session or "
		               "of \"pg_read_all_stats\" may explain it.")));

	Subject subject = {};
	subject.connection = connection_of(listed.session, role_name_of(listed));
	subject.role = listed.backend.role;
	subject.choices = listed.session.choices;
	subject.chooser = "the session, its role or its database";
	explain(result, subject);
	return 0;
}
