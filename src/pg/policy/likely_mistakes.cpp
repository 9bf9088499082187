#include "pg/postgres.hpp"

#include "pg/policy/likely_mistakes.hpp"

#include "model/near_name.hpp"
#include "pg/compat.hpp"

#include <algorithm>

extern "C"
{
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_auth_members.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"
}

namespace guard::pg
{
namespace
{

void add(LikelyMistakes &mistakes, const LikelyMistake &mistake)
{
	if (mistakes.count < most_mistakes)
		mistakes.found[mistakes.count++] = mistake;
}

// --- names ----------------------------------------------------------------------

enum class Catalog
{
	roles,
	databases,
};

const char *name_in(Catalog catalog, HeapTuple tuple)
{
	if (catalog == Catalog::roles)
		return NameStr(reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple))->rolname);
	return NameStr(reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple))->datname);
}

// A name in the catalog that may have been meant; nullptr if there is none.
const char *near_name(Catalog catalog, const char *wanted, int *searches)
{
	if (*searches <= 0)
		return nullptr;
	--*searches;

	NearName search = search_near_name(wanted);
	Relation relation =
		table_open(catalog == Catalog::roles ? AuthIdRelationId : DatabaseRelationId,
	               AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(relation, 0, nullptr);
	while (HeapTuple tuple = heap_getnext(scan, ForwardScanDirection))
		offer_name(search, name_in(catalog, tuple));
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	return search.best[0] ? pstrdup(search.best) : nullptr;
}

// A name that does not exist; `prefix` is "+" for a group.
void add_missing(LikelyMistakes &mistakes, Catalog catalog, const char *kind,
                 const char *column, const char *prefix, const char *name, int *searches)
{
	LikelyMistake mistake = {MistakeKind::never_matches,
	                         psprintf("%s \"%s\" does not exist", kind, name), nullptr,
	                         "enabled = false"};
	if (const char *near = near_name(catalog, name, searches))
	{
		const char *meant = psprintf("%s%s", prefix, near);
		mistake.hint = psprintf("Did you mean \"%s\"?", meant);
		mistake.change = psprintf("%s = %s", column, quote_literal_cstr(meant));
	}
	else if (strcmp(name, "all") == 0)
	{
		mistake.hint = psprintf("Leave \"%s\" NULL to match all of them.", column);
		mistake.change = psprintf("%s = NULL", column);
	}
	add(mistakes, mistake);
}

void check_database_name(LikelyMistakes &mistakes, const Rule &rule, const Policy &policy,
                         int *searches)
{
	if (rule.database != PatternKind::name ||
	    OidIsValid(get_database_oid(policy.database, true)))
		return;
	if (strcmp(policy.database, "replication") == 0)
		add(mistakes,
		    {MistakeKind::never_matches, "database \"replication\" does not exist",
		     "To match replication connections, set \"backend\" to "
		     "\"replication\".",
		     "database = NULL, backend = 'replication'"});
	else
		add_missing(mistakes, Catalog::databases, "database", "database", "",
		            policy.database, searches);
}

bool can_log_in(Oid role)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	if (!HeapTupleIsValid(tuple))
		return false;
	const bool can = reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	return can;
}

// Looks at the first member only: there may be very many.
bool has_members(Oid role)
{
	ScanKeyData key;
	ScanKeyInit(&key, Anum_pg_auth_members_roleid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(role));
	Relation relation = table_open(AuthMemRelationId, AccessShareLock);
	SysScanDesc scan =
		systable_beginscan(relation, AuthMemRoleMemIndexId, true, nullptr, 1, &key);
	const bool has = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return has;
}

void check_role_name(LikelyMistakes &mistakes, const Rule &rule, const Policy &policy,
                     int *searches)
{
	if (rule.role != PatternKind::name && rule.role != PatternKind::group)
		return;
	const bool is_group = rule.role == PatternKind::group;
	const Oid role = get_role_oid(policy.role, true);
	if (!OidIsValid(role))
		add_missing(mistakes, Catalog::roles, is_group ? "group" : "role", "role",
		            is_group ? "+" : "", policy.role, searches);
	else if (!is_group && !can_log_in(role) && has_members(role))
	{
		const char *group = psprintf("+%s", policy.role);
		add(mistakes,
		    {MistakeKind::never_matches,
		     psprintf("role \"%s\" cannot log in, but has members", policy.role),
		     psprintf("Did you mean \"%s\"?", group),
		     psprintf("role = %s", quote_literal_cstr(group))});
	}
}

