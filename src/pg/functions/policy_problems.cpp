// keepalive_policy_problems(): what keepalive_check() has to know of the compiled
// policies: which have no effect, and why; and what sessions get that match the others.
#include "pg/postgres.hpp"

#include "model/cover.hpp"
#include "pg/compat.hpp"
#include "pg/functions/outcome.hpp"
#include "pg/functions/policy_table.hpp"
#include "pg/functions/visible_policies.hpp"
#include "pg/policy/likely_mistakes.hpp"
#include "pg/policy/matching.hpp"
#include "pg/policy/table.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/syscache.h"

	PG_FUNCTION_INFO_V1(keepalive_policy_problems);
}

namespace guard::pg
{
namespace
{

constexpr Column policy_problems_columns[] = {
	{"policy", TEXTOID},
	{"replication_only", BOOLOID},
	{"problem", TEXTOID},
	{"hint", TEXTOID},
	{"gives", TEXTARRAYOID},
	{"given_before", JSONBOID},
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

using ProblemRow = RowValues<policy_problems_columns>;

// An enabled policy, with the role that its pattern names.
struct Candidate
{
	const Rule &rule;
	const Policy &policy;
	Oid role; // of a name or a +group; InvalidOid if there is no such role
};

// The enabled policies in match order.
struct Candidates
{
	PolicyList list;
	Oid *roles;

	std::uint32_t count() const { return list.enabled; }
	Candidate operator[](std::uint32_t i) const
	{
		return {list.rules[i], list.policies[i], roles[i]};
	}
};

Candidates enabled_policies()
{
	const PolicyList list = compiled_policies();
	return {list, named_roles(list)};
}

bool may_log_in(Oid role)
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	if (!HeapTupleIsValid(tuple))
		return false;
	bool may = reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	return may;
}

// A connection that `inner` matches as far as names go, to ask an outer rule about.
Connection named_by(const Candidate &inner)
{
	return make_connection(inner.policy.database, inner.policy.role, 0, nullptr,
	                       BackendKind::client);
}

bool covers_database(const Candidate &outer, const Candidate &inner)
{
	if (outer.rule.database == PatternKind::any)
		return true;
	if (outer.rule.database == inner.rule.database)
		return outer.rule.database_hash == inner.rule.database_hash &&
		       strcmp(outer.policy.database, inner.policy.database) == 0;
	return inner.rule.database == PatternKind::name &&
	       database_agrees(outer.rule, outer.policy, named_by(inner));
}

bool covers_role(const Candidate &outer, const Candidate &inner)
{
	switch (outer.rule.role)
	{
	case PatternKind::any:
		return true;
	case PatternKind::name:
		return inner.rule.role == PatternKind::name &&
		       outer.rule.role_hash == inner.rule.role_hash &&
		       strcmp(outer.policy.role, inner.policy.role) == 0;
	case PatternKind::group:
		// Members of a group are members of the groups that it is a member of.
		return (inner.rule.role == PatternKind::name ||
		        inner.rule.role == PatternKind::group) &&
		       OidIsValid(outer.role) && OidIsValid(inner.role) &&
		       is_member_of_role_nosuper(inner.role, outer.role);
	case PatternKind::regex:
		if (inner.rule.role == PatternKind::regex)
			return strcmp(outer.policy.role, inner.policy.role) == 0;
		return inner.rule.role == PatternKind::name &&
		       role_agrees(outer.rule, outer.policy, named_by(inner), inner.role);
	}
	return false;
}

// Whether `outer` matches every connection that `inner` does, the dearest question last.
bool covers_all(const Candidate &outer, const Candidate &inner)
{
	return covers(outer.rule.backend, inner.rule.backend) &&
	       covers(outer.rule.client, inner.rule.client) &&
	       covers_database(outer, inner) && covers_role(outer, inner);
}

// What every session gets that matches the policy: from it and from the policies that
// match whatever it matches.
struct Guarantee
{
	Composition before;   // from those before the policy
	Composition with;     // ... and from the policy
	Composition complete; // ... and from those after it
	bool reached;         // no policy before it ends the search
};

Guarantee guarantee_of(const Candidates &policies, std::uint32_t position)
{
	Guarantee guarantee = {};
	Composition composition = {};
	bool open = true;
	for (std::uint32_t i = 0; open && i < policies.count(); i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i == position)
		{
			guarantee.reached = true;
			guarantee.before = composition;
			open = add_policy(composition, policies[i].policy);
			guarantee.with = composition;
		}
		else if (covers_all(policies[i], policies[position]))
			open = add_policy(composition, policies[i].policy);
	}
	guarantee.complete = composition;
	if (!guarantee.reached)
		guarantee.before = guarantee.with = composition;
	return guarantee;
}

struct Finding
{
	const char *problem; // nullptr: the policy has an effect
	const char *hint;
};

Finding never_matches(const Candidate &policy, const char *table, const char *name,
                      const char *removal, int *name_searches)
{
	const LikelyMistakes mistakes =
		likely_mistakes(policy.rule, policy.policy, name_searches);
	for (int i = 0; i < mistakes.count; i++)
	{
		const LikelyMistake &mistake = mistakes.found[i];
		if (mistake.kind == MistakeKind::never_matches)
			return {psprintf("never matches: %s", mistake.problem),
			        psprintf("UPDATE %s SET %s WHERE name = %s;", table, mistake.change,
			                 name)};
	}
	if (policy.rule.role == PatternKind::name && !may_log_in(policy.role))
		return {psprintf("never matches: role \"%s\" cannot log in, and has no members",
		                 policy.policy.role),
		        removal};
	return {};
}

// Of a policy that gives nothing: the policies before it give all that it sets, or one of
// them is final.
Finding gives_nothing(const Candidates &policies, std::uint32_t position, bool reached,
                      const char *table, const char *name, const char *removal)
{
	const Candidate policy = policies[position];
	StringInfoData earlier;
	initStringInfo(&earlier);
	int count = 0;
	std::int32_t first_priority = 0;
	bool may_come_first = true;
	for (std::uint32_t i = 0; i < position; i++)
	{
		const Candidate other = policies[i];
		const Settings &settings = other.policy.settings;
		const bool hinders = reached
		                         ? (settings.given & policy.policy.settings.given) != 0
		                         : settings.final;
		if (!hinders || !covers_all(other, policy))
			continue;
		if (count == 0)
			first_priority = other.policy.priority;
		appendStringInfo(&earlier, "%s\"%s\"", count++ > 0 ? ", " : "",
		                 other.policy.name);
		// Otherwise the other one would give nothing.
		may_come_first = may_come_first && !covers_all(policy, other);
		if (!reached)
			break;
	}
	const char *problem;
	if (!reached)
		problem = psprintf("gives nothing: policy %s comes first, matches all that it "
		                   "does and is final",
		                   earlier.data);
	else if (count == 1)
		problem = psprintf("gives nothing: policy %s comes first, matches all that it "
		                   "does and gives all that it sets",
		                   earlier.data);
	else
		problem = psprintf("gives nothing: policies %s come first, match all that it "
		                   "does and give all that it sets",
		                   earlier.data);
	if (may_come_first && first_priority > PG_INT32_MIN)
		return {problem, psprintf("UPDATE %s SET priority = %d WHERE name = %s;", table,
		                          first_priority - 1, name)};
	return {problem, removal};
}

bool has_effect(const Guarantee &guarantee, const Policy &policy)
{
	return guarantee.reached &&
	       (policy.settings.final ||
	        memcmp(&guarantee.before, &guarantee.with, sizeof(Composition)) != 0);
}

Finding finding(const Candidates &policies, std::uint32_t position,
                const Guarantee &guarantee, const char *table, int *name_searches)
{
	const Candidate policy = policies[position];
	const char *name = quote_literal_cstr(policy.policy.name);
	const char *removal =
		psprintf("UPDATE %s SET enabled = false WHERE name = %s;", table, name);

	const Finding found = never_matches(policy, table, name, removal, name_searches);
	if (found.problem != nullptr || has_effect(guarantee, policy.policy))
		return found;
	if (policy.policy.settings.given == 0)
		return {"gives nothing: it leaves every setting NULL, and is not final", removal};
	return gives_nothing(policies, position, guarantee.reached, table, name, removal);
}

// {"setting": "policy", ...}: what a change of this policy could not change.
Datum sources_datum(const Composition &composition)
{
	StringInfoData json;
	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (int item = 0; item < item_count; item++)
		if (composition.settings.has(item))
		{
			appendStringInfo(&json, "%s\"%s\": ", json.len > 1 ? ", " : "",
			                 item_name(item));
			escape_json(&json, text_from_shared(composition.source_of(item)));
		}
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

void put_policy(ReturnSetInfo *result, const Candidates &policies, std::uint32_t position,
                const Basis &basis, const char *table, int *name_searches)
{
	const Candidate policy = policies[position];
	const Guarantee guarantee = guarantee_of(policies, position);
	const Finding found = finding(policies, position, guarantee, table, name_searches);
	ProblemRow row;
	row.add_text(policy.policy.name);
	row.add(BoolGetDatum(policy.rule.backend == BackendKind::replication));
	row.add_text(found.problem);
	row.add_text(found.hint);
	row.add(item_names_datum(items_given(guarantee.before, guarantee.with)));
	row.add(sources_datum(guarantee.before));
	add_outcome(row, outcome_of(guarantee.complete.settings, {}, basis), basis.limits);
	put_row(result, row);
}

void put_postgres(ReturnSetInfo *result, const Basis &basis)
{
	ProblemRow row;
	row.add_null();
	row.add(BoolGetDatum(false));
	row.add_nulls(2);
	row.add(item_names_datum(postgres_items));
	row.add(sources_datum({}));
	add_outcome(row, outcome_of({}, {}, basis), basis.limits);
	put_row(result, row);
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_policy_problems(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, policy_problems_columns);
	if (shared == nullptr)
		return 0;
	const char *table = policy_table_name(fcinfo->flinfo->fn_oid);
	const Candidates policies = enabled_policies();
	const Basis basis = basis_without_policies();
	int name_searches = most_name_searches;
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "keepalive policy problems", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	for (std::uint32_t i = 0; i < policies.count(); i++)
	{
		put_policy(result, policies, i, basis, table, &name_searches);
		MemoryContextReset(context);
	}
	put_postgres(result, basis);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return 0;
}
