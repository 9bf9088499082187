// keepalive_explain()
#include "pg/postgres.hpp"

#include "model/effective.hpp"
#include "pg/compat.hpp"
#include "pg/functions/preload.hpp"
#include "pg/functions/rows.hpp"
#include "pg/policy/matching.hpp"
#include "pg/setting_records.hpp"
#include "pg/settings.hpp"
#include "pg/shared/snapshot.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_db_role_setting.h"
#include "catalog/pg_type.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/inet.h"
#include "utils/rel.h"

	PG_FUNCTION_INFO_V1(keepalive_explain);
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

constexpr Column explain_columns[] = {
	{"position", INT4OID},
	{"policy", TEXTOID},
	{"priority", INT4OID},
	{"matches", BOOLOID},
	{"reason", TEXTOID},
	{"wins", BOOLOID},
	{"enforcement", TEXTOID},
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

// What ALTER ROLE ... SET and ALTER DATABASE ... SET say.
struct StoredSettings
{
	bool given[setting_count];
	std::int32_t value[setting_count];
};

void take_stored(const char *assignment, StoredSettings *stored)
{
	char *name;
	char *text;
	ParseLongOption(assignment, &name, &text);
	for (int i = 0; i < setting_count && text != nullptr; i++)
	{
		const char *wanted = setting_name(static_cast<Setting>(i));
		std::int32_t value;
		if (strcmp(name, wanted) == 0 &&
		    parse_int(text, &value, compat::find_setting(wanted)->flags, nullptr))
		{
			stored->given[i] = true;
			stored->value[i] = value;
		}
	}
	compat::free_long_option(name);
	compat::free_long_option(text);
}

void add_stored(Relation catalog, Oid database, Oid role, StoredSettings *stored)
{
	ScanKeyData keys[2];
	ScanKeyInit(&keys[0], Anum_pg_db_role_setting_setdatabase, BTEqualStrategyNumber,
	            F_OIDEQ, ObjectIdGetDatum(database));
	ScanKeyInit(&keys[1], Anum_pg_db_role_setting_setrole, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(role));
	SysScanDesc scan = systable_beginscan(catalog, DbRoleSettingDatidRolidIndexId, true,
	                                      nullptr, 2, keys);
	while (HeapTuple tuple = systable_getnext(scan))
	{
		bool is_null;
		Datum config = heap_getattr(tuple, Anum_pg_db_role_setting_setconfig,
		                            RelationGetDescr(catalog), &is_null);
		if (is_null)
			continue;
		Datum *assignments;
		int count;
		deconstruct_array(DatumGetArrayTypeP(config), TEXTOID, -1, false, TYPALIGN_INT,
		                  &assignments, nullptr, &count);
		for (int i = 0; i < count; i++)
			take_stored(TextDatumGetCString(assignments[i]), stored);
	}
	systable_endscan(scan);
}

// In the order of process_settings() in postinit.c, the stronger ones last.  A
// physical walsender, which has no database, does not see them at all.
StoredSettings stored_settings(const char *database_name, Oid role)
{
	StoredSettings stored = {};
	if (database_name == nullptr)
		return stored;
	Oid database = get_database_oid(database_name, true);
	Relation catalog = table_open(DbRoleSettingRelationId, AccessShareLock);
	add_stored(catalog, InvalidOid, InvalidOid, &stored);
	if (OidIsValid(database))
		add_stored(catalog, database, InvalidOid, &stored);
	if (OidIsValid(role))
		add_stored(catalog, InvalidOid, role, &stored);
	if (OidIsValid(database) && OidIsValid(role))
		add_stored(catalog, database, role, &stored);
	table_close(catalog, AccessShareLock);
	return stored;
}

// What a new session would get, without connection options of its own.  Settings of TCP
// are in force on TCP only.
SettingValues resulting_values(const ComposedSettings &policy,
                               const StoredSettings &stored,
                               const ConfiguredValues &configured, bool tcp)
{
	Basis basis = {};
	Choices choices = {};
	for (int i = 0; i < setting_count; i++)
	{
		basis.unchosen[i] = policy.has(i) ? policy.value[i] : configured.value[i];
		basis.system_default[i] = system_default(static_cast<Setting>(i));
		choices[i] = {stored.value[i], stored.given[i], false};
	}
	basis.limits = kernel_limits();
	basis.watch_interval_ms = watch_interval;
	basis.tcp = tcp;
	SettingValues values = effective(choices, policy, basis);
	for (int i = 0; i < setting_count; i++)
		if (values[i] == 0)
			values[i] = basis.system_default[i];
	return values;
}

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

// Nullptr if the policy matches.
const char *why_no_match(const Rule &rule, const Policy &policy,
                         const Connection &connection, Oid role)
{
	switch (why_not(rule, policy, connection))
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
	if (!database_agrees(rule, policy, connection))
		return pattern_text("the database", rule.database, policy.database);
	if (!role_agrees(rule, policy, connection, role))
		return pattern_text("the role", rule.role, policy.role);
	return nullptr;
}

// 0: never.
Duration duration_of(std::int32_t milliseconds)
{
	return milliseconds != 0 ? Duration(milliseconds) : Duration();
}

void add_results(RowValues<explain_columns> &row, const Policy *source,
                 const ComposedSettings &policy, const SettingValues &values, bool tcp)
{
	row.add_text(source ? enforcement_name(source->settings.enforcement) : nullptr);
	if (tcp)
	{
		row.add(BoolGetDatum(!policy.keepalive_off()));
		row.add(interval_datum(values[0] * INT64CONST(1000)));
		row.add(interval_datum(values[1] * INT64CONST(1000)));
		row.add(Int32GetDatum(values[2]));
		row.add(interval_datum(values[3]));
	}
	else
		row.add_nulls(5);
	row.add(interval_datum(values[4]));
	row.add_interval_or_null(duration_of(policy.dead_after_ms()));
	row.add_interval_or_null(duration_of(policy.stall_timeout_ms()));
	if (tcp)
	{
		const Detection worst =
			detection(detection_settings_of(values, !policy.keepalive_off(), policy,
		                                    watch_interval),
		              kernel_limits());
		row.add_interval_or_null(worst.idle.latest);
		row.add_interval_or_null(worst.busy.latest);
	}
}

struct CompiledPolicies
{
	Rule *rules;
	Policy *policies;
	std::uint32_t enabled; // the first ones, in match order
	std::uint32_t count;
};

CompiledPolicies copy_policies()
{
	CompiledPolicies copy = {};
	std::uint32_t room = shared->policy_room;
	copy.rules =
		static_cast<Rule *>(palloc_extended(room * sizeof(Rule), MCXT_ALLOC_HUGE));
	copy.policies =
		static_cast<Policy *>(palloc_extended(room * sizeof(Policy), MCXT_ALLOC_HUGE));
	read_policies(
		[&copy](std::uint32_t enabled, std::uint32_t count)
		{
			copy.enabled = enabled;
			copy.count = count;
			memcpy(copy.rules, shared_rules(), count * sizeof(Rule));
			memcpy(copy.policies, shared_policies(), count * sizeof(Policy));
		});
	return copy;
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

void explain(ReturnSetInfo *result, const Connection &connection, Oid role)
{
	StoredSettings stored = stored_settings(connection.database, role);
	ConfiguredValues configured;
	if (!shared->configured.read(configured))
		configured = {};
	CompiledPolicies compiled = copy_policies();
	bool on = pg_atomic_read_u32(&shared->enabled) != 0;
	bool tcp = connection.family != 0;
	bool decided = false;

	// The last row stands for PostgreSQL without a policy.
	for (std::uint32_t i = 0; i <= compiled.count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		const Policy *policy = i < compiled.count ? &compiled.policies[i] : nullptr;
		const char *reason = nullptr;
		if (policy != nullptr)
		{
			if (!on)
				reason = "keepalive_guard.enabled is off";
			else if (i >= compiled.enabled)
				reason = "the policy is not enabled";
			else
				reason = why_no_match(compiled.rules[i], *policy, connection, role);
		}
		bool matches = reason == nullptr;
		bool wins = matches && !decided;
		if (wins)
			decided = true;
		else if (matches)
			reason = policy ? "another policy comes first" : "a policy matches";

		RowValues<explain_columns> row;
		row.add(Int32GetDatum(i + 1));
		row.add_text(policy ? policy->name : nullptr);
		if (policy != nullptr)
			row.add(Int32GetDatum(policy->priority));
		else
			row.add_null();
		row.add(BoolGetDatum(matches));
		row.add_text(reason);
		row.add(BoolGetDatum(wins));
		Composition own = {};
		if (policy != nullptr)
			add_policy(own, *policy);
		add_results(row, policy, own.settings,
		            resulting_values(own.settings, stored, configured, tcp), tcp);
		row.add_remaining_nulls();
		put_row(result, row);
	}
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_explain(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, explain_columns, explain_arguments);
	require_preload();
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

	Connection connection = make_connection(
		database, role, family, address ? ip_addr(address) : nullptr, backend);
	explain(result, connection, get_role_oid(role, true));
	return 0;
}
