#include "model/idle_path.hpp"

#include <ostream>

#include <gtest/gtest.h>

namespace guard
{

// EXPECT_EQ() and its messages need these.
bool operator==(const PathEvidence &a, const PathEvidence &b)
{
	return a.outcome == b.outcome && a.idle_for == b.idle_for;
}

void PrintTo(const PathEvidence &evidence, std::ostream *out)
{
	const char *name = path_outcome_name(evidence.outcome);
	*out << (name ? name : "untold") << " " << evidence.idle_for;
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

TEST(IdlePath, AClientThatLeavesSurvivedItsIdleness)
{
	EXPECT_EQ(path_evidence(path(PathEnd::client_spoke, 59'999, 0, 0)), survived(59'999));
	EXPECT_EQ(path_evidence(path(PathEnd::client_spoke, 1'000, 0, 0)), survived(1'000));
	EXPECT_EQ(path_evidence(path(PathEnd::client_spoke, 999, 0, 0)), untold);
}

TEST(IdlePath, BehindProbesOnlyAsFarAsTheFirst)
{
	EXPECT_EQ(path_evidence(path(PathEnd::client_spoke, 86'400'000, 0, 0)),
	          survived(idle));
	EXPECT_EQ(path_evidence(path(PathEnd::none, 86'400'000, 30'000, 0)), survived(idle));
}

TEST(IdlePath, WithoutProbesAllOfIt)
{
	IdlePath without = path(PathEnd::client_spoke, 86'400'000, 0, 0);
	without.keepalive_idle = 0;
	EXPECT_EQ(path_evidence(without), survived(86'400'000));
	without.end = PathEnd::none;
	EXPECT_EQ(path_evidence(without), untold);
}

TEST(IdlePath, AFirstProbeWithoutAnswerIsALoss)
{
	const PathEvidence lost = {PathOutcome::lost, idle};
	EXPECT_EQ(path_evidence(path(PathEnd::unanswered, 95'000, 94'900, 3)), lost);
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 61'000, 60'900, 1)), lost);
}

TEST(IdlePath, AProbeMayBeAJiffyEarly)
{
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 59'990, 60'000, 1)).outcome,
	          PathOutcome::lost);
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 59'989, 60'000, 1)), untold);
}

TEST(IdlePath, AClientThatAnsweredProbesDiedOfSomethingElse)
{
	EXPECT_EQ(path_evidence(path(PathEnd::unanswered, 3'600'000, 95'000, 3)),
	          survived(idle));
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 3'600'000, 60'100, 1)), survived(idle));
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 3'600'000, 10'000, 0)), survived(idle));
}

TEST(IdlePath, AResetThatNobodyAskedForIsNoLoss)
{
	const PathEvidence reset = {PathOutcome::reset, 40'000};
	EXPECT_EQ(path_evidence(path(PathEnd::reset, 40'100, 40'000, 0)), reset);
}

TEST(IdlePath, AServerThatEndsAConnectionLearnsNothing)
{
	EXPECT_EQ(path_evidence(path(PathEnd::none, 40'000, 39'900, 0)), untold);
	EXPECT_EQ(path_evidence(path(PathEnd::none, 95'000, 94'900, 3)), untold);
}

TEST(IdlePath, ProbesBeforeAChangeOfTheOptionsMayHaveKeptThePathBusy)
{
	IdlePath changed = path(PathEnd::client_spoke, 50'000, 0, 0);
	changed.options_changed = 2'000;
	EXPECT_EQ(path_evidence(changed), survived(2'000));

	// A shorter TCP_KEEPIDLE has the kernel ask at once, after a longer idleness.
	changed = path(PathEnd::unanswered, 5'000'000, 4'999'900, 3);
	changed.options_changed = 40'000;
	EXPECT_EQ(path_evidence(changed), untold);

	// A session that was given its options when it started, and was idle at once.
	changed = path(PathEnd::unanswered, 95'000, 94'900, 3);
	changed.options_changed = 94'890;
	EXPECT_EQ(path_evidence(changed).outcome, PathOutcome::lost);
}

TEST(IdlePath, WithoutAnUnansweredProbeATimeoutIsNotOfThePath)
{
	EXPECT_EQ(path_evidence(path(PathEnd::unanswered, 95'000, 94'900, 0)), untold);
	// Data was sent to the idle session, and that was not acknowledged.
	EXPECT_EQ(path_evidence(path(PathEnd::unanswered, 20'000, 95'000, 3)), untold);
}

} // namespace
