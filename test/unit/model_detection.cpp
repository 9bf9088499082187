#include "model/detection.hpp"

#include <climits>

#include <gtest/gtest.h>

using namespace guard;

namespace
{

// Keepalive only.
DetectionSettings keepalive(int idle_s, int interval_s, int count,
                            int user_timeout_ms = 0)
{
	DetectionSettings w{};
	w.keepalive = true;
	w.idle_s = idle_s;
	w.interval_s = interval_s;
	w.count = count;
	w.user_timeout_ms = user_timeout_ms;
	return w;
}

DetectionSettings defaults()
{
	return keepalive(7200, 75, 9);
}

::testing::AssertionResult holds(const Span &span, double seconds)
{
	const Millis t = static_cast<Millis>(seconds * 1000);
	if (span.earliest && *span.earliest <= t && (!span.latest || t <= *span.latest))
		return ::testing::AssertionSuccess();
	return ::testing::AssertionFailure()
	       << t << " is not in [" << span.earliest.value_or(-1) << ", "
	       << span.latest.value_or(-1) << "]";
}

constexpr KernelLimits usual;

KernelLimits limits(int retries2, Millis rto_max = 120000)
{
	return {retries2, rto_max};
}

TEST(Timing, RetransmissionLimit)
{
	// Documentation/networking/ip-sysctl: the default of 15 is 924.6 seconds.
	EXPECT_EQ(retransmission_limit(usual), 924600);
	EXPECT_EQ(retransmission_limit(limits(5)), 12600);
	EXPECT_EQ(retransmission_limit(limits(3)), 3000);
	EXPECT_EQ(retransmission_limit(limits(8)), 102200);
	EXPECT_EQ(retransmission_limit(limits(5, 1000)), 1400 + 3 * 1000);
	EXPECT_EQ(retransmission_limit(limits(0)), 200);
}

TEST(Timing, BackOffStopsAtItsMaximum)
{
	EXPECT_EQ(backed_off(200, 0, usual), 200);
	EXPECT_EQ(backed_off(200, 9, usual), 102400);
	EXPECT_EQ(backed_off(200, 10, usual), 120000);
	EXPECT_EQ(backed_off(200, 255, usual), 120000);
	EXPECT_EQ(persist_period(50, 0, usual), 200);
	EXPECT_EQ(persist_period(200, 20, limits(5)), 6400);
	EXPECT_EQ(persist_period(200, 20, limits(5, 1000)), 1000);
}

TEST(Timing, ConnectGivesUp)
{
	EXPECT_EQ(connect_gives_up(0).earliest, Duration(1000));
	EXPECT_EQ(connect_gives_up(0).latest, Duration(5 * late(1000)));
	// Documentation/networking/ip-sysctl: 131 seconds with four linear timeouts.
	EXPECT_EQ(connect_gives_up(6).earliest, Duration(127000));
	EXPECT_EQ(connect_gives_up(6).latest,
	          Duration(5 * late(1000) + late(2000) + late(4000) + late(8000) +
	                   late(16000) + late(32000) + late(64000)));
	EXPECT_EQ(connect_gives_up(7).earliest, Duration(127000 + 120000));
}

// The timer wheel at any HZ: a timer is late by at most the granularity of its level.
TEST(Timing, LatenessCoversTheTimerWheel)
{
	for (const Millis hz : {100, 250, 300, 1000})
		for (Millis delay = 1; delay < 10000000; delay += 1 + delay / 50)
		{
			const Millis jiffies = delay * hz / 1000;
			Millis granularity = 1;
			for (Millis start = 63; start <= jiffies; start *= 8)
				granularity *= 8;
			ASSERT_GE(lateness(delay), (granularity * 1000 + hz - 1) / hz)
				<< hz << " " << delay;
		}
}

// Measured with dropped packets on Linux 6.18, HZ=250: from the peer's last packet if the
// peer disappeared right after it, else from the disappearance.
TEST(Detection, AgreesWithMeasuredKeepalive)
{
	struct
	{
		DetectionSettings settings;
		double seconds;
	} const measured[] = {
		{keepalive(2, 1, 3), 5.07},        {keepalive(1, 3, 2), 7.14},
		{keepalive(1, 6, 1), 12.2},        {keepalive(1, 1, 10, 2500), 3.07},
		{keepalive(1, 1, 10, 3000), 3.07}, {keepalive(2, 1, 10, 500), 3.05},
		{keepalive(1, 4, 3, 2000), 5.19},  {keepalive(3, 1, 2, 10000), 10.17},
		{keepalive(2, 1, 10, 500), 1.22},  {keepalive(1, 1, 10, 2500), 2.24},
		{keepalive(1, 1, 3), 3.27},        {keepalive(2, 1, 3), 3.27},
		{keepalive(3, 2, 3, 4000), 3.30},  {keepalive(1, 4, 3, 2000), 7.43},
		{keepalive(1, 3, 2), 8.45},        {keepalive(3, 1, 2, 10000), 8.45},
	};
	for (const auto &m : measured)
		EXPECT_TRUE(holds(detection(m.settings, usual).idle, m.seconds))
			<< m.settings.idle_s << "/" << m.settings.interval_s << "/"
			<< m.settings.count << "/" << m.settings.user_timeout_ms;
}

TEST(Detection, AgreesWithMeasuredDataInFlight)
{
	struct
	{
		int user_timeout_ms;
		KernelLimits limits;
		double seconds;
	} const measured[] = {
		{3000, usual, 3.43},
		{5000, usual, 5.45},
		{20000, usual, 20.65},
		{500, usual, 0.92},
		{1000, usual, 1.44},
		{0, limits(5), 13.4},
		{0, limits(3), 6.66},
		{0, usual, 925},
		{0, limits(5, 1000), 5.8},
		// Unreachable from 10 s on.
		{13750, usual, 20.44},
		{15000, usual, 20.44},
	};
	for (const auto &m : measured)
		EXPECT_TRUE(holds(
			detection(keepalive(7200, 75, 9, m.user_timeout_ms), m.limits, 204).in_flight,
			m.seconds))
			<< m.user_timeout_ms << " " << m.limits.tcp_retries2;
}

TEST(Detection, AgreesWithMeasuredZeroWindow)
{
	struct
	{
		int user_timeout_ms;
		KernelLimits limits;
		double seconds;
	} const measured[] = {
		{2000, usual, 1.99},   {4000, usual, 4.00},        {0, limits(3), 4.74},
		{0, limits(5), 20.48}, {0, limits(5, 1000), 5.38},
	};
	for (const auto &m : measured)
		EXPECT_TRUE(holds(
			detection(keepalive(7200, 75, 9, m.user_timeout_ms), m.limits, 204).stalled,
			m.seconds))
			<< m.user_timeout_ms << " " << m.limits.tcp_retries2;
}

// With few retries, the probes of a closed window are soon over: 400, 800 and 1600 ms.
TEST(Detection, AClosedWindowIsGivenUpAfterTheLastProbe)
{
	EXPECT_EQ(detection(defaults(), limits(0)).stalled.earliest, Duration(0));
	EXPECT_EQ(detection(defaults(), limits(1)).stalled.earliest, Duration(400));
	EXPECT_EQ(detection(defaults(), limits(3)).stalled.earliest, Duration(2800));
	EXPECT_EQ(detection(defaults(), usual).stalled.latest, 16 * late(120000));
}

TEST(Detection, AUserTimeoutEndsKeepaliveAtTheFirstProbeAfterIt)
{
	EXPECT_EQ(detection(keepalive(10, 5, 9, 20000), usual).idle.latest,
	          late(10000) + 2 * late(5000));
}

TEST(Detection, AgreesWithMeasurementsAfterAStallAndALateWrite)
{
	// Stalled for 15 s, so that the back-off is at its maximum, then disappeared.
	EXPECT_TRUE(holds(detection(defaults(), limits(5), 204).stalled, 39.69));
	// Written 2.6 s after the disappearance, with probes unanswered.
	DetectionSettings w = keepalive(2, 1, 5);
	w.client_check_ms = 1000;
	EXPECT_TRUE(holds(detection(w, limits(5), 204).late_write, 15.88));
	EXPECT_FALSE(holds(detection(w, limits(5), 204).idle, 15.88));
}

TEST(Detection, OfTheKernelsDefaults)
{
	const Detection d = detection(defaults(), usual);
	EXPECT_TRUE(holds(d.idle, 7200 + 9 * 75));
	EXPECT_GE(*d.idle.latest, 7875000);
	EXPECT_LE(*d.idle.latest, 7875000 * 1.14);
	EXPECT_GE(*d.in_flight.latest, 924600);
	// A busy backend without a client check.
	EXPECT_FALSE(d.working.latest);
	EXPECT_FALSE(d.busy.latest);
	EXPECT_FALSE(d.late_write.latest);
}

TEST(Detection, ClientCheckEndsABusyBackend)
{
	DetectionSettings w = keepalive(10, 2, 3, 20000);
	w.client_check_ms = 1500;
	const Detection d = detection(w, usual);
	EXPECT_EQ(*d.working.latest, *d.idle.latest + 1500);
	EXPECT_EQ(*d.busy.latest, *d.in_flight.latest + 1500);
	EXPECT_EQ(d.working.earliest, d.idle.earliest);
	EXPECT_GE(*d.late_write.latest, *d.idle.latest + *d.in_flight.latest);
}

TEST(Detection, IsNeverForAnIdlePeerWithoutKeepalive)
{
	DetectionSettings w = defaults();
	w.keepalive = false;
	w.user_timeout_ms = 5000;
	w.client_check_ms = 1000;
	w.dead_after_ms = 5000;
	w.watch_interval_ms = 1000;
	const Detection d = detection(w, usual);
	EXPECT_FALSE(d.idle.earliest);
	EXPECT_FALSE(d.idle.latest);
	EXPECT_FALSE(d.working.latest);
	EXPECT_TRUE(d.in_flight.latest);
	EXPECT_FALSE(d.late_write.latest);
}

TEST(Detection, DeadAfterEndsEveryBackend)
{
	DetectionSettings w = keepalive(10, 75, 9);
	w.dead_after_ms = 20000;
	w.watch_interval_ms = 1000;
	const Detection d = detection(w, usual, 200);
	EXPECT_EQ(*d.idle.latest, late(75000) + 22000);
	EXPECT_EQ(d.working.latest, d.idle.latest);
	EXPECT_EQ(*d.in_flight.latest, 2 * late(200) + 22000);
	EXPECT_EQ(d.busy.latest, d.in_flight.latest);
	EXPECT_EQ(*d.idle.earliest, 20000);
	// A stalled peer is probed every two minutes only.
	EXPECT_EQ(*d.stalled.latest, late(120000) + 2 * late(200) + 22000);
	EXPECT_EQ(*d.late_write.latest, late(75000) + 2 * late(200) + 22000);

	w.stall_timeout_ms = 30000;
	EXPECT_EQ(*detection(w, usual, 200).stalled.latest, 32000);
	EXPECT_EQ(*detection(w, usual, 200).stalled.earliest, 0);

	w.watch_interval_ms = 0; // the watcher is off
	const Detection none = detection(w, usual);
	EXPECT_FALSE(none.busy.latest);
	EXPECT_EQ(none.idle.latest, detection(keepalive(10, 75, 9), usual).idle.latest);
	EXPECT_GT(*none.stalled.latest, 120000);
}

TEST(Detection, ExtremesDoNotOverflow)
{
	DetectionSettings w = keepalive(32767, 32767, 127, INT_MAX);
	w.client_check_ms = w.dead_after_ms = w.stall_timeout_ms = w.watch_interval_ms =
		INT_MAX;
	const Detection d = detection(w, limits(255), 120000);
	for (const Span *s :
	     {&d.idle, &d.working, &d.in_flight, &d.busy, &d.stalled, &d.late_write})
	{
		EXPECT_GE(*s->earliest, 0);
		EXPECT_GE(*s->latest, *s->earliest);
	}
	EXPECT_GE(*detection(keepalive(1, 32767, 127), usual).idle.latest,
	          Millis{128} * 32767000);
}

template <typename Visit> void every_watch(Visit visit)
{
	for (const int idle : {1, 5, 60, 7200})
		for (const int interval : {1, 7, 75})
			for (const int count : {1, 3, 9})
				for (const int user_timeout : {0, 500, 10000, 100000})
					for (const int check : {0, 1000})
						for (const int dead_after : {0, 8000, 200000})
							for (const int stall : {0, 30000})
							{
								DetectionSettings w =
									keepalive(idle, interval, count, user_timeout);
								w.client_check_ms = check;
								w.dead_after_ms = dead_after;
								w.stall_timeout_ms = stall;
								w.watch_interval_ms = 1000;
								visit(w);
							}
}

bool at_most(Duration a, Duration b)
{
	return !b || (a && *a <= *b);
}

bool no_later(const Detection &a, const Detection &b)
{
	return at_most(a.idle.latest, b.idle.latest) &&
	       at_most(a.working.latest, b.working.latest) &&
	       at_most(a.in_flight.latest, b.in_flight.latest) &&
	       at_most(a.busy.latest, b.busy.latest) &&
	       at_most(a.stalled.latest, b.stalled.latest) &&
	       at_most(a.late_write.latest, b.late_write.latest);
}

TEST(Detection, EarliestIsNotAfterLatest)
{
	every_watch(
		[](const DetectionSettings &w)
		{
			const Detection d = detection(w, usual);
			for (const Span *s :
		         {&d.idle, &d.working, &d.in_flight, &d.busy, &d.stalled, &d.late_write})
			{
				ASSERT_TRUE(s->earliest);
				ASSERT_GE(*s->earliest, 0);
				ASSERT_TRUE(at_most(s->earliest, s->latest));
				if (s == &d.stalled)
					continue;
				ASSERT_TRUE(at_most(s->latest, d.late_write.latest));
				ASSERT_TRUE(at_most(d.late_write.earliest, s->earliest));
			}
			ASSERT_TRUE(at_most(d.idle.latest, d.working.latest));
			ASSERT_TRUE(at_most(d.in_flight.latest, d.busy.latest));
		});
}

// With looser settings, the worst case for finding a dead peer is not sooner.
TEST(Detection, IsNotSoonerWithLooserSettings)
{
	every_watch(
		[](const DetectionSettings &w)
		{
			const Detection d = detection(w, usual);
			DetectionSettings looser = w;
			looser.idle_s += 3;
			// With a user timeout, a longer idle may move an expiry closer to its end:
		    // 1/7 s and 10 s end at the third expiry, after 15 s, 4/7 s at the second.
			if (!w.user_timeout_ms)
			{
				ASSERT_TRUE(no_later(d, detection(looser, usual))) << "idle";
			}
			looser = w;
			looser.count += 1;
			ASSERT_TRUE(no_later(d, detection(looser, usual))) << "count";
			looser = w;
			if (w.client_check_ms)
				looser.client_check_ms += 500;
			if (w.dead_after_ms)
				looser.dead_after_ms += 500;
			if (w.stall_timeout_ms)
				looser.stall_timeout_ms += 500;
			ASSERT_TRUE(no_later(d, detection(looser, usual))) << "guard";
			looser = w;
			looser.watch_interval_ms += 500;
			ASSERT_TRUE(no_later(d, detection(looser, usual))) << "settings";
			looser = w;
			looser.client_check_ms = 0;
			ASSERT_TRUE(no_later(d, detection(looser, usual))) << "check off";
			looser = w;
			looser.dead_after_ms = 0;
			ASSERT_TRUE(no_later(d, detection(looser, usual))) << "dead_after off";
			looser = w;
			if (w.user_timeout_ms)
			{
				looser.user_timeout_ms += 500;
				ASSERT_TRUE(no_later(d, detection(looser, usual))) << "user timeout";
			}
			ASSERT_TRUE(no_later(d, detection(w, limits(16)))) << "retries";
			ASSERT_TRUE(no_later(d, detection(w, usual, 2 * tcp_timeout_init))) << "rto";
		});
}

} // namespace
