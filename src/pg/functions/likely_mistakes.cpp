// keepalive_likely_mistakes(): what keepalive_check() tells of values of compiled
// policies that are most likely a mistake, and of policies that only their names put in
// order.
#include "pg/postgres.hpp"

#include "model/match.hpp"
#include "pg/functions/policy_table.hpp"
#include "pg/functions/rows.hpp"
#include "pg/functions/visible_policies.hpp"
#include "pg/policy/likely_mistakes.hpp"
#include "pg/policy/matching.hpp"
#include "pg/policy/table.hpp"
#include "pg/text.hpp"

extern "C"
{
#include "utils/acl.h"
#include "utils/builtins.h"

	PG_FUNCTION_INFO_V1(keepalive_likely_mistakes);
}

namespace guard::pg
{
namespace
{

constexpr Column likely_mistakes_columns[] = {
	{"severity", TEXTOID},
	{"policy", TEXTOID},
	{"problem", TEXTOID},
	{"hint", TEXTOID},
};

struct EnabledPolicies
{
	Rule *rules;
	Policy *policies;
	Oid *roles;           // of a name or a +group; InvalidOid if there is no such role
	std::uint32_t *ranks; // equal for those that only their names put in order
	std::uint32_t count;
};

bool differ_in_name_only(const EnabledPolicies &all, std::uint32_t earlier,
                         std::uint32_t later)
{
	Policy renamed = all.policies[later];
	strlcpy(renamed.name, all.policies[earlier].name, name_bytes);
	return !before(all.rules[earlier], all.policies[earlier], all.rules[later], renamed);
}

EnabledPolicies enabled_policies()
{
	const PolicyList list = compiled_policies();
	EnabledPolicies all = {};
	all.rules = list.rules;
	all.policies = list.policies;
	all.count = list.enabled;
	all.roles = named_roles(list);
	all.ranks = static_cast<std::uint32_t *>(palloc_extended(
		(all.count + 1) * sizeof(std::uint32_t), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO));
	for (std::uint32_t i = 1; i < all.count; i++)
		all.ranks[i] = all.ranks[i - 1] + !differ_in_name_only(all, i - 1, i);
	return all;
}

// Whether both set something, and not to the same value.
bool disagree(const Settings &a, const Settings &b)
{
	for (int item = 0; item < item_count; item++)
		if (a.has(item) && b.has(item) && a.value[item] != b.value[item])
			return true;
	return false;
}

// Whether there are names that both patterns match.  What only PostgreSQL could tell, of
// two regular expressions for example, counts as no.
bool databases_overlap(const EnabledPolicies &all, std::uint32_t a, std::uint32_t b)
{
	const Rule &rule = all.rules[a];
	const Rule &other = all.rules[b];
	if (rule.database == PatternKind::any || other.database == PatternKind::any)
		return true;
	if (rule.database == other.database)
		return strcmp(all.policies[a].database, all.policies[b].database) == 0;
	const std::uint32_t regex = rule.database == PatternKind::regex ? a : b;
	const std::uint32_t name = regex == a ? b : a;
	return database_agrees(all.rules[regex], all.policies[regex],
	                       make_connection(all.policies[name].database, "", 0, nullptr,
	                                       BackendKind::client));
}

bool role_is_matched(const EnabledPolicies &all, std::uint32_t name, std::uint32_t by)
{
	return all.rules[name].role == PatternKind::name && OidIsValid(all.roles[name]) &&
	       role_agrees(all.rules[by], all.policies[by],
	                   make_connection("", all.policies[name].role, 0, nullptr,
	                                   BackendKind::client),
	                   all.roles[name]);
}

bool roles_overlap(const EnabledPolicies &all, std::uint32_t a, std::uint32_t b)
{
	const Rule &rule = all.rules[a];
	const Rule &other = all.rules[b];
	if (rule.role == PatternKind::any || other.role == PatternKind::any)
		return true;
	if (rule.role == other.role &&
	    strcmp(all.policies[a].role, all.policies[b].role) == 0)
		return true;
	if (rule.role == PatternKind::name && other.role == PatternKind::name)
		return false;
	return role_is_matched(all, a, b) || role_is_matched(all, b, a);
}

// Of policies of the same rank, the dearest question last.
bool compete(const EnabledPolicies &all, std::uint32_t a, std::uint32_t b)
{
	return all.rules[a].backend == all.rules[b].backend &&
	       memcmp(&all.rules[a].client, &all.rules[b].client, sizeof(Network)) == 0 &&
	       disagree(all.policies[a].settings, all.policies[b].settings) &&
	       databases_overlap(all, a, b) && roles_overlap(all, a, b);
}

// The earliest policy that only its name puts before this one; `position` if there is
// none.
std::uint32_t competitor(const EnabledPolicies &all, std::uint32_t position)
{
	std::uint32_t found = position;
	for (std::uint32_t i = position; i-- > 0 && all.ranks[i] == all.ranks[position];)
	{
		CHECK_FOR_INTERRUPTS();
		if (compete(all, i, position))
			found = i;
	}
	return found;
}

using MistakeRow = RowValues<likely_mistakes_columns>;

void put_mistake(ReturnSetInfo *result, const char *severity, const char *policy,
                 const char *problem, const char *hint)
{
	MistakeRow row;
	row.add_text(severity);
	row.add_text(policy);
	row.add_text(problem);
	row.add_text(hint);
	put_row(result, row);
}

const char *priority_change(const char *table, const Policy &policy, int by)
{
	return psprintf("UPDATE %s SET priority = %d WHERE name = %s;", table,
	                policy.priority + by,
	                quote_literal_cstr(text_from_shared(policy.name)));
}

// Makes the order explicit.  Moves the later policy behind the earlier one, or that one
// to the front where the other way would change the order of a third one.
const char *order_change(const EnabledPolicies &all, std::uint32_t earlier,
                         std::uint32_t later, const char *table)
{
	const Policy &first = all.policies[earlier];
	const Policy &second = all.policies[later];
	bool may_move_back = second.priority < PG_INT32_MAX;
	for (std::uint32_t i = later + 1; may_move_back && i < all.count &&
	                                  all.policies[i].priority <= second.priority + 1;
	     i++)
		may_move_back = !disagree(all.policies[i].settings, second.settings);
	return may_move_back || first.priority == PG_INT32_MIN
	           ? priority_change(table, second, 1)
	           : priority_change(table, first, -1);
}

void put_mistakes(ReturnSetInfo *result, const EnabledPolicies &all,
                  std::uint32_t position, const char *table)
{
	const char *name = text_from_shared(all.policies[position].name);
	int searches = 0; // keepalive_policy_problems() tells of missing names
	const LikelyMistakes mistakes =
		likely_mistakes(all.rules[position], all.policies[position], &searches);
	for (int i = 0; i < mistakes.count; i++)
	{
		const LikelyMistake &mistake = mistakes.found[i];
		if (mistake.kind == MistakeKind::value)
			put_mistake(result, "warning", name, mistake.problem,
			            psprintf("UPDATE %s SET %s WHERE name = %s;", table,
			                     mistake.change, quote_literal_cstr(name)));
	}

	const std::uint32_t earlier = competitor(all, position);
	if (earlier != position)
		put_mistake(result, "info", name,
		            psprintf("only its name puts it after policy \"%s\", which sets the "
		                     "same for some sessions: they have the same priority",
		                     text_from_shared(all.policies[earlier].name)),
		            order_change(all, earlier, position, table));
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_likely_mistakes(PG_FUNCTION_ARGS)
{
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, likely_mistakes_columns);
	if (shared == nullptr)
		return 0;
	const char *table = policy_table_name(fcinfo->flinfo->fn_oid);
	const EnabledPolicies all = enabled_policies();
	for (std::uint32_t i = 0; i < all.count; i++)
		put_mistakes(result, all, i, table);
	return 0;
}
