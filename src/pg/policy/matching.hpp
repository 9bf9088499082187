// Which policy a connection gets: policy/match.hpp plus what only PostgreSQL can
// tell, group membership and regular expressions.
#pragma once

#include "pg/postgres.hpp"

#include "model/match.hpp"
#include "pg/shared/state.hpp"

namespace guard::pg
{

// Why `pattern` is no valid regular expression; nullptr if it is one.  Palloc'd.
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

// Finds the first compiled policy for `connection` and copies it.  False if there
// is none.  Needs a transaction; holds no lock while it asks PostgreSQL.
// *generation is that of the policies which gave the answer.
bool find_policy(const Connection &connection, Oid role, Policy *found,
                 std::uint64_t *generation);

enum class PolicySearch
{
	none,
	found,
	ask_postgres, // a candidate has a group or a regular expression: use find_policy()
};

// The same as far as it goes without asking PostgreSQL.  Raises no errors and needs no
// transaction.
PolicySearch find_policy_at_once(const Connection &connection, Policy *found,
                                 std::uint64_t *generation);

// The Connection of a session, with `role_name` for its role.
Connection connection_of(const Session &session, const char *role_name);

} // namespace guard::pg
