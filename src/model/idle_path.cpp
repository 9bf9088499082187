#include "model/idle_path.hpp"

namespace guard
{
namespace
{

constexpr Millis least_idleness = 1000;

// The kernel counts in jiffies, of 10 ms at most (CONFIG_HZ), and PostgreSQL does not: a
// probe may be sent that long before `quiet` has reached the time for it.
constexpr Millis jiffy = 10;

PathEvidence survived(Millis idle_for)
{
	if (idle_for < least_idleness)
		return {PathOutcome::unknown, 0};
	return {PathOutcome::survived, idle_for};
}

} // namespace

const char *path_outcome_name(PathOutcome outcome) noexcept
{
	switch (outcome)
	{
	case PathOutcome::unknown:
		return nullptr;
	case PathOutcome::survived:
		return "survived";
	case PathOutcome::lost:
		return "lost";
	case PathOutcome::reset:
		return "reset";
	}
	return nullptr;
}

PathEvidence path_evidence(const IdlePath &path) noexcept
{
	const bool probes = path.keepalive_idle > 0;
	// Before the options were changed, probes may have been sent.
	const Millis quiet = std::min(path.quiet, path.options_changed);

	// What was received after that long can only be the answer to a probe.  So no idle
	// timeout below that has ended the connection, even if the client was lost later.
	if (probes && quiet - path.silent + jiffy >= path.keepalive_idle)
		return survived(std::min(quiet, path.keepalive_idle));

	switch (path.end)
	{
	case PathEnd::none:
		break;
	case PathEnd::client_spoke:
		return survived(quiet);
	case PathEnd::unanswered:
	case PathEnd::reset:
		if (path.unanswered > 0)
		{
			// tcp_keepalive_timer() counts from the last receipt.  The options are set
			// just before or after that when a session starts.
			if (probes && path.silent >= path.keepalive_idle &&
			    path.quiet + jiffy >= path.keepalive_idle &&
			    path.silent - path.options_changed <= path.keepalive_idle / 8)
				return {PathOutcome::lost, path.keepalive_idle};
		}
		else if (path.end == PathEnd::reset)
			return {PathOutcome::reset, std::min(path.quiet, path.silent)};
		break;
	}
	return {PathOutcome::unknown, 0};
}

} // namespace guard
