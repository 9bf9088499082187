// keepalive_policy_problems(): what keepalive_check() has to know of the compiled
// policies, above all which can never match, and why.
#include "pg/postgres.hpp"

#include "model/cover.hpp"
#include "pg/compat.hpp"
#include "pg/functions/policy_table.hpp"
#include "pg/functions/rows.hpp"
#include "pg/policy/matching.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
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
};

// An enabled policy, with the role that its pattern names.
struct Candidate
{
	Rule rule;
	Policy policy;
	Oid role; // of a name or a +group; InvalidOid if there is no such role
};

Candidate *enabled_policies(std::uint32_t *count)
{
	auto *copies = static_cast<Candidate *>(palloc_extended(
		shared->policy_room * sizeof(Candidate), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO));
	read_policies(
		[&](std::uint32_t enabled, std::uint32_t)
		{
			*count = enabled;
			for (std::uint32_t i = 0; i < enabled; i++)
			{
				copies[i].rule = shared_rules()[i];
				copies[i].policy = shared_policies()[i];
			}
		});

	for (std::uint32_t i = 0; i < *count; i++)
		if (copies[i].rule.role == PatternKind::name ||
		    copies[i].rule.role == PatternKind::group)
			copies[i].role = get_role_oid(copies[i].policy.role, true);
	return copies;
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
		return strcmp(outer.policy.database, inner.policy.database) == 0;
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

struct Finding
{
	const char *problem; // nullptr: the policy can match
	const char *hint;
};

Finding finding(const Candidate *policies, std::uint32_t position, const char *table)
{
	const Candidate &policy = policies[position];
	const char *name = quote_literal_cstr(policy.policy.name);
	const char *removal = psprintf("DELETE FROM %s WHERE name = %s;", table, name);

	if (policy.rule.database == PatternKind::name &&
	    !OidIsValid(get_database_oid(policy.policy.database, true)))
		return {psprintf("never matches: there is no database \"%s\"",
		                 policy.policy.database),
		        removal};
	if (policy.rule.role == PatternKind::name && !OidIsValid(policy.role))
		return {psprintf("never matches: there is no role \"%s\"", policy.policy.role),
		        removal};
	if (policy.rule.role == PatternKind::group && !OidIsValid(policy.role))
		return {psprintf("never matches: there is no group \"%s\"", policy.policy.role),
		        removal};
	if (policy.rule.role == PatternKind::name && !may_log_in(policy.role))
		return {psprintf("never matches: role \"%s\" may not log in; its members are "
		                 "\"+%s\"",
		                 policy.policy.role, policy.policy.role),
		        psprintf("UPDATE %s SET role = %s WHERE name = %s;", table,
		                 quote_literal_cstr(psprintf("+%s", policy.policy.role)), name)};

	for (std::uint32_t i = 0; i < position; i++)
	{
		CHECK_FOR_INTERRUPTS();
		const Candidate &earlier = policies[i];
		if (!covers_all(earlier, policy))
			continue;
		const char *problem = psprintf("never matches: policy \"%s\" comes first and "
		                               "matches all that it does",
		                               earlier.policy.name);
		// Tried first, it would leave the rest to the other.
		if (!covers_all(policy, earlier) && earlier.policy.priority > PG_INT32_MIN)
			return {problem, psprintf("UPDATE %s SET priority = %d WHERE name = %s;",
			                          table, earlier.policy.priority - 1, name)};
		return {problem, removal};
	}
	return {};
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
	std::uint32_t count;
	Candidate *policies = enabled_policies(&count);
	for (std::uint32_t i = 0; i < count; i++)
	{
		const Finding found = finding(policies, i, table);
		RowValues<policy_problems_columns> row;
		row.add_text(policies[i].policy.name);
		row.add(BoolGetDatum(policies[i].rule.backend == BackendKind::replication));
		row.add_text(found.problem);
		row.add_text(found.hint);
		put_row(result, row);
	}
	return 0;
}
