// What a connection gets from the policies: model/match.hpp plus what only PostgreSQL can
// tell, group membership and regular expressions.
#pragma once

#include "pg/postgres.hpp"

#include "model/match.hpp"
#include "pg/shared/state.hpp"

namespace guard::pg
{

// Why `pattern` cannot be a policy's regular expression, as a sentence; nullptr if it
// can.  Every login compiles and matches it, so one that takes long to compile or to
// match is refused.  Palloc'd.
char *regex_problem(const char *pattern);

// Whether PostgreSQL too says that `connection`, authenticated as `role`, is one for
// the policy, given that why_not() found nothing against it: in its database, in its
// role, in both.  Reads shared catalogs only; may raise their errors.
bool database_agrees(const Rule &rule, const Policy &policy,
                     const Connection &connection);
bool role_agrees(const Rule &rule, const Policy &policy, const Connection &connection,
                 Oid role);
bool postgres_agrees(const Rule &rule, const Policy &policy, const Connection &connection,
                     Oid role);

// Composes what `connection` gets from the compiled policies.  Needs a transaction, and
// may raise errors of the catalogs; holds no lock while it asks PostgreSQL.  Without
// may_ask it needs no transaction and raises no error, and returns false if PostgreSQL
// has to be asked: about a group or a regular expression.  *generation is that of the
// policies which gave the answer.
bool compose_policies(const Connection &connection, Oid role, bool may_ask,
                      Composition *result, std::uint64_t *generation);

// The Connection of a session, with `role_name` for its role.
Connection connection_of(const Session &session, const char *role_name);

} // namespace guard::pg
