// keepalive_stats(), keepalive_stats_reset()
#include "pg/postgres.hpp"

#include "pg/compat.hpp"
#include "pg/functions/preload.hpp"
#include "pg/functions/rows.hpp"
#include "pg/policy/table.hpp"
#include "pg/settings.hpp"
#include "pg/shared/state.hpp"
#include "pg/shared/statistics.hpp"

#include <algorithm>

extern "C"
{
#include "catalog/pg_authid.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

	PG_FUNCTION_INFO_V1(keepalive_stats);
	PG_FUNCTION_INFO_V1(keepalive_stats_reset);
}

namespace guard::pg
{
namespace
{

constexpr Column stats_columns[] = {
	{"policy", TEXTOID},
	{"sessions", INT8OID},
	{"sessions_total", INT8OID},
	{"client_closed", INT8OID},
	{"client_vanished", INT8OID},
	{"reset", INT8OID},
	{"keepalive_timeout", INT8OID},
	{"user_timeout", INT8OID},
	{"retransmit_timeout", INT8OID},
	{"unreachable", INT8OID},
	{"dead_after", INT8OID},
	{"stall_timeout", INT8OID},
	{"terminated", INT8OID},
	{"server_shutdown", INT8OID},
	{"authentication_failed", INT8OID},
	{"unknown", INT8OID},
	{"would_end", INT8OID},
	{"stats_reset", TIMESTAMPTZOID},
};
static_assert(std::size(stats_columns) == cause_count + 4);

std::int64_t ended_sessions(const std::int64_t *ended)
{
	std::int64_t total = 0;
	for (int i = 0; i < cause_count; i++)
		if (is_end_of_session(static_cast<Cause>(i)))
			total += ended[i];
	return total;
}

// A row of keepalive_stats() in the making.
struct PolicyStatistics
{
	char policy[name_bytes];
	std::int64_t sessions;
	std::int64_t ended[cause_count];
};

bool by_policy(const PolicyStatistics &a, const PolicyStatistics &b)
{
	return strcmp(a.policy, b.policy) < 0;
}

struct StatisticsList
{
	PolicyStatistics *rows;
	int count;
	TimestampTz reset;
};

void add_row(StatisticsList &list, const char *policy)
{
	PolicyStatistics &row = list.rows[list.count++];
	row = {};
	strlcpy(row.policy, policy, name_bytes);
}

// Among the first `count` rows, ordered by name; nullptr if it is not there.
PolicyStatistics *find_row(const StatisticsList &list, int count, const char *policy)
{
	PolicyStatistics key = {};
	strlcpy(key.policy, policy, name_bytes);
	auto *end = list.rows + count;
	auto *row = std::lower_bound(list.rows, end, key, by_policy);
	return row != end && strcmp(row->policy, policy) == 0 ? row : nullptr;
}

// Every policy that is compiled or has counters, and "" for none, ordered by name.
StatisticsList list_statistics()
{
	StatisticsList list = {};
	int count;
	const Counters *counters = copy_counters(&count, &list.reset);
	list.rows = static_cast<PolicyStatistics *>(palloc_extended(
		(count + shared->policy_room + 1) * sizeof(PolicyStatistics), MCXT_ALLOC_HUGE));

	read_policies(
		[&list](std::uint32_t, std::uint32_t compiled)
		{
			list.count = 0;
			add_row(list, "");
			for (std::uint32_t i = 0; i < compiled; i++)
				add_row(list, shared_policies()[i].name);
		});
	std::sort(list.rows, list.rows + list.count, by_policy);

	const int compiled = list.count;
	for (int i = 0; i < count; i++)
	{
		PolicyStatistics *row = find_row(list, compiled, counters[i].policy);
		if (row == nullptr)
		{
			add_row(list, counters[i].policy);
			row = &list.rows[list.count - 1];
		}
		memcpy(row->ended, counters[i].ended, sizeof(row->ended));
	}
	std::sort(list.rows, list.rows + list.count, by_policy);
	return list;
}

void count_sessions(StatisticsList &list)
{
	for (uint32 i = 0; i < shared->slot_count; i++)
	{
		const Slot &slot = shared_slots()[i];
		Session session;
		Wanted wanted;
		if (read_slot(slot, session, wanted) == SlotState::free)
			continue;
		// The name of none is "".
		for (int p = 0; p < Max(wanted.policies.count, 1); p++)
			if (PolicyStatistics *row =
			        find_row(list, list.count, wanted.policies.name[p]))
				row->sessions++;
	}
}

// Whether the caller may see the names of policies, and with them their rows: who may
// read the policy table.  A table in another database is not the one that counts.
bool may_see_policies()
{
	if (has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		return true;
	const char *database = get_database_name(MyDatabaseId);
	if (database == nullptr || strcmp(database, policy_database) != 0)
		return false;
	const Oid table = policy_table();
	return OidIsValid(table) &&
	       pg_class_aclcheck(table, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_stats(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, stats_columns);
	require_preload();
	const bool sees_policies = may_see_policies();
	StatisticsList list = list_statistics();
	count_sessions(list);
	for (int i = 0; i < list.count; i++)
	{
		const PolicyStatistics &statistics = list.rows[i];
		if (statistics.policy[0] != '\0' && !sees_policies)
			continue;
		RowValues<stats_columns> row;
		row.add_text(statistics.policy[0] ? statistics.policy : nullptr);
		row.add(Int64GetDatum(statistics.sessions));
		row.add(Int64GetDatum(statistics.sessions + ended_sessions(statistics.ended)));
		for (std::int64_t ended : statistics.ended)
			row.add(Int64GetDatum(ended));
		row.add(TimestampTzGetDatum(list.reset));
		put_row(result, row);
	}
	return 0;
}

extern "C" PGDLLEXPORT Datum keepalive_stats_reset(PG_FUNCTION_ARGS)
{
	using namespace guard::pg;

	check_definition(fcinfo, VOIDOID);
	require_preload();
	reset_counters();
	PG_RETURN_VOID();
}
