#include "model/plan.hpp"

#include <cstring>
#include <limits>
#include <utility>

namespace guard
{
namespace
{

constexpr Millis second = 1000;
constexpr Millis longest_ms = std::numeric_limits<std::int32_t>::max();
constexpr int longest_s = 32767; // tcp_keepalives_idle and _interval
constexpr int most_probes = 127;

// dead_after is at least that, so that three probes or retransmissions can be lost.
constexpr Millis least_dead_after = 3500;

// From this value on, dead_after is shortened to detect stalled peers in time too.  Below
// it, too few lost packets would already end a session.
constexpr Millis good_dead_after = 60 * second;

// The time reserved for the work of the backend and of the worker.
Millis without_margin(Millis promise)
{
	return promise - 200 - promise / 100;
}

// The longest delay that a timer can be armed for to fire within t; t >= late(0).
Millis armed_within(Millis t)
{
	Millis delay = (t - lateness(0)) * 63 / 71;
	while (late(delay) > t)
		--delay;
	return delay;
}

int whole_seconds_within(Millis t)
{
	return t < late(second)
	           ? 0
	           : static_cast<int>(std::min<Millis>(armed_within(t) / second, longest_s));
}

// Rounded down to a number that is easy to read.
std::int32_t rounded(Millis t)
{
	t = std::min(t, longest_ms);
	return static_cast<std::int32_t>(t - t % (t >= 10 * second ? second : 100));
}

// The time that a path timeout of t leaves until a probe has to arrive.
Millis path_share(Millis t)
{
	return t / 100 * 95 + t % 100 * 95 / 100;
}

// The longest idle for which the path stays open even if one probe is lost, with
// interval <= idle; if the path timeout is too short for that, 1 s.
int idle_for_path(Millis path_idle_timeout)
{
	const Millis share = path_share(path_idle_timeout);
	const int idle = whole_seconds_within(share / 2);
	return idle > 0 ? idle : whole_seconds_within(share) > 0 ? 1 : 0;
}

// The longest one that finds a peer within `promise` while data is in flight.
Millis longest_user_timeout(Millis promise, const KernelLimits &limits)
{
	DetectionSettings settings{};
	Millis kept = 1;
	Millis broken = std::min<Millis>(promise, INT32_MAX);
	while (broken - kept > 1)
	{
		settings.user_timeout_ms = static_cast<std::int32_t>((kept + broken) / 2);
		if (*detection(settings, limits).in_flight.latest <= promise)
			kept = settings.user_timeout_ms;
		else
			broken = settings.user_timeout_ms;
	}
	return kept;
}

Plan impossible(PlanError error, Millis minimum)
{
	Plan plan{};
	plan.error = error;
	plan.minimum = minimum;
	return plan;
}

template <std::size_t room> bool copied(const std::string &from, char (&to)[room])
{
	if (from.size() >= room)
		return false;
	std::memcpy(to, from.c_str(), from.size() + 1);
	return true;
}

std::string readable(Millis t)
{
	return t % second ? std::to_string(t) + "ms" : std::to_string(t / second) + "s";
}

// At most 63 bytes, as a policy's name has to be.
std::string policy_name(const Intent &intent)
{
	std::string name = "dead_within_" + readable(intent.detect_within);
	if (intent.path_idle_timeout)
		name += "_path_" + readable(*intent.path_idle_timeout);
	if (intent.end_slow_readers)
		name += "_end_slow";
	return name;
}

} // namespace

Millis with_margin(Millis timer)
{
	Millis promise = (timer + 200) * 100 / 99 - 2;
	while (without_margin(promise) < timer)
		++promise;
	return promise;
}

// Why these settings and not others:
//
// - Keepalive detects the dead peer of an idle session.  The probes start after about a
//   third of the time, so that the rest is enough for several probes, some of them lost.
// - dead_after, not tcp_user_timeout, detects it with data in flight and while the
// backend
//   is executing: the user timeout also ends a living client that reads slowly (it counts
//   from the moment when the window was closed, even if probes are answered), and it
//   would replace the count of keepalive.  It is set to 0, because any other value would
//   break the plan.
// - client_connection_check_interval lets a backend that is executing notice the kernel's
//   decision even if the worker is not running.
// - A peer that had closed its window before it died is probed at growing intervals, up
//   to two minutes (tcp_rto_max).  If detect_within is shorter, it cannot be told from a
//   slow reader in time, and only stall_timeout, which ends both, keeps the promise in
//   this state.
Plan make_plan(const Intent &intent, std::int32_t watch_interval_ms,
               const KernelLimits &limits) noexcept
{
	if (watch_interval_ms <= 0)
		return impossible(PlanError::not_watching, 0);

	// Fixed costs: the first retransmission, and the watch interval.
	const Millis looks = 2 * Millis{watch_interval_ms};
	const Millis fixed = 2 * late(tcp_timeout_init) + looks;
	const Millis promise = without_margin(intent.detect_within);
	const Millis time = promise - fixed;
	if (time < late(second) + least_dead_after)
		return impossible(PlanError::detect_too_soon,
		                  with_margin(fixed + late(second) + least_dead_after));

	int idle = std::max(whole_seconds_within(time * 38 / 100), 1);
	if (intent.path_idle_timeout)
	{
		const int for_path = idle_for_path(*intent.path_idle_timeout);
		if (for_path == 0)
		{
			Millis minimum = late(second);
			while (path_share(minimum) < late(second))
				++minimum;
			return impossible(PlanError::path_too_forgetful, minimum);
		}
		idle = std::min(idle, for_path);
	}
	const Millis first_probe = late(idle * second);

	Plan plan{};
	DetectionSettings &settings = plan.settings;
	settings.keepalive = true;
	settings.watch_interval_ms = watch_interval_ms;
	settings.client_check_ms =
		rounded(std::clamp<Millis>(promise / 12, 100, 10 * second));

	Millis dead_after = time - first_probe;
	const Millis dead_after_if_stalled =
		promise - looks -
		late(persist_period(tcp_timeout_init, limits.tcp_retries2, limits));
	if (intent.end_slow_readers)
		settings.stall_timeout_ms = rounded(promise - looks);
	else if (dead_after_if_stalled >= good_dead_after)
		dead_after = std::min(dead_after, dead_after_if_stalled);
	settings.dead_after_ms = rounded(dead_after);

	// Keepalive alone should neither be later than promised nor end a session after fewer
	// lost probes than dead_after does: 3 to 6 probes, the number that uses the time best
	// in whole seconds, or more if the path needs them often.
	const Millis probing =
		std::min(dead_after, promise - first_probe - settings.client_check_ms);
	settings.idle_s = idle;
	for (int probes = 3; probes <= 6; ++probes)
	{
		const int interval = std::min(whole_seconds_within(probing / probes), idle);
		if (interval == 0)
			break;
		const int count = static_cast<int>(
			std::min<Millis>(probing / late(interval * second), most_probes));
		// More probes are worth a twentieth of the time.
		if (Millis{count} * interval * 20 >=
		    Millis{settings.count} * settings.interval_s * 19)
		{
			settings.interval_s = interval;
			settings.count = count;
		}
	}

	plan.detection = detection(settings, limits);
	plan.probes_per_hour = (3600 + idle - 1) / idle;
	plan.client_user_timeout_ms =
		rounded(std::min(longest_user_timeout(promise, KernelLimits()),
	                     promise - late(settings.interval_s * second)));
	plan.promise = promise;
	plan.client_connect_timeout_s = static_cast<std::int32_t>(rounded(promise) / second);
	KernelLimits other;
	DetectionSettings kernel_only{};
	for (other.tcp_retries2 = 15; other.tcp_retries2 > 1; --other.tcp_retries2)
		if (*detection(kernel_only, other).in_flight.latest <= promise)
			break;
	plan.tcp_retries2 = other.tcp_retries2;
	for (plan.tcp_syn_retries = 6; plan.tcp_syn_retries > 1; --plan.tcp_syn_retries)
		if (*connect_gives_up(plan.tcp_syn_retries).latest <= promise)
			break;
	return plan;
}

std::string libpq_options(const Plan &plan)
{
	return "keepalives=1 keepalives_idle=" + std::to_string(plan.settings.idle_s) +
	       " keepalives_interval=" + std::to_string(plan.settings.interval_s) +
	       " keepalives_count=" + std::to_string(plan.settings.count) +
	       " tcp_user_timeout=" + std::to_string(plan.client_user_timeout_ms);
}

std::string sysctl_lines(const Plan &plan)
{
	return "net.ipv4.tcp_keepalive_time = " + std::to_string(plan.settings.idle_s) +
	       "\nnet.ipv4.tcp_keepalive_intvl = " +
	       std::to_string(plan.settings.interval_s) +
	       "\nnet.ipv4.tcp_keepalive_probes = " + std::to_string(plan.settings.count) +
	       "\nnet.ipv4.tcp_retries2 = " + std::to_string(plan.tcp_retries2) +
	       "\nnet.ipv4.tcp_syn_retries = " + std::to_string(plan.tcp_syn_retries) + "\n";
}

std::string policy_insert(const Plan &plan, const Intent &intent,
                          const std::string &table)
{
	// There is no outside text here: digits and units need no escaping.
	const auto interval = [](Millis t)
	{
		return "'" + readable(t) + "'";
	};
	const DetectionSettings &settings = plan.settings;
	const std::pair<const char *, std::string> columns[] = {
		{"priority", "1000"},
		{"tcp_keepalives_idle", interval(settings.idle_s * second)},
		{"tcp_keepalives_interval", interval(settings.interval_s * second)},
		{"tcp_keepalives_count", std::to_string(settings.count)},
		{"tcp_user_timeout", interval(settings.user_timeout_ms)},
		{"client_connection_check_interval", interval(settings.client_check_ms)},
		{"dead_after", interval(settings.dead_after_ms)},
		{"stall_timeout",
	     settings.stall_timeout_ms ? interval(settings.stall_timeout_ms) : "NULL"},
	};
	std::string names = "name";
	std::string values = "'" + policy_name(intent) + "'";
	std::string updates;
	for (const auto &[name, value] : columns)
	{
		names += std::string(", ") + name;
		values += ", " + value;
		updates +=
			(updates.empty() ? "" : ", ") + (name + (" = excluded." + std::string(name)));
	}
	return "INSERT INTO " + table + " (" + names + ") VALUES (" + values +
	       ") ON CONFLICT (name) DO UPDATE SET " + updates + ";";
}

bool plan_texts(const Plan &plan, const Intent &intent, const char *table,
                PlanTexts *texts) noexcept
try
{
	return copied(libpq_options(plan), texts->libpq_options) &&
	       copied(sysctl_lines(plan), texts->sysctl_lines) &&
	       copied(policy_insert(plan, intent, table), texts->policy_insert);
}
catch (...)
{
	return false;
}

} // namespace guard
