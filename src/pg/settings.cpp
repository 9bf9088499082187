#include "pg/postgres.hpp"

#include "pg/settings.hpp"

namespace guard::pg
{

bool enabled = true;
char *policy_database = nullptr;
int max_policies = 1024;

void define_settings()
{
	DefineCustomBoolVariable(
		"keepalive_guard.enabled", "Applies the policies in keepalive_policy.",
		"When off, every session is as PostgreSQL would have it; the reading functions "
		"go on working.",
		&enabled, true, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);

	DefineCustomStringVariable(
		"keepalive_guard.database",
		"Sets the database whose keepalive_policy counts for the whole cluster.", nullptr,
		&policy_database, "postgres", PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);

	DefineCustomIntVariable(
		"keepalive_guard.max_policies",
		"Sets the number of policies that shared memory has room for.", nullptr,
		&max_policies, 1024, 1, 100000, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);

	MarkGUCPrefixReserved("keepalive_guard");
}

} // namespace guard::pg