// --- times ----------------------------------------------------------------------

constexpr std::int64_t second = 1000;

struct TimeColumn
{
	int item;
	const char *name;
	std::int32_t unit_ms;
	MistakeKind kind;      // if it is too short
	std::int32_t least_ms; // shorter ones are likely mistakes; 0: none is
	const char *if_shorter;
};

constexpr const char *ends_living_clients =
	"is so short that living clients on a lossy network are ended";

constexpr TimeColumn time_columns[] = {
	{item_of(Setting::keepalives_idle), "tcp_keepalives_idle", 1000, MistakeKind::value,
     0, nullptr},
	{item_of(Setting::keepalives_interval), "tcp_keepalives_interval", 1000,
     MistakeKind::value, 0, nullptr},
	{item_of(Setting::user_timeout), "tcp_user_timeout", 1, MistakeKind::probes, 5000,
     ends_living_clients},
	{item_of(Setting::client_check), "client_connection_check_interval", 1,
     MistakeKind::value, 1000, "interrupts each query more often than once a second"},
	{item_dead_after, "dead_after", 1, MistakeKind::value, 5000, ends_living_clients},
	{item_stall_timeout, "stall_timeout", 1, MistakeKind::value, 5000,
     "is so short that living clients are ended that pause for a moment"},
};

// As a policy has it: "30s", "1500ms".
const char *time_text(std::int64_t ms)
{
	return ms % second == 0 ? psprintf("%llds", static_cast<long long>(ms / second))
	                        : psprintf("%lldms", static_cast<long long>(ms));
}

// As an interval is shown: "8:20:00".
const char *clock_text(std::int64_t ms)
{
	const long long seconds = ms / second;
	return psprintf("%lld:%02lld:%02lld", seconds / 3600, seconds / 60 % 60,
	                seconds % 60);
}

// A number without a unit is in seconds.  A round number of thousands is most likely in
// milliseconds, unless it is a round number of hours or days as well.
bool looks_like_milliseconds(const TimeColumn &column, std::int64_t ms)
{
	constexpr std::int64_t hour = 3600 * second;
	// Of these two PostgreSQL's own unit is the second, and 1000 s are nothing unusual.
	const std::int64_t least = column.unit_ms == 1000 ? 5000 * second : 1000 * second;
	const bool is_round = ms % (24 * hour) == 0 || (ms <= 24 * hour && ms % hour == 0);
	return ms >= least && ms % (1000 * second) == 0 && !is_round;
}

void check_time(LikelyMistakes &mistakes, const Policy &policy, const TimeColumn &column)
{
	const Settings &settings = policy.settings;
	if (!settings.has(column.item))
		return;
	const std::int64_t ms =
		std::int64_t{settings.value[column.item]} * std::int64_t{column.unit_ms};
	if (looks_like_milliseconds(column, ms))
	{
		const char *meant = time_text(ms / 1000);
		add(mistakes,
		    {MistakeKind::value,
		     psprintf("%s is %s, most likely a number of milliseconds without its unit",
		              column.name, clock_text(ms)),
		     psprintf("A number without a unit is in seconds; did you mean %s?", meant),
		     psprintf("%s = '%s'", column.name, meant)});
		return;
	}
	const bool ends_nothing = settings.log_only && (column.item == item_dead_after ||
	                                                column.item == item_stall_timeout);
	if (ms > 0 && ms < column.least_ms && !ends_nothing)
	{
		const char *least = time_text(column.least_ms);
		add(mistakes,
		    {column.kind,
		     psprintf("%s of %s %s", column.name, time_text(ms), column.if_shorter),
		     psprintf("Set it to %s or more.", least),
		     psprintf("%s = '%s'", column.name, least)});
	}
}

