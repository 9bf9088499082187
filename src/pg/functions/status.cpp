// keepalive_status()
#include "pg/postgres.hpp"

#include "model/effective.hpp"
#include "pg/compat.hpp"
#include "pg/functions/rows.hpp"
#include "pg/functions/session_list.hpp"
#include "pg/functions/session_state.hpp"
#include "pg/settings.hpp"
#include "pg/shared/snapshot.hpp"
#include "pg/shared/state.hpp"

#include <algorithm>

extern "C"
{
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "utils/acl.h"

	PG_FUNCTION_INFO_V1(keepalive_status);
}

namespace guard::pg
{
namespace
{

constexpr Column status_columns[] = {
	{"pid", INT4OID},
	{"datname", NAMEOID},
	{"usename", NAMEOID},
	{"application_name", TEXTOID},
	{"backend_type", TEXTOID},
	{"client_addr", INETOID},
	{"client_port", INT4OID},
	{"transport", TEXTOID},
	{"policies", TEXTARRAYOID},
	{"policy_state", TEXTOID},
	{"keepalive", BOOLOID},
	{"tcp_keepalives_idle", INTERVALOID},
	{"tcp_keepalives_interval", INTERVALOID},
	{"tcp_keepalives_count", INT4OID},
	{"tcp_user_timeout", INTERVALOID},
	{"client_connection_check_interval", INTERVALOID},
	{"tcp_state", TEXTOID},
	{"timer", TEXTOID},
	{"timer_expires", INTERVALOID},
	{"unanswered_probes", INT4OID},
	{"retransmits", INT4OID},
	{"silent_for", INTERVALOID},
	{"send_queue", INT8OID},
	{"recv_queue", INT8OID},
	{"rtt_ms", FLOAT8OID},
	{"health", TEXTOID},
	{"gives_up_in", INTERVALOID},
	{"detects_idle", INTERVALOID},
	{"detects_busy", INTERVALOID},
};

const char *policy_state(const ListedSession &listed)
{
	return session_state_name(
		session_state(listed.session, listed.wanted, listed.distributed));
}

void add_in_force(RowValues<status_columns> &row, const Session &session)
{
	auto value = [&](Setting setting)
	{
		return session.in_force[static_cast<int>(setting)];
	};
	if (session.transport == Transport::tcp)
	{
		row.add(BoolGetDatum(session.keepalive));
		row.add(interval_datum(value(Setting::keepalives_idle) * INT64CONST(1000)));
		row.add(interval_datum(value(Setting::keepalives_interval) * INT64CONST(1000)));
		row.add(Int32GetDatum(value(Setting::keepalives_count)));
		row.add(interval_datum(value(Setting::user_timeout)));
	}
	else
		row.add_nulls(5);
	row.add(interval_datum(value(Setting::client_check)));
}

void add_kernel_view(RowValues<status_columns> &row, const SocketFacts &facts)
{
	if (!facts.found)
	{
		// CLOSE: given up by the kernel, and not yet closed by its backend.
		row.add_text(tcp_state_name(facts.state));
		row.add_nulls(8);
		return;
	}

	bool probing = facts.timer == Timer::keepalive || facts.timer == Timer::persist;
	row.add_text(tcp_state_name(facts.state));
	row.add_text(timer_name(facts.timer));
	if (facts.timer == Timer::off)
		row.add_null();
	else
		row.add(interval_datum(facts.timer_expires_ms));
	row.add(Int32GetDatum(probing ? facts.retransmits : 0));
	row.add(Int32GetDatum(facts.timer == Timer::retransmit ? facts.retransmits : 0));
	if (facts.info.received > 0)
		row.add(interval_datum(silent_for(facts.info)));
	else
		row.add_null();
	row.add(Int64GetDatum(facts.send_queue));
	row.add(Int64GetDatum(facts.recv_queue));
	if (facts.info.received > 0)
		row.add(Float8GetDatum(facts.info.rtt / 1000.0));
	else
		row.add_null();
}

// detection() of the same watch as the one before, mostly.
const Detection &worst_cases(const DetectionSettings &settings,
                             const KernelLimits &limits, Millis rto)
{
	static DetectionSettings last_settings = {};
	static Millis last_rto = -1;
	static KernelLimits last_limits;
	static Detection last;
	if (rto != last_rto || !(settings == last_settings) ||
	    limits.tcp_retries2 != last_limits.tcp_retries2 ||
	    limits.rto_max != last_limits.rto_max)
	{
		last = detection(settings, limits, rto);
		last_settings = settings;
		last_limits = limits;
		last_rto = rto;
	}
	return last;
}

// health, gives_up_in, detects_idle, detects_busy of a TCP connection: the worst cases.
// Without a slot its options are not known, nor what follows from them.
void add_verdict(RowValues<status_columns> &row, const ListedSession &listed,
                 const SocketFacts &facts, const KernelLimits &limits)
{
	const Session &session = listed.session;
	const DetectionSettings settings = detection_settings_of(
		session.in_force, session.keepalive, listed.wanted.settings, watch_interval);
	Millis rto = tcp_timeout_init;

	if (facts.found)
	{
		PeerObservation observation = {};
		if (listed.slot != nullptr && !listed.slot->observation.read(observation))
			observation = {};
		const ConnectionSnapshot snapshot = snapshot_of(facts, session, observation);
		const Verdict now = verdict(snapshot, settings, limits);
		row.add_text(health_name(now.health));
		if (listed.slot != nullptr && facts.info.received > 0)
			row.add_interval_or_null(now.gives_up_in.latest);
		else
			row.add_null();
		rto = std::max(rto, snapshot.rto >> std::min(snapshot.backoff, 31));
	}
	else if (facts.state == TcpState::close)
	{
		row.add_text(health_name(Health::dead));
		row.add(interval_datum(0));
	}
	else
		row.add_nulls(2);
	if (listed.slot == nullptr)
		return;

	const Detection worst = worst_cases(settings, limits, rto);
	row.add_interval_or_null(worst.idle.latest);
	row.add_interval_or_null(worst.busy.latest);
}

void add_session(ReturnSetInfo *result, const ListedSession &listed,
                 const SocketFacts &facts, const KernelLimits &limits)
{
	const Backend &backend = listed.backend;
	RowValues<status_columns> row;

	row.add(Int32GetDatum(listed.session.pid));
	row.add_name(OidIsValid(backend.database) ? get_database_name(backend.database)
	                                          : nullptr);
	row.add_name(OidIsValid(backend.role) ? GetUserNameFromId(backend.role, true)
	                                      : nullptr);
	row.add_text(backend.application_name);

	if (listed.visible)
	{
		row.add_text(GetBackendTypeDesc(backend.type));
		const Session &session = listed.session;
		bool tcp = session.transport == Transport::tcp;
		if (tcp)
			row.add_endpoint(session.socket.remote);
		else
		{
			row.add_null();
			row.add(Int32GetDatum(-1));
		}
		row.add_text(tcp ? "tcp" : "unix");
		row.add_policies(listed.wanted.policies);
		if (listed.slot != nullptr)
		{
			row.add_text(policy_state(listed));
			add_in_force(row, session);
		}
		else
		{
			row.add_text(listed.unreadable ? session_state_name(SessionState::pending)
			                               : nullptr);
			row.add_nulls(6);
		}
		if (tcp)
		{
			add_kernel_view(row, facts);
			add_verdict(row, listed, facts, limits);
		}
	}
	row.add_remaining_nulls();
	put_row(result, row);
}

} // namespace
} // namespace guard::pg

extern "C" PGDLLEXPORT Datum keepalive_status(PG_FUNCTION_ARGS)
{
	using namespace guard;
	using namespace guard::pg;

	ReturnSetInfo *result = begin_rows(fcinfo, status_columns);

	const KernelLimits limits = kernel_limits();
	Details details = {};
	details.info = true;
	visit_sessions(details, [&](const ListedSession &listed, const SocketFacts &facts)
	               { add_session(result, listed, facts, limits); });
	return 0;
}
