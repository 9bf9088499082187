// keepalive_preview()
#include "pg/postgres.hpp"

#include "pg/compat.hpp"
#include "pg/functions/outcome.hpp"
#include "pg/functions/preload.hpp"
#include "pg/functions/session_list.hpp"
#include "pg/functions/visible_policies.hpp"
#include "pg/policy/change.hpp"
#include "pg/policy/matching.hpp"
#include "pg/settings.hpp"

#include <algorithm>
#include <tuple>

extern "C"
{
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "utils/acl.h"
#include "utils/fmgrprotos.h"

	PG_FUNCTION_INFO_V1(keepalive_preview);
}

namespace guard::pg
{
namespace
{

constexpr Column preview_columns[] = {
	{"pid", INT4OID},
	{"datname", NAMEOID},
	{"usename", NAMEOID},
	{"client_addr", INETOID},
	{"policies_now", TEXTARRAYOID},
	{"policies_then", TEXTARRAYOID},
	{"changes", JSONBOID},
	{"detects_idle_now", INTERVALOID},
	{"detects_idle_then", INTERVALOID},
	{"detects_busy_now", INTERVALOID},
	{"detects_busy_then", INTERVALOID},
};

// Policies are edited in one database of a primary only.
void require_editable_policies()
{
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("cannot preview keepalive policies during recovery"),
		                errhint("Policies are edited on the primary server.")));
	if (!in_policy_database())
		ereport(ERROR,
		        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		         errmsg("cannot preview keepalive policies in database \"%s\"",
		                get_database_name(MyDatabaseId)),
		         errdetail("The policies of this cluster are those in database \"%s\" "
		                   "(keepalive_guard.database).",
		                   policy_database),
		         errhint("Connect to database \"%s\" and ask there.", policy_database)));
}

// {"setting": [from, to], ...}
struct Changes
{
	StringInfoData json;
	int count;
};

void add_change(Changes *changes, const char *name, const char *from, const char *to)
{
	appendStringInfo(&changes->json, "%s\"%s\": [%s, %s]", changes->count++ ? ", " : "",
	                 name, from, to);
}

const char *json_time(std::int64_t milliseconds)
{
	return psprintf("\"%s\"", DatumGetCString(DirectFunctionCall1(
								  interval_out, interval_datum(milliseconds))));
}

const char *json_time_limit(std::int32_t milliseconds)
{
	return milliseconds != 0 ? json_time(milliseconds) : "null";
}

const char *json_bool(bool value)
{
	return value ? "true" : "false";
}

const char *json_value(int setting, std::int32_t value)
{
	if (setting == item_of(Setting::keepalives_count))
		return psprintf("%d", value);
	if (setting <= item_of(Setting::keepalives_interval))
		return json_time(value * INT64CONST(1000));
	return json_time(value);
}

void compare_limit(Changes *changes, const char *name, std::int32_t from, std::int32_t to)
{
	if (from != to)
		add_change(changes, name, json_time_limit(from), json_time_limit(to));
}

Changes changes_between(const Outcome &now, const Outcome &then)
{
	Changes changes = {};
	initStringInfo(&changes.json);
	appendStringInfoChar(&changes.json, '{');
	for (int i = now.tcp ? 0 : tcp_setting_count; i < setting_count; i++)
		if (now.values[i] != then.values[i])
			add_change(&changes, item_name(i), json_value(i, now.values[i]),
			           json_value(i, then.values[i]));
	if (now.tcp)
	{
		if (now.keepalive != then.keepalive)
			add_change(&changes, "keepalive", json_bool(now.keepalive),
			           json_bool(then.keepalive));
		compare_limit(&changes, "dead_after", now.dead_after_ms, then.dead_after_ms);
		compare_limit(&changes, "stall_timeout", now.stall_timeout_ms,
		              then.stall_timeout_ms);
		compare_limit(&changes, "dead_after (log only)", now.log_dead_after_ms,
		              then.log_dead_after_ms);
		compare_limit(&changes, "stall_timeout (log only)", now.log_stall_timeout_ms,
		              then.log_stall_timeout_ms);
	}
	appendStringInfoChar(&changes.json, '}');
	return changes;
}

