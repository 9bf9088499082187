#include "pg/postgres.hpp"

#include "pg/shared/snapshot.hpp"

#include "kernel/kernel_settings.hpp"
#include "pg/clock.hpp"

#include <algorithm>

namespace guard::pg
{

KernelLimits kernel_limits()
{
	constexpr KernelLimits usual;
	return {
		static_cast<int>(integer_sysctl_or("net/ipv4/tcp_retries2", usual.tcp_retries2)),
		integer_sysctl_or("net/ipv4/tcp_rto_max_ms", usual.rto_max)};
}

ConnectionSnapshot snapshot_of(const SocketFacts &facts, const Session &session,
                               const PeerObservation &observation)
{
	constexpr auto snd_wnd =
		whole_field("snd_wnd", offsetof(TcpInfo, snd_wnd), sizeof(TcpInfo::snd_wnd));
	const TcpInfo &info = facts.info;
	ConnectionSnapshot snapshot = {};
	snapshot.state = facts.state;
	snapshot.timer = facts.timer;
	snapshot.expires = facts.timer_expires_ms;
	if (info.received > 0)
	{
		snapshot.retransmits = info.retransmits;
		snapshot.probes = info.probes;
	}
	else
		(snapshot.timer == Timer::retransmit ? snapshot.retransmits : snapshot.probes) =
			facts.retransmits; // from /proc/net/tcp
	snapshot.backoff = info.backoff;
	snapshot.rto = info.rto / 1000;
	snapshot.unacked = info.unacked;
	snapshot.retransmitted = info.retrans;
	if (info.received > 0)
		snapshot.last_data_sent = info.last_data_sent;
	snapshot.last_data_recv = info.last_data_recv;
	snapshot.last_ack_recv = info.last_ack_recv;
	if (has_field(info, snd_wnd))
		snapshot.snd_wnd = info.snd_wnd;

	snapshot.since_first_timeout = since_first_timeout(info);

	if (observation.started == session.started && observation.pid == session.pid)
	{
		const std::int64_t now = monotonic_ms();
		snapshot.answered_probes = observation.answered_probes;
		if (observation.asked_since != 0)
			snapshot.asked_for = now - observation.asked_since;
		if (observation.stalled_since != 0)
			snapshot.stalled_for = now - observation.stalled_since;
	}
	return snapshot;
}

} // namespace guard::pg
