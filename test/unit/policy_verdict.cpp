// The verdict against a simulation of the kernel's timers, written from
// net/ipv4/tcp_timer.c: at every moment, the actual end must lie within dies_in.
#include "policy/verdict.hpp"

#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

using namespace guard;

namespace
{

constexpr KernelLimits usual;

Watch watch_of(int idle_s, int interval_s, int count, int user_timeout_ms = 0)
{
	Watch w{};
	w.keepalive = true;
	w.idle_s = idle_s;
	w.interval_s = interval_s;
	w.count = count;
	w.user_timeout_ms = user_timeout_ms;
	return w;
}

Live alive_and_idle()
{
	Live live{};
	live.state = TcpState::established;
	live.timer = Timer::keepalive;
	live.expires = 5000;
	live.rto = 204;
	live.last_data_recv = 5000;
	live.last_ack_recv = 5000;
	return live;
}

// One socket and its write or keepalive timer; the clock is in milliseconds.
class Simulation
{
  public:
	Simulation(const Watch &watch, const KernelLimits &limits, unsigned seed)
		: watch(watch), limits(limits), random(seed)
	{
		live = alive_and_idle();
		live.rto = between(200, 400);
	}

	// Nothing in flight.  The peer answers probes until it disappears.
	void run_keepalive()
	{
		live.timer = Timer::keepalive;
		received = now;
		arm(watch.idle_s * 1000);
		vanishes = now + between(0, 3000 * (watch.idle_s + watch.interval_s));
		while (!dead)
		{
			// Some data from the peer, while it lives.
			const Millis data = received + between(1, 4000 * watch.idle_s);
			if (data > now && data < fires && data < vanishes)
			{
				look_until(data);
				receive();
				continue;
			}
			look_until(fires);
			const Millis elapsed = now - received;
			if (elapsed < watch.idle_s * 1000)
				arm(watch.idle_s * 1000 - elapsed);
			else if (watch.user_timeout_ms
			             ? elapsed >= watch.user_timeout_ms && live.probes > 0
			             : live.probes >= watch.count)
				dead = true;
			else
			{
				++live.probes;
				if (now < vanishes)
					receive();
				arm(watch.interval_s * 1000);
			}
		}
	}

	// Data is sent to a peer that has gone.
	// reverts: a router says at times that it is unreachable.  timed: the kernel tells
	// for how long it has been retransmitting.
	void run_retransmission(bool reverts = false, bool timed = false)
	{
		live.timer = Timer::retransmit;
		live.unacked = 1;
		received = now - between(0, 100000);
		vanishes = now;
		const Millis original = live.rto;
		if (between(0, 1))
		{
			arm(between(1, live.rto)); // a tail-loss probe
			look_until(fires);
		}
		arm(live.rto);
		Millis stamp = 0;
		Millis sent = now;
		for (;;)
		{
			if (timed && live.retransmits > 0)
				first_timeout = stamp;
			if (reverts && live.backoff > 0 && between(0, 1))
			{
				// tcp_ld_RTO_revert()
				look_until(between(now, fires));
				looks.clear(); // they could not know
				--live.backoff;
				live.rto = backed_off(original, live.backoff, limits);
				arm(std::max<Millis>(live.rto - (now - sent), 0));
			}
			look_until(fires);
			sent = now;
			const Millis limit = watch.user_timeout_ms ? watch.user_timeout_ms
			                                           : retransmission_limit(limits);
			if (live.retransmits > 0 && now - stamp >= limit)
				break;
			if (live.retransmits == 0)
				stamp = now;
			++live.retransmits;
			++live.backoff;
			live.rto = std::min(live.rto * 2, limits.rto_max);
			const Millis left = watch.user_timeout_ms - (now - stamp);
			arm(!watch.user_timeout_ms ? live.rto
			    : left <= 0            ? 1
			                           : std::min(live.rto, left));
		}
		dead = true;
		EXPECT_GE(live.rto, original);
	}

