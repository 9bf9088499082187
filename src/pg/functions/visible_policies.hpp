// The policies as a caller sees them.
#pragma once

#include "pg/postgres.hpp"

#include "model/compose.hpp"
#include "model/match.hpp"
#include "pg/policy/table.hpp"

namespace guard::pg
{

// Raises an error unless the caller may read the policy table of this database.
void require_policy_privilege();

// In the policy database: the table as the current transaction sees it, in match order.
// False, and a WARNING that says why, if the policies would not change by that: there are
// too many, or the table cannot be read.
bool read_own_policies(PolicyList *list);

// The same where possible, else the compiled policies.
PolicyList visible_policies();

// For each enabled policy, the role that its name or +group is; InvalidOid if it has
// neither, or there is no such role.
Oid *named_roles(const PolicyList &list);

// Composes what one session after the other gets from a list.
struct Composer
{
	const PolicyList *list;
	Oid database; // of the last session
	Oid role;
	std::uint8_t *agreement; // of each policy with these two: Agreement
};

// `list` has to be in match order and to outlive the composer.
Composer begin_composing(const PolicyList &list);

// What the connection gets from the policies.  Its name and that of its database are
// those of `role` and `database` (InvalidOid: none): regular expressions and groups are
// asked about again only if these are others than those of the session before it.
// Raises errors of the catalogs.
Composition compose_next(Composer &composer, const Connection &connection, Oid database,
                         Oid role);

} // namespace guard::pg