bool same_policies(const PolicyNames &a, const PolicyNames &b)
{
	return memcmp(&a, &b, sizeof(PolicyNames)) == 0;
}

void add_detection(RowValues<preview_columns> &row, const Outcome &now,
                   const Outcome &then, const KernelLimits &limits)
{
	if (!now.tcp)
		return;
	const Detection before = detection(now.detection, limits);
	const Detection after = detection(then.detection, limits);
	row.add_interval_or_null(before.idle.latest);
	row.add_interval_or_null(after.idle.latest);
	row.add_interval_or_null(before.busy.latest);
	row.add_interval_or_null(after.busy.latest);
}

// Compares what the session should have now, which it may not have confirmed yet, with
// what it would get.
void preview_session(ReturnSetInfo *result, const ListedSession &listed,
                     Composer *composer, Basis *basis)
{
	const Session &session = listed.session;
	const Backend &backend = listed.backend;
	const char *role = role_name_of(listed);
	const Composition then = compose_next(*composer, connection_of(session, role),
	                                      backend.database, backend.role);
	basis->tcp = session.transport == Transport::tcp;
	const Outcome outcome_now =
		outcome_of(listed.wanted.settings, session.choices, *basis);
	const Outcome outcome_then = outcome_of(then.settings, session.choices, *basis);
	const Changes changes = changes_between(outcome_now, outcome_then);
	if (changes.count == 0 && same_policies(listed.wanted.policies, then.policies))
		return;

	RowValues<preview_columns> row;
	row.add(Int32GetDatum(session.pid));
	row.add_name(OidIsValid(backend.database) ? get_database_name(backend.database)
	                                          : nullptr);
	row.add_name(role);
	if (listed.visible)
	{
		const Endpoint client = unmapped(session.socket.remote);
		if (basis->tcp)
			row.add(address_datum(client.family, client.address.data()));
		else
			row.add_null();
		row.add_policies(listed.wanted.policies);
		row.add_policies(then.policies);
		row.add(DirectFunctionCall1(jsonb_in, CStringGetDatum(changes.json.data)));
		add_detection(row, outcome_now, outcome_then, basis->limits);
	}
	row.add_remaining_nulls();
	put_row(result, row);
}

struct Candidate
{
	Oid database;
	Oid role;
	int number; // of the backend
};

// The sessions that have begun, those of the same role in the same database together.
Candidate *list_candidates(int *count)
{
	auto *candidates = static_cast<Candidate *>(palloc(MaxBackends * sizeof(Candidate)));
	*count = 0;
	for (int number = 0; number < MaxBackends; number++)
	{
		Backend backend;
		if (read_backend(number, backend) && OidIsValid(backend.role))
			candidates[(*count)++] = {backend.database, backend.role, number};
	}
	const auto key = [](const Candidate &candidate)
	{
		return std::tie(candidate.role, candidate.database, candidate.number);
	};
	std::sort(candidates, candidates + *count,
	          [key](const Candidate &a, const Candidate &b) { return key(a) < key(b); });
	return candidates;
}

void preview(ReturnSetInfo *result, const PolicyList &list)
{
	Basis basis = basis_without_policies();
	const Viewer viewer = current_viewer();
	Composer composer = begin_composing(list);
	auto *listed = static_cast<ListedSession *>(palloc(sizeof(ListedSession)));
	int count;
	const Candidate *candidates = list_candidates(&count);

	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "keepalive preview", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (list_session(candidates[i].number, viewer, *listed) &&
		    listed->slot != nullptr && listed->wanted.version != 0 &&
		    OidIsValid(listed->backend.role))
			preview_session(result, *listed, &composer, &basis);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_preview(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, preview_columns);
	require_preload();
	require_policy_privilege();
	require_editable_policies();
	PolicyList list;
	if (!read_own_policies(&list))
		return 0;
	if (pg_atomic_read_u32(&shared->enabled))
		preview(result, list);
	else
		ereport(NOTICE, (errmsg("no session would change: keepalive_guard.enabled is "
		                        "off")));
	return 0;
}