	// The peer has closed its window, and disappears after a while.
	void run_persist()
	{
		live.timer = Timer::persist;
		received = now;
		vanishes = now + between(0, 20000);
		Millis stamp = -1;
		arm(live.rto);
		for (;;)
		{
			look_until(fires);
			if (stamp < 0)
				stamp = now;
			else if (watch.user_timeout_ms && now - stamp >= watch.user_timeout_ms)
				break;
			if (live.probes >= limits.tcp_retries2)
				break;
			++live.probes;
			if (live.backoff < limits.tcp_retries2)
				++live.backoff;
			if (now < vanishes)
				receive();
			Millis when =
				std::min(live.rto << std::min(live.backoff, 10), limits.rto_max);
			if (watch.user_timeout_ms)
				when = std::clamp<Millis>(watch.user_timeout_ms - (now - stamp), 8, when);
			arm(when);
		}
		dead = true;
	}

	void check()
	{
		EXPECT_TRUE(dead);
		const Millis end = now;
		if (end < vanishes) // a user timeout that killed a slow reader
			return;
		for (const Seen &seen : looks)
		{
			const Span span = verdict(seen.live, watch, limits).dies_in;
			const Millis left = end - seen.at;
			ASSERT_TRUE(span.earliest && span.latest);
			ASSERT_LE(*span.earliest, left) << describe(seen);
			ASSERT_GE(*span.latest, left) << describe(seen);
		}
		const Detection d = detection(watch, limits, 400);
		const Span &whole = live.timer == Timer::keepalive ? d.idle
		                    : live.timer == Timer::persist ? d.stalled
		                                                   : d.in_flight;
		ASSERT_LE(*whole.earliest, end - vanishes);
		ASSERT_GE(*whole.latest, end - vanishes);
	}

  private:
	struct Seen
	{
		Millis at;
		Live live;
	};

	std::string describe(const Seen &seen) const
	{
		return "timer " + std::to_string(static_cast<int>(seen.live.timer)) + " probes " +
		       std::to_string(seen.live.probes) + " retransmits " +
		       std::to_string(seen.live.retransmits) + " backoff " +
		       std::to_string(seen.live.backoff) + " expires " +
		       std::to_string(seen.live.expires) + " rto " +
		       std::to_string(seen.live.rto) + "; " + std::to_string(watch.idle_s) + "/" +
		       std::to_string(watch.interval_s) + "/" + std::to_string(watch.count) +
		       "/" + std::to_string(watch.user_timeout_ms);
	}

	Millis between(Millis least, Millis most)
	{
		return std::uniform_int_distribution<Millis>(least, most)(random);
	}

	void arm(Millis delay)
	{
		expires = now + delay;
		// As a rule a little late, at times as late as it may be.
		const Millis most = delay / 8 + 4;
		fires = expires + (between(0, 2) ? between(0, most) : between(0, 1) * most);
	}

	void receive()
	{
		received = now;
		live.probes = 0;
	}

	// Goes on to `until`; looks at the socket on the way, once the peer has gone.
	void look_until(Millis until)
	{
		for (int i = 0; i < 3; ++i)
		{
			const Millis at = between(now, std::max(now, until));
			if (at < vanishes)
				continue;
			live.expires = std::max<Millis>(expires - at, 0);
			live.last_ack_recv = at - received;
			if (first_timeout)
				live.since_first_timeout = at - *first_timeout;
			live.last_data_recv = at - received + between(0, 1000);
			looks.push_back({at, live});
		}
		now = until;
	}