// How long probes go without an answer until the kernel gives up.  For what another
// policy or PostgreSQL gives, nothing is assumed.
void check_keepalive(LikelyMistakes &mistakes, const Settings &settings)
{
	constexpr std::int64_t least = 5;
	const std::int64_t idle = settings.get(Setting::keepalives_idle);
	const std::int64_t interval = settings.get(Setting::keepalives_interval);
	const std::int64_t count = settings.get(Setting::keepalives_count);
	const std::int64_t user_timeout = settings.get(Setting::user_timeout);
	const bool is_off =
		settings.has(item_keepalive) && settings.value[item_keepalive] == 0;
	if (is_off || interval == 0)
		return;

	// The kernel does not count the probes of a connection with a user timeout.
	if (user_timeout >= least * second && idle != 0)
	{
		const std::int64_t periods =
			(user_timeout - idle * second + interval * second - 1) / (interval * second);
		const std::int64_t verdict = interval * std::max<std::int64_t>(periods, 1);
		if (verdict < least)
			add(mistakes, {MistakeKind::probes,
			               psprintf("with a tcp_user_timeout of %s, a client that leaves "
			                        "probes unanswered for %s is given up",
			                        time_text(user_timeout), time_text(verdict * second)),
			               "Living clients on a lossy network are ended. Set "
			               "tcp_user_timeout to at least tcp_keepalives_idle plus 5s.",
			               psprintf("tcp_user_timeout = '%s'",
			                        time_text((idle + least) * second))});
	}
	else if (user_timeout == 0 && count != 0 && interval * count < least)
		add(mistakes,
		    {MistakeKind::probes,
		     psprintf("a client that leaves probes unanswered for %s "
		              "(tcp_keepalives_count * tcp_keepalives_interval) is given up",
		              time_text(interval * count * second)),
		     "Living clients on a lossy network are ended. Set tcp_keepalives_count so "
		     "that it takes 5s or more.",
		     psprintf("tcp_keepalives_count = %lld",
		              static_cast<long long>((least + interval - 1) / interval))});
}

} // namespace

LikelyMistakes likely_mistakes(const Rule &rule, const Policy &policy, int *searches)
{
	LikelyMistakes mistakes = {};
	const Settings &settings = policy.settings;
	if (!rule.enabled)
	{
		if (settings.final)
			add(mistakes,
			    {MistakeKind::no_effect,
			     "\"final\" has no effect while the policy is disabled",
			     "Later policies are in force for its connections.", "final = false"});
		return mistakes;
	}

	check_database_name(mistakes, rule, policy, searches);
	check_role_name(mistakes, rule, policy, searches);
	if (settings.given == 0 && !settings.final)
		add(mistakes, {MistakeKind::no_effect, "the policy sets nothing",
		               "To exempt its connections from later policies, set \"final\".",
		               "enabled = false"});
	for (const TimeColumn &column : time_columns)
		check_time(mistakes, policy, column);
	check_keepalive(mistakes, settings);
	return mistakes;
}

void warn_of_likely_mistakes(const PolicyRow &row)
{
	static TransactionId last_transaction = InvalidTransactionId;
	static CommandId last_command = InvalidCommandId;
	static int searches = 0;
	static int warnings = 0; // that this command may still give

	const TransactionId transaction = GetTopTransactionId();
	const CommandId command = GetCurrentCommandId(false);
	if (transaction != last_transaction || command != last_command)
	{
		searches = most_name_searches;
		warnings = most_warnings;
	}
	last_transaction = transaction;
	last_command = command;

	if (warnings <= 0)
		return;
	const LikelyMistakes mistakes = likely_mistakes(row.rule, row.policy, &searches);
	for (int i = 0; i < mistakes.count && warnings > 0; i++)
	{
		const LikelyMistake &mistake = mistakes.found[i];
		ereport(WARNING,
		        (errmsg("keepalive policy \"%s\": %s", row.policy.name, mistake.problem),
		         mistake.hint ? errhint("%s", mistake.hint) : 0));
		if (--warnings == 0)
			ereport(WARNING,
			        (errmsg("no more warnings about keepalive policies are shown for "
			                "this command"),
			         errhint("After COMMIT, keepalive_check() shows all of them.")));
	}
}

} // namespace guard::pg
