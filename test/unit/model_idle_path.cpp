#include "model/idle_path.hpp"

#include <ostream>

#include <gtest/gtest.h>

namespace guard
{

// For EXPECT_EQ() and its messages.
bool operator==(const PathEvidence &a, const PathEvidence &b)
{
	return a.outcome == b.outcome && a.idle_for == b.idle_for;
}

void PrintTo(const PathEvidence &evidence, std::ostream *out)
{
	const char *name = path_outcome_name(evidence.outcome);
	*out << (name ? name : "no name") << " " << evidence.idle_for;
}

} // namespace guard

namespace
{

using guard::IdlePath;
using guard::Millis;
using guard::path_evidence;
using guard::PathEnd;
using guard::PathEvidence;
using guard::PathOutcome;

constexpr PathEvidence untold = {PathOutcome::unknown, 0};
constexpr Millis idle = 60'000; // TCP_KEEPIDLE

PathEvidence survived(Millis idle_for)
{
	return {PathOutcome::survived, idle_for};
}

// Connected long ago, probed after a minute.
IdlePath path(PathEnd end, Millis quiet, Millis silent, std::uint8_t unanswered)
{
	return {quiet, 1'000'000'000, silent, idle, unanswered, end};
}

TEST(IdlePath, CountsADisconnectAsSurvived)
{
	EXPECT_EQ(path_evidence(path(PathEnd::client_spoke, 59'999, 0, 0)), survived(59'999));
	EXPECT_EQ(path_evidence(path(PathEnd::client_spoke, 1'000, 0, 0)), survived(1'000));
	EXPECT_EQ(path_evidence(path(PathEnd::client_spoke, 999, 0, 0)), untold);
}

TEST(IdlePath, CountsOnlyIdlenessBeforeTheFirstProbe)
{
	EXPECT_EQ(path_evidence(path(PathEnd::client_spoke, 86'400'000, 0, 0)),
	          survived(idle));
	EXPECT_EQ(path_evidence(path(PathEnd::none, 86'400'000, 30'000, 0)), survived(idle));
}

TEST(IdlePath, CountsAllIdlenessWithoutProbes)
{
	IdlePath without = path(PathEnd::client_spoke, 86'400'000, 0, 0);
	without.keepalive_idle = 0;
	EXPECT_EQ(path_evidence(without), survived(86'400'000));
	without.end = PathEnd::none;
	EXPECT_EQ(path_evidence(without), untold);
}

TEST(IdlePath, CountsAnUnansweredFirstProbeAsALoss)
{
	const PathEvidence lost = {PathOutcome::lost, idle};
	EXPECT_EQ(path_evidence(path(PathEnd::unanswered, 95'000, 94'900, 3)), lost);
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 61'000, 60'900, 1)), lost);
}

TEST(IdlePath, AllowsAProbeThatIsAJiffyEarly)
{
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 59'990, 60'000, 1)).outcome,
	          PathOutcome::lost);
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 59'989, 60'000, 1)), untold);

	// The first probe was answered, the second one was not.
	EXPECT_EQ(path_evidence(path(PathEnd::unanswered, 120'990, 61'000, 1)),
	          survived(idle));
	EXPECT_EQ(path_evidence(path(PathEnd::unanswered, 120'989, 61'000, 1)).outcome,
	          PathOutcome::lost);
	EXPECT_EQ(path_evidence(path(PathEnd::none, 60'090, 100, 0)), survived(idle));
	EXPECT_EQ(path_evidence(path(PathEnd::none, 60'089, 100, 0)), untold);
	EXPECT_EQ(path_evidence(path(PathEnd::none, 59'990, 0, 0)), survived(59'990));
}

TEST(IdlePath, CountsNoLossAfterAnsweredProbes)
{
	EXPECT_EQ(path_evidence(path(PathEnd::unanswered, 3'600'000, 95'000, 3)),
	          survived(idle));
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 3'600'000, 60'100, 1)), survived(idle));
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 3'600'000, 10'000, 0)), survived(idle));
}

TEST(IdlePath, CountsAResetWithoutAProbeSeparately)
{
	const PathEvidence reset = {PathOutcome::reset, 40'000};
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 40'100, 40'000, 0)), reset);
}

TEST(IdlePath, GivesNoEvidenceWhenTheServerEndsTheConnection)
{
	EXPECT_EQ(path_evidence(path(PathEnd::none, 40'000, 39'900, 0)), untold);
	EXPECT_EQ(path_evidence(path(PathEnd::none, 95'000, 94'900, 3)), untold);
}

TEST(IdlePath, AllowsForProbesBeforeAChangeOfOptions)
{
	IdlePath changed = path(PathEnd::client_spoke, 50'000, 0, 0);
	changed.options_changed = 2'000;
	EXPECT_EQ(path_evidence(changed), survived(2'000));

	// With a shorter TCP_KEEPIDLE the kernel probes at once, after a longer idle time.
	changed = path(PathEnd::unanswered, 5'000'000, 4'999'900, 3);
	changed.options_changed = 40'000;
	EXPECT_EQ(path_evidence(changed), untold);

	// A session that got its options when it started, and was idle since then.
	changed = path(PathEnd::unanswered, 95'000, 94'900, 3);
	changed.options_changed = 94'890;
	EXPECT_EQ(path_evidence(changed).outcome, PathOutcome::lost);
	// An eighth of the idle time lies between the last receipt and the options.
	changed.options_changed = 87'400;
	EXPECT_EQ(path_evidence(changed).outcome, PathOutcome::lost);
	changed.options_changed = 87'399;
	EXPECT_EQ(path_evidence(changed), untold);
}

TEST(IdlePath, CountsNoLossWithoutAnUnansweredProbe)
{
	EXPECT_EQ(path_evidence(path(PathEnd::unanswered, 95'000, 94'900, 0)), untold);
	// Data was sent to the idle session and was not acknowledged.
	EXPECT_EQ(path_evidence(path(PathEnd::unanswered, 20'000, 95'000, 3)), untold);
}

} // namespace
