#include "pg/postgres.hpp"

#include "pg/settings.hpp"

namespace guard::pg
{

bool enabled = true;
char *policy_database = nullptr;
int max_policies = 1024;
int watch_interval = 1000;
int max_events = 4096;
bool log_lost_connections = true;

namespace
{

// Shorter intervals cost CPU time, and find nobody earlier who is worth finding.  Most of
// them are seconds whose unit was forgotten.
constexpr int least_watch_interval_ms = 100;

bool check_watch_interval(int *value, void **, GucSource)
{
	if (*value == 0 || *value >= least_watch_interval_ms)
		return true;
	GUC_check_errdetail(
		"\"keepalive_guard.watch_interval\" must be 0 (off) or at least %d ms.",
		least_watch_interval_ms);
	GUC_check_errhint("A number without a unit is in milliseconds; did you mean \"%ds\"?",
	                  *value);
	return false;
}

} // namespace

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

	DefineCustomIntVariable(
		"keepalive_guard.watch_interval",
		"Sets how often the sockets of sessions with dead_after or stall_timeout are "
		"looked at.",
		"At least 100ms; 0 turns dead_after and stall_timeout off.", &watch_interval,
		1000, 0, 3600000, PGC_SIGHUP, GUC_UNIT_MS, check_watch_interval, nullptr,
		nullptr);

	DefineCustomIntVariable(
		"keepalive_guard.max_events",
		"Sets the number of lost connections that keepalive_events() remembers.",
		"It remembers as many connections that ended in another way.", &max_events, 4096,
		1, 1000000, PGC_POSTMASTER, 0, nullptr, nullptr, nullptr);

	DefineCustomBoolVariable("keepalive_guard.log_lost_connections",
	                         "Logs each lost connection, with its cause and policy.",
	                         nullptr, &log_lost_connections, true, PGC_SIGHUP, 0, nullptr,
	                         nullptr, nullptr);

	MarkGUCPrefixReserved("keepalive_guard");
}

} // namespace guard::pg