	Watch watch;
	KernelLimits limits;
	std::mt19937 random;
	Live live{};
	Millis now = 1000000, received = 0, expires = 0, fires = 0, vanishes = 0;
	bool dead = false;
	Duration first_timeout;
	std::vector<Seen> looks;
};

TEST(Simulated, Keepalive)
{
	for (unsigned seed = 0; seed < 30; ++seed)
		for (const int idle : {1, 3, 20, 600})
			for (const int interval : {1, 4, 75})
				for (const int count : {1, 3, 9})
					for (const int user_timeout : {0, 300, 2500, 30000})
					{
						Simulation s(watch_of(idle, interval, count, user_timeout), usual,
						             seed);
						s.run_keepalive();
						s.check();
						if (HasFatalFailure())
							return;
					}
}

TEST(Simulated, Retransmission)
{
	for (unsigned seed = 0; seed < 200; ++seed)
		for (const int retries2 : {1, 3, 5, 8, 15})
			for (const Millis rto_max : {1000, 10000, 120000})
				for (const int user_timeout : {0, 300, 2500, 30000, 300000})
				{
					Simulation s(watch_of(7200, 75, 9, user_timeout), {retries2, rto_max},
					             seed);
					s.run_retransmission();
					s.check();
					if (HasFatalFailure())
						return;
				}
}

TEST(Simulated, RetransmissionToAnUnreachableHost)
{
	for (unsigned seed = 0; seed < 400; ++seed)
		for (const int retries2 : {1, 3, 5, 8, 15})
			for (const Millis rto_max : {1000, 10000, 120000})
				for (const bool timed : {false, true})
				{
					Simulation s(watch_of(7200, 75, 9), {retries2, rto_max}, seed);
					s.run_retransmission(true, timed);
					s.check();
					if (HasFatalFailure())
						return;
				}
}

TEST(Simulated, RetransmissionThatTheKernelTimes)
{
	for (unsigned seed = 0; seed < 200; ++seed)
		for (const int retries2 : {1, 3, 5, 8, 15})
			for (const int user_timeout : {0, 300, 2500, 30000, 300000})
			{
				Simulation s(watch_of(7200, 75, 9, user_timeout), {retries2, 120000},
				             seed);
				s.run_retransmission(false, true);
				s.check();
				if (HasFatalFailure())
					return;
			}
}

TEST(Verdict, KnowsTheTimeOfTheFirstTimeoutOnly)
{
	TcpInfo info{};
	info.retransmits = 3;
	info.total_rto_recoveries = 1;
	info.total_rto_time = 1234;
	EXPECT_FALSE(since_first_timeout(info)); // an old kernel
	info.received = 248;
	EXPECT_EQ(since_first_timeout(info), Duration(1234));
	info.total_rto_recoveries = 2;
	EXPECT_FALSE(since_first_timeout(info));
	info.total_rto_recoveries = 1;
	info.retransmits = 0;
	EXPECT_FALSE(since_first_timeout(info));
}

TEST(Simulated, ZeroWindow)
{
	for (unsigned seed = 0; seed < 200; ++seed)
		for (const int retries2 : {1, 3, 5, 8, 15})
			for (const Millis rto_max : {1000, 10000, 120000})
				for (const int user_timeout : {0, 300, 2500, 30000})
				{
					// A user timeout may kill before the peer disappears: no subject
					// here.
					Simulation s(watch_of(7200, 75, 9, user_timeout), {retries2, rto_max},
					             seed);
					s.run_persist();
					s.check();
					if (HasFatalFailure())
						return;
				}
}

TEST(Verdict, Health)
{
	const Watch w = watch_of(10, 2, 3);
	const auto health = [&](const std::function<void(Live &)> &change)
	{
		Live live = alive_and_idle();
		change(live);
		return verdict(live, w, usual).health;
	};
	EXPECT_EQ(health([](Live &) {}), Health::alive);
	EXPECT_EQ(health([](Live &l) { l.timer = Timer::off; }), Health::alive);
	EXPECT_EQ(health([](Live &l) { l.probes = 1; }), Health::probing);
	EXPECT_EQ(health(
				  [](Live &l)
				  {
					  l.timer = Timer::retransmit;
					  l.unacked = 1;
				  }),
	          Health::alive);
	EXPECT_EQ(health(
				  [](Live &l)
				  {
					  l.timer = Timer::retransmit;
					  l.unacked = 1;
					  l.retransmits = 2;
					  l.probes = 1;
				  }),
	          Health::retransmitting);
	EXPECT_EQ(health([](Live &l) { l.timer = Timer::persist; }), Health::zero_window);
	EXPECT_EQ(health(
				  [](Live &l)
				  {
					  l.timer = Timer::persist;
					  l.probes = 2;
				  }),
	          Health::probing);
	EXPECT_EQ(health(
				  [](Live &l)
				  {
					  l.timer = Timer::retransmit;
					  l.unacked = 3;
					  l.snd_wnd = 0;
				  }),
	          Health::zero_window);
	EXPECT_EQ(health([](Live &l) { l.snd_wnd = 0; }), Health::alive);
	for (const TcpState s : {TcpState::close_wait, TcpState::last_ack, TcpState::closing})
		EXPECT_EQ(health([s](Live &l) { l.state = s; }), Health::closed_by_peer);
	EXPECT_EQ(health([](Live &l) { l.state = TcpState::close; }), Health::dead);
}

TEST(Verdict, TheDeadDieNow)
{
	Live live = alive_and_idle();
	live.state = TcpState::close;
	live.timer = Timer::off;
	const Span dies_in = verdict(live, watch_of(10, 2, 3), usual).dies_in;
	EXPECT_EQ(dies_in.earliest, Duration(0));
	EXPECT_EQ(dies_in.latest, Duration(0));
}

TEST(Verdict, WithoutKeepaliveAnIdlePeerIsNeverGivenUp)
{
	Watch w = watch_of(10, 2, 3, 5000);
	w.keepalive = false;
	w.dead_after_ms = 5000;
	w.watch_interval_ms = 1000;
	Live live = alive_and_idle();
	live.timer = Timer::off;
	EXPECT_FALSE(verdict(live, w, usual).dies_in.earliest);
	EXPECT_FALSE(verdict(live, w, usual).dies_in.latest);
	live.timer = Timer::retransmit;
	live.unacked = 1;
	EXPECT_TRUE(verdict(live, w, usual).dies_in.latest);
}

TEST(Verdict, KeepaliveCountsDown)
{
	Live live = alive_and_idle(); // silent for 5 s, the timer fires in 5 s
	const Watch w = watch_of(10, 2, 3);
	EXPECT_EQ(*verdict(live, w, usual).dies_in.earliest, 5000 + 3 * 2000);
	live.last_data_recv = live.last_ack_recv = 13000;
	live.probes = 2;
	live.expires = 1000;
	EXPECT_EQ(*verdict(live, w, usual).dies_in.earliest, 1000 + 2000);
	EXPECT_EQ(*verdict(live, w, usual).dies_in.latest,
	          1000 + lateness(10000) + late(2000));
}

TEST(Verdict, DeadAfterCountsOnlyWhileTheKernelAsks)
{
	Watch w = watch_of(10, 75, 9);
	w.dead_after_ms = 30000;
	w.watch_interval_ms = 1000;
	Live live = alive_and_idle();
	EXPECT_EQ(*verdict(live, w, usual).dies_in.earliest, 5000 + 30000);

	live.probes = 1;
	live.last_data_recv = live.last_ack_recv = 22000; // asked for some 12 s
	live.expires = 63000;
	Span dies_in = verdict(live, w, usual).dies_in;
	EXPECT_EQ(*dies_in.earliest, 30000 - 12000);
	EXPECT_EQ(*dies_in.latest, 30000 - 12000 + 2000);

	live.asked_for = 20000;
	dies_in = verdict(live, w, usual).dies_in;
	EXPECT_EQ(*dies_in.earliest, 10000);
	EXPECT_EQ(*dies_in.latest, 12000);

	live.asked_for = 31000;
	EXPECT_EQ(*verdict(live, w, usual).dies_in.earliest, 0);

	// The guard does not look: only the kernel is left.
	w.watch_interval_ms = 0;
	EXPECT_EQ(*verdict(live, w, usual).dies_in.earliest, 63000 + 8 * 75000);
}

TEST(Verdict, DeadAfterSparesAPeerThatWasSilentBeforeItWasAsked)
{
	Watch w = watch_of(7200, 75, 9);
	w.dead_after_ms = 30000;
	w.watch_interval_ms = 1000;
	Live live = alive_and_idle();
	live.last_data_recv = live.last_ack_recv = 3600000;
	live.timer = Timer::retransmit;
	live.unacked = 1;
	live.expires = 100;
	EXPECT_FALSE(asking(live));
	EXPECT_GE(*verdict(live, w, usual).dies_in.earliest, 30000);
}

TEST(Verdict, StallTimeout)
{
	Watch w = watch_of(10, 2, 3);
	w.stall_timeout_ms = 60000;
	w.watch_interval_ms = 1000;
	Live live = alive_and_idle();
	EXPECT_FALSE(zero_window(live));
	live.timer = Timer::persist;
	EXPECT_TRUE(zero_window(live));
	EXPECT_EQ(*verdict(live, w, usual).dies_in.latest, 62000);
	live.stalled_for = 50000;
	EXPECT_EQ(*verdict(live, w, usual).dies_in.earliest, 10000);
	EXPECT_EQ(*verdict(live, w, usual).dies_in.latest, 12000);
}

TEST(Verdict, AskingKnowsEveryKindOfQuestion)
{
	const Live idle = alive_and_idle();
	EXPECT_FALSE(asking(idle));
	Live live = idle;
	live.probes = 1;
	EXPECT_TRUE(asking(live));
	live = idle;
	live.retransmits = 1;
	EXPECT_TRUE(asking(live));
	live = idle;
	live.retransmitted = 1;
	EXPECT_TRUE(asking(live));
	live = idle;
	live.last_ack_recv = 100;
	EXPECT_EQ(silent_for(live), 100);
}

// What the kernel may report while timers and options change under our hands.
TEST(Verdict, IsSaneForWhateverTheKernelSays)
{
	std::mt19937 random(1);
	const auto pick = [&](std::initializer_list<Millis> values)
	{
		return values.begin()[random() % values.size()];
	};
	for (int i = 0; i < 200000; ++i)
	{
		Live live{};
		live.state = static_cast<TcpState>(random() % 14);
		live.timer = static_cast<Timer>(random() % 5);
		live.expires = pick({0, 1, 200, 100000, UINT32_MAX});
		live.retransmits = static_cast<int>(pick({0, 1, 5, 15, 255}));
		live.probes = static_cast<int>(pick({0, 1, 5, 127, 255}));
		live.backoff = static_cast<int>(pick({0, 1, 5, 15, 255}));
		live.rto = pick({0, 1, 204, 120000, 4294967});
		live.unacked = static_cast<std::uint32_t>(pick({0, 1}));
		live.retransmitted = static_cast<std::uint32_t>(pick({0, 1}));
		live.last_data_recv = pick({0, 5000, UINT32_MAX});
		live.last_ack_recv = pick({0, 5000, UINT32_MAX});
		if (random() % 2)
			live.snd_wnd = static_cast<std::uint32_t>(pick({0, 65535}));
		if (random() % 2)
			live.asked_for = live.stalled_for = pick({0, 1000, INT32_MAX});
		Watch w =
			watch_of(static_cast<int>(pick({1, 32767})),
		             static_cast<int>(pick({1, 32767})), static_cast<int>(pick({1, 127})),
		             static_cast<int>(pick({0, 1, 30000, INT32_MAX})));
		w.keepalive = random() % 4;
		w.dead_after_ms = static_cast<int>(pick({0, 1000, INT32_MAX}));
		w.stall_timeout_ms = static_cast<int>(pick({0, 1000, INT32_MAX}));
		w.watch_interval_ms = static_cast<int>(pick({0, 1000, INT32_MAX}));
		const Span span =
			verdict(live, w, {static_cast<int>(pick({0, 15, 255})), pick({1000, 120000})})
				.dies_in;
		ASSERT_EQ(span.earliest.has_value(), span.latest.has_value());
		if (span.earliest)
		{
			ASSERT_GE(*span.earliest, 0);
			ASSERT_LE(*span.earliest, *span.latest);
		}
	}
}

} // namespace
