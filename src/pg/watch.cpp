#include "pg/postgres.hpp"

#include "pg/watch.hpp"

#include "kernel/kernel_settings.hpp"
#include "pg/settings.hpp"

#include <algorithm>
#include <ctime>

namespace guard::pg
{

Watch watch_of(const SettingValues &in_force, bool keepalive, const Settings *policy)
{
	auto value = [&](Setting setting)
	{
		return in_force[static_cast<int>(setting)];
	};
	Watch watch = {};
	watch.keepalive = keepalive;
	watch.idle_s = std::max(value(Setting::keepalives_idle), 1);
	watch.interval_s = std::max(value(Setting::keepalives_interval), 1);
	watch.count = std::max(value(Setting::keepalives_count), 1);
	watch.user_timeout_ms = value(Setting::user_timeout);
	watch.client_check_ms = value(Setting::client_check);
	watch.dead_after_ms = policy ? policy->dead_after_ms : 0;
	watch.stall_timeout_ms = policy ? policy->stall_timeout_ms : 0;
	watch.watch_interval_ms = watch_interval;
	return watch;
}

KernelLimits kernel_limits()
{
	constexpr KernelLimits usual;
	return {
		static_cast<int>(integer_sysctl_or("net/ipv4/tcp_retries2", usual.tcp_retries2)),
		integer_sysctl_or("net/ipv4/tcp_rto_max_ms", usual.rto_max)};
}

Live live_of(const SocketFacts &facts, const Session &session, const Watched &watched)
{
	constexpr auto snd_wnd =
		whole_field("snd_wnd", offsetof(TcpInfo, snd_wnd), sizeof(TcpInfo::snd_wnd));
	const TcpInfo &info = facts.info;
	Live live = {};
	live.state = facts.state;
	live.timer = facts.timer;
	live.expires = facts.timer_expires_ms;
	if (info.received > 0)
	{
		live.retransmits = info.retransmits;
		live.probes = info.probes;
	}
	else
		(live.timer == Timer::retransmit ? live.retransmits : live.probes) =
			facts.retransmits; // from /proc/net/tcp
	live.backoff = info.backoff;
	live.rto = info.rto / 1000;
	live.unacked = info.unacked;
	live.retransmitted = info.retrans;
	live.last_data_recv = info.last_data_recv;
	live.last_ack_recv = info.last_ack_recv;
	if (has_field(info, snd_wnd))
		live.snd_wnd = info.snd_wnd;

	live.since_first_timeout = since_first_timeout(info);

	if (watched.started == session.started && watched.pid == session.pid)
	{
		const std::int64_t now = monotonic_ms();
		if (watched.asked_since != 0)
			live.asked_for = now - watched.asked_since;
		if (watched.stalled_since != 0)
			live.stalled_for = now - watched.stalled_since;
	}
	return live;
}

std::int64_t monotonic_ms()
{
	timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

const char *health_name(Health health)
{
	switch (health)
	{
	case Health::alive:
		return "alive";
	case Health::probing:
		return "probing";
	case Health::retransmitting:
		return "retransmitting";
	case Health::zero_window:
		return "zero_window";
	case Health::closed_by_peer:
		return "closed_by_peer";
	case Health::dead:
		return "dead";
	}
	return nullptr;
}

} // namespace guard::pg
