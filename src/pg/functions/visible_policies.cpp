#include "pg/postgres.hpp"

#include "pg/functions/visible_policies.hpp"

#include "pg/policy/change.hpp"
#include "pg/policy/matching.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "access/relation.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
}

namespace guard::pg
{
namespace
{

enum Agreement : std::uint8_t
{
	unknown,
	agrees,
	disagrees,
};

} // namespace

void require_policy_privilege()
{
	const Oid table = policy_table();
	if (!OidIsValid(table))
		return;
	const AclResult result = pg_class_aclcheck(table, GetUserId(), ACL_SELECT);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_TABLE, get_rel_name(table));
}

bool read_own_policies(PolicyList *list)
{
	const Oid oid = policy_table();
	Relation table = OidIsValid(oid) ? try_relation_open(oid, AccessShareLock) : nullptr;
	if (table == nullptr)
	{
		ereport(WARNING,
		        (errcode(ERRCODE_UNDEFINED_TABLE),
		         errmsg("extension keepalive_guard has no table \"keepalive_policy\"")));
		return false;
	}
	const bool readable = read_policy_table(table, shared->policy_room, WARNING, list);
	relation_close(table, AccessShareLock);
	if (!readable)
		return false;
	if (list->count > shared->policy_room)
	{
		ereport(
			WARNING,
			(errmsg("%u keepalive policies are more than keepalive_guard.max_policies "
		            "(%u)",
		            list->count, shared->policy_room),
		     errdetail("They do not take effect; the policies that are in force now stay "
		               "in force."),
		     errhint("Increase keepalive_guard.max_policies and restart the server.")));
		return false;
	}
	sort_in_match_order(list);
	return true;
}

PolicyList visible_policies()
{
	PolicyList list;
	if (in_policy_database() && read_own_policies(&list))
		return list;
	return compiled_policies();
}

Oid *named_roles(const PolicyList &list)
{
	auto *roles = static_cast<Oid *>(
		palloc_extended(list.enabled * sizeof(Oid) + 1, MCXT_ALLOC_HUGE));
	for (std::uint32_t i = 0; i < list.enabled; i++)
	{
		const PatternKind kind = list.rules[i].role;
		roles[i] = kind == PatternKind::name || kind == PatternKind::group
		               ? get_role_oid(list.policies[i].role, true)
		               : InvalidOid;
	}
	return roles;
}

Composer begin_composing(const PolicyList &list)
{
	Composer composer = {&list, InvalidOid, InvalidOid, nullptr};
	composer.agreement = static_cast<std::uint8_t *>(
		palloc_extended(list.enabled + 1, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO));
	return composer;
}

Composition compose_next(Composer &composer, const Connection &connection, Oid database,
                         Oid role)
{
	const PolicyList &list = *composer.list;
	if (database != composer.database || role != composer.role)
	{
		composer.database = database;
		composer.role = role;
		memset(composer.agreement, 0, list.enabled);
	}
	Composition composition = {};
	for (size_t i = 0;; i++)
	{
		i = next_candidate(list.rules, list.policies, list.enabled, connection, i);
		if (i >= list.enabled)
			break;
		std::uint8_t &agreement = composer.agreement[i];
		if (agreement == unknown)
			agreement = postgres_agrees(list.rules[i], list.policies[i], connection, role)
			                ? agrees
			                : disagrees;
		if (agreement == agrees && !add_policy(composition, list.policies[i]))
			break;
	}
	return composition;
}

} // namespace guard::pg
