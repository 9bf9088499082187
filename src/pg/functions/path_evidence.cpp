// keepalive_path_evidence(): what ended and connected sessions tell of the paths to
// their clients; the view keepalive_paths_observed draws the conclusions.
#include "pg/postgres.hpp"

#include "pg/functions/preload.hpp"
#include "pg/functions/rows.hpp"
#include "pg/functions/session_list.hpp"
#include "pg/shared/events.hpp"
#include "pg/shared/path_evidence.hpp"

extern "C"
{
#include "utils/timestamp.h"

	PG_FUNCTION_INFO_V1(keepalive_path_evidence);
}

namespace guard::pg
{
namespace
{

constexpr Column path_evidence_columns[] = {
	{"client_addr", INETOID},
	{"last_heard", TIMESTAMPTZOID},
	{"idle_for", INTERVALOID},
	{"outcome", TEXTOID},
};

// As it was at `then`.
void add_row(ReturnSetInfo *result, const PathEvidence &path, const Endpoint &remote,
             std::int64_t silent_ms, TimestampTz then)
{
	if (path.outcome == PathOutcome::unknown)
		return;
	const Endpoint client = unmapped(remote);
	RowValues<path_evidence_columns> row;
	row.add(address_datum(client.family, client.address.data()));
	row.add(TimestampTzGetDatum(then - silent_ms * 1000));
	row.add(interval_datum(path.idle_for));
	row.add_text(path_outcome_name(path.outcome));
	put_row(result, row);
}

void add_session(ReturnSetInfo *result, const ListedSession &listed,
                 const SocketFacts &facts)
{
	if (listed.slot == nullptr || !listed.visible || !facts.found)
		return;
	const TimestampTz now = GetCurrentTimestamp();
	const PathEvidence path = path_evidence_of(listed.session, listed.backend.state,
	                                           (now - listed.backend.state_since) / 1000,
	                                           facts.info, PathEnd::none);
	add_row(result, path, listed.session.socket.remote, silent_for(facts.info), now);
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_path_evidence(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, path_evidence_columns);
	require_preload();

	EventWalk walk;
	begin_walk(walk, nullptr);
	while (const Event *event = next_event(walk))
		add_row(result, event->path, event->client, event->tcp.silent_ms,
		        event->ended_at);

	Details details = {};
	details.info = true;
	visit_sessions(details, [&](const ListedSession &listed, const SocketFacts &facts)
	               { add_session(result, listed, facts); });
	return 0;
}
