#include "pg/postgres.hpp"

#include "pg/policy/matching.hpp"

#include "model/regex_size.hpp"

extern "C"
{
#include "catalog/pg_collation.h"
#include "mb/pg_wchar.h"
#include "regex/regex.h"
#include "regex/regexport.h"
#include "utils/acl.h"
}

namespace guard::pg
{
namespace
{

// What compiling takes grows with both: about 1 ms for so many transitions.  A pattern
// without bounds is never too big.
constexpr std::uint32_t most_regex_size = pattern_bytes;
constexpr int most_regex_arcs = 3000;

// Compiling takes 2 ms at most with so many: (\y|a){8}.
constexpr std::uint32_t most_regex_constraints = 16;

// One pg_wchar per byte, whatever the encoding: at authentication the database's
// encoding is not known yet, and a pattern must mean the same everywhere.
pg_wchar *widen(const char *text, size_t *length)
{
	*length = strlen(text);
	auto *wide = static_cast<pg_wchar *>(palloc((*length + 1) * sizeof(pg_wchar)));
	for (size_t i = 0; i <= *length; i++)
		wide[i] = static_cast<unsigned char>(text[i]);
	return wide;
}

int compile_regex(regex_t *regex, const char *pattern)
{
	size_t length;
	pg_wchar *wide = widen(pattern, &length);
	int result = pg_regcomp(regex, wide, length, REG_ADVANCED, C_COLLATION_OID);
	pfree(wide);
	return result;
}

// Of its automaton, as pg_trgm walks it.
int number_of_arcs(const regex_t *regex)
{
	int arcs = 0;
	for (int state = 0; state < pg_reg_getnumstates(regex); state++)
		arcs += pg_reg_getnumoutarcs(regex, state);
	return arcs;
}

bool regex_matches(const char *pattern, const char *subject)
{
	regex_t regex;
	if (compile_regex(&regex, pattern) != REG_OKAY)
		return false;

	size_t length;
	pg_wchar *wide = widen(subject, &length);
	int result = pg_regexec(&regex, wide, length, 0, nullptr, 0, nullptr, 0);
	pfree(wide);
	pg_regfree(&regex);
	return result == REG_OKAY;
}

// As "+group" in pg_hba.conf (is_member in hba.c): superusers are not members of
// everything.
bool is_member(Oid role, const char *group)
{
	Oid group_oid = get_role_oid(group, true);
	return OidIsValid(group_oid) && OidIsValid(role) &&
	       is_member_of_role_nosuper(role, group_oid);
}

bool needs_postgres(const Rule &rule)
{
	return rule.database == PatternKind::regex || rule.role == PatternKind::regex ||
	       rule.role == PatternKind::group;
}

} // namespace

char *regex_problem(const char *pattern)
{
	if (!has_plain_beginning(pattern))
		return pstrdup("The regular expression begins with \"***\" or with embedded "
		               "options; only the options (?i) and (?c) are supported.");

	const std::uint32_t size = regex_size(pattern);
	if (size > most_regex_size)
		return psprintf("The regular expression is too big to be matched at each login: "
		                "its repetitions written out have %u characters, and at most %u "
		                "are allowed.",
		                size, most_regex_size);

	const std::uint32_t constraints = regex_constraints(pattern);
	if (constraints > most_regex_constraints)
		return psprintf(
			"The regular expression is too complex to be matched at each "
			"login: its constraints (^, $ and the like; \\y and the like count "
			"twice, and all more often in repetitions) are %u, and at most %u are "
			"allowed.",
			constraints, most_regex_constraints);

	regex_t regex;
	const int result = compile_regex(&regex, pattern);
	if (result != REG_OKAY)
	{
		char message[100];
		pg_regerror(result, &regex, message, sizeof(message));
		return psprintf("The regular expression is invalid: %s.", message);
	}
	const bool has_back_reference = (regex.re_info & REG_UBACKREF) != 0;
	const int arcs = number_of_arcs(&regex);
	pg_regfree(&regex);
	if (has_back_reference)
		return pstrdup("The regular expression has a back reference, which cannot be "
		               "matched in bounded time.");
	if (arcs > most_regex_arcs)
		return psprintf("The regular expression is too complex to be matched at each "
		                "login: its automaton has %d transitions, and at most %d are "
		                "allowed.",
		                arcs, most_regex_arcs);
	return nullptr;
}

bool database_agrees(const Rule &rule, const Policy &policy, const Connection &connection)
{
	return rule.database != PatternKind::regex ||
	       regex_matches(policy.database, connection.database);
}

bool role_agrees(const Rule &rule, const Policy &policy, const Connection &connection,
                 Oid role)
{
	if (rule.role == PatternKind::regex)
		return regex_matches(policy.role, connection.role);
	if (rule.role == PatternKind::group)
		return is_member(OidIsValid(role) ? role : get_role_oid(connection.role, true),
		                 policy.role);
	return true;
}

bool postgres_agrees(const Rule &rule, const Policy &policy, const Connection &connection,
                     Oid role)
{
	return database_agrees(rule, policy, connection) &&
	       role_agrees(rule, policy, connection, role);
}

bool compose_policies(const Connection &connection, Oid role, bool may_ask,
                      Composition *result, std::uint64_t *generation)
{
	*result = {};
	LWLockAcquire(shared->policy_lock, LW_SHARED);
	*generation = pg_atomic_read_u64(&shared->generation);
	for (size_t from = 0;;)
	{
		const size_t count = Min(shared->policy_count, shared->policy_room);
		const size_t i =
			next_candidate(shared_rules(), shared_policies(), count, connection, from);
		if (i >= count)
			break;
		from = i + 1;
		if (needs_postgres(shared_rules()[i]))
		{
			const Rule rule = shared_rules()[i];
			Policy policy = shared_policies()[i];
			bound(policy);
			LWLockRelease(shared->policy_lock);
			if (!may_ask)
				return false;
			const bool agrees = postgres_agrees(rule, policy, connection, role);
			LWLockAcquire(shared->policy_lock, LW_SHARED);
			const std::uint64_t current = pg_atomic_read_u64(&shared->generation);
			if (current != *generation)
			{
				*generation = current;
				*result = {};
				from = 0;
				continue;
			}
			if (!agrees)
				continue;
		}
		if (!add_policy(*result, shared_policies()[i]))
			break;
	}
	LWLockRelease(shared->policy_lock);
	return true;
}

Connection connection_of(const Session &session, const char *role_name)
{
	const Endpoint &client = session.socket.remote;
	return make_connection(session.database[0] ? session.database : nullptr, role_name,
	                       session.transport == Transport::tcp ? client.family : 0,
	                       client.address.data(), session.kind);
}

} // namespace guard::pg
