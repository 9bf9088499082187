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

// What a connection of `role` gets from the policies of a list in match order.  Raises
// errors of the catalogs.
Composition composition_of(const PolicyList &list, const Connection &connection,
                           Oid role);

} // namespace guard::pg
