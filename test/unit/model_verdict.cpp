// The verdict compared with a simulation of the kernel's timers, written from
// net/ipv4/tcp_timer.c: at every moment, the actual end must lie within gives_up_in.
#include "model/verdict.hpp"

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

DetectionSettings detection_settings_of(int idle_s, int interval_s, int count,
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

ConnectionSnapshot alive_and_idle()
{
	ConnectionSnapshot snapshot{};
	snapshot.state = TcpState::established;
	snapshot.timer = Timer::keepalive;
	snapshot.expires = 5000;
	snapshot.rto = 204;
	snapshot.last_data_recv = 5000;
	snapshot.last_ack_recv = 5000;
	return snapshot;
}

// One socket and its write or keepalive timer.  The clock is in milliseconds.
class Simulation
{
  public:
	Simulation(const DetectionSettings &settings, const KernelLimits &limits,
	           unsigned seed)
		: settings(settings), limits(limits), random(seed)
	{
		snapshot = alive_and_idle();
		snapshot.rto = between(200, 400);
	}

	// Nothing in flight.  The peer answers probes until it disappears.
	void run_keepalive()
	{
		snapshot.timer = Timer::keepalive;
		received = now;
		arm(settings.idle_s * 1000);
		vanishes = now + between(0, 3000 * (settings.idle_s + settings.interval_s));
		while (!dead)
		{
			// Some data from the peer before it disappears.
			const Millis data = received + between(1, 4000 * settings.idle_s);
			if (data > now && data < fires && data < vanishes)
			{
				look_until(data);
				receive();
				continue;
			}
			look_until(fires);
			const Millis elapsed = now - received;
			if (elapsed < settings.idle_s * 1000)
				arm(settings.idle_s * 1000 - elapsed);
			else if (settings.user_timeout_ms
			             ? elapsed >= settings.user_timeout_ms && snapshot.probes > 0
			             : snapshot.probes >= settings.count)
				dead = true;
			else
			{
				++snapshot.probes;
				asked = now;
				if (now < vanishes)
					receive();
				arm(settings.interval_s * 1000);
			}
		}
	}

	// Data is sent to a peer that has disappeared.
	// reverts: a router sometimes reports that the peer is unreachable.  timed: the
	// kernel reports for how long it has been retransmitting.
	void run_retransmission(bool reverts = false, bool timed = false)
	{
		snapshot.timer = Timer::retransmit;
		snapshot.unacked = 1;
		received = now - between(1, 100000);
		vanishes = data_sent = now;
		const Millis original = snapshot.rto;
		if (between(0, 1))
		{
			arm(between(1, snapshot.rto)); // a tail-loss probe
			look_until(fires);
		}
		arm(snapshot.rto);
		Millis stamp = 0;
		Millis sent = now;
		for (;;)
		{
			if (timed && snapshot.retransmits > 0)
				first_timeout = stamp;
			if (reverts && snapshot.backoff > 0 && between(0, 1))
			{
				// tcp_ld_RTO_revert()
				look_until(between(now, fires));
				looks.clear(); // they could not predict this
				--snapshot.backoff;
				snapshot.rto = backed_off(original, snapshot.backoff, limits);
				arm(std::max<Millis>(snapshot.rto - (now - sent), 0));
			}
			look_until(fires);
			sent = now;
			const Millis limit = settings.user_timeout_ms ? settings.user_timeout_ms
			                                              : retransmission_limit(limits);
			if (snapshot.retransmits > 0 && now - stamp >= limit)
				break;
			if (snapshot.retransmits == 0)
				stamp = now;
			asked = data_sent = now;
			++snapshot.retransmits;
			++snapshot.backoff;
			snapshot.rto = std::min(snapshot.rto * 2, limits.rto_max);
			const Millis left = settings.user_timeout_ms - (now - stamp);
			arm(!settings.user_timeout_ms ? snapshot.rto
			    : left <= 0               ? 1
			                              : std::min(snapshot.rto, left));
		}
		dead = true;
		EXPECT_GE(snapshot.rto, original);
	}

	// The peer has closed its window, and disappears after a while.
	void run_persist()
	{
		snapshot.timer = Timer::persist;
		received = now;
		vanishes = now + between(0, 20000);
		Millis stamp = -1;
		arm(snapshot.rto);
		for (;;)
		{
			look_until(fires);
			if (stamp < 0)
				stamp = now;
			else if (settings.user_timeout_ms && now - stamp >= settings.user_timeout_ms)
				break;
			if (snapshot.probes >= limits.tcp_retries2)
				break;
			++snapshot.probes;
			asked = now;
			if (snapshot.backoff < limits.tcp_retries2)
				++snapshot.backoff;
			if (now < vanishes)
				receive();
			Millis when =
				std::min(snapshot.rto << std::min(snapshot.backoff, 10), limits.rto_max);
			if (settings.user_timeout_ms)
				when =
					std::clamp<Millis>(settings.user_timeout_ms - (now - stamp), 8, when);
			arm(when);
		}
		dead = true;
	}

	// The peer has closed its window over data in flight, and disappears after a while:
	// tcp_retransmit_timer(), tcp_rtx_probe0_timed_out().
	void run_shrunk_window()
	{
		snapshot.timer = Timer::retransmit;
		snapshot.unacked = 3;
		snapshot.snd_wnd = 0;
		received = data_sent = now;
		vanishes = now + between(0, 4 * limits.rto_max);
		const Millis stamp = now;
		arm(snapshot.rto);
		for (;;)
		{
			look_until(fires);
			const Millis user_timeout = settings.user_timeout_ms;
			const Millis timeout = user_timeout
			                           ? std::min(2 * limits.rto_max, user_timeout)
			                           : 2 * limits.rto_max;
			if (user_timeout && now - stamp > user_timeout)
				break;
			if (expires - received > timeout && now - stamp > timeout)
				break;
			snapshot.retransmitted = 1;
			asked = data_sent = now;
			if (now < vanishes)
				receive();
			++snapshot.backoff;
			snapshot.rto = std::min(snapshot.rto * 2, limits.rto_max);
			const Millis left = user_timeout - (now - stamp);
			arm(!user_timeout ? snapshot.rto
			    : left <= 0   ? 1
			                  : std::min(snapshot.rto, left));
		}
		dead = true;
	}

	void check()
	{
		EXPECT_TRUE(dead);
		const Millis end = now;
		if (end < vanishes) // a user timeout ended a slow reader
			return;
		for (const Seen &seen : looks)
		{
			const Span span = verdict(seen.snapshot, settings, limits).gives_up_in;
			const Millis left = end - seen.at;
			ASSERT_TRUE(span.earliest && span.latest);
			ASSERT_LE(*span.earliest, left) << describe(seen);
			ASSERT_GE(*span.latest, left) << describe(seen);
		}
		const Detection d = detection(settings, limits, 400);
		const Span &whole = snapshot.timer == Timer::keepalive ? d.idle
		                    : zero_window(snapshot)            ? d.stalled
		                                                       : d.in_flight;
		ASSERT_LE(*whole.earliest, end - vanishes);
		ASSERT_GE(*whole.latest, end - vanishes);
	}

  private:
	struct Seen
	{
		Millis at;
		ConnectionSnapshot snapshot;
	};

	std::string describe(const Seen &seen) const
	{
		return "timer " + std::to_string(static_cast<int>(seen.snapshot.timer)) +
		       " probes " + std::to_string(seen.snapshot.probes) + " retransmits " +
		       std::to_string(seen.snapshot.retransmits) + " backoff " +
		       std::to_string(seen.snapshot.backoff) + " expires " +
		       std::to_string(seen.snapshot.expires) + " rto " +
		       std::to_string(seen.snapshot.rto) + "; " +
		       std::to_string(settings.idle_s) + "/" +
		       std::to_string(settings.interval_s) + "/" +
		       std::to_string(settings.count) + "/" +
		       std::to_string(settings.user_timeout_ms);
	}

	Millis between(Millis least, Millis most)
	{
		return std::uniform_int_distribution<Millis>(least, most)(random);
	}

	void arm(Millis delay)
	{
		expires = now + delay;
		// Usually slightly late, sometimes as late as possible.
		const Millis most = delay / 8 + 4;
		fires = expires + (between(0, 2) ? between(0, most) : between(0, 1) * most);
	}

	void receive()
	{
		received = now;
		snapshot.probes = 0;
	}

	// Advances the clock to `until`.  Observes the socket meanwhile, once the peer has
	// disappeared.
	void look_until(Millis until)
	{
		for (int i = 0; i < 3; ++i)
		{
			const Millis at = between(now, std::max(now, until));
			snapshot.expires = std::max<Millis>(expires - at, 0);
			snapshot.last_ack_recv = at - received;
			snapshot.last_data_sent = at - data_sent;
			if (first_timeout)
				snapshot.since_first_timeout = at - *first_timeout;
			snapshot.last_data_recv = at - received + between(0, 1000);
			EXPECT_EQ(asking(snapshot, settings, limits), asked > received)
				<< describe({at, snapshot});
			if (at >= vanishes)
				looks.push_back({at, snapshot});
		}
		now = until;
	}

	DetectionSettings settings;
	KernelLimits limits;
	std::mt19937 random;
	ConnectionSnapshot snapshot{};
	Millis now = 1000000, received = 0, expires = 0, fires = 0, vanishes = 0;
	Millis asked = 0, data_sent = 0; // the last question, the last data
	bool dead = false;
	Duration first_timeout;
	std::vector<Seen> looks;
};

TEST(Simulated, KeepaliveEndsWithinTheVerdict)
{
	for (unsigned seed = 0; seed < 30; ++seed)
		for (const int idle : {1, 3, 20, 600})
			for (const int interval : {1, 4, 75})
				for (const int count : {1, 3, 9})
					for (const int user_timeout : {0, 300, 2500, 30000})
					{
						Simulation s(
							detection_settings_of(idle, interval, count, user_timeout),
							usual, seed);
						s.run_keepalive();
						s.check();
						if (HasFatalFailure())
							return;
					}
}

TEST(Simulated, RetransmissionEndsWithinTheVerdict)
{
	for (unsigned seed = 0; seed < 200; ++seed)
		for (const int retries2 : {1, 3, 5, 8, 15})
			for (const Millis rto_max : {1000, 10000, 120000})
				for (const int user_timeout : {0, 300, 2500, 30000, 300000})
				{
					Simulation s(detection_settings_of(7200, 75, 9, user_timeout),
					             {retries2, rto_max}, seed);
					s.run_retransmission();
					s.check();
					if (HasFatalFailure())
						return;
				}
}

TEST(Simulated, RetransmissionToAnUnreachableHostEndsWithinTheVerdict)
{
	for (unsigned seed = 0; seed < 400; ++seed)
		for (const int retries2 : {1, 3, 5, 8, 15})
			for (const Millis rto_max : {1000, 10000, 120000})
				for (const bool timed : {false, true})
				{
					Simulation s(detection_settings_of(7200, 75, 9), {retries2, rto_max},
					             seed);
					s.run_retransmission(true, timed);
					s.check();
					if (HasFatalFailure())
						return;
				}
}

TEST(Simulated, RetransmissionTimedByTheKernelEndsWithinTheVerdict)
{
	for (unsigned seed = 0; seed < 200; ++seed)
		for (const int retries2 : {1, 3, 5, 8, 15})
			for (const int user_timeout : {0, 300, 2500, 30000, 300000})
			{
				Simulation s(detection_settings_of(7200, 75, 9, user_timeout),
				             {retries2, 120000}, seed);
				s.run_retransmission(false, true);
				s.check();
				if (HasFatalFailure())
					return;
			}
}

TEST(Verdict, TimeSinceFirstTimeoutIsKnownInTheFirstRecoveryOnly)
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

TEST(Simulated, ZeroWindowEndsWithinTheVerdict)
{
	for (unsigned seed = 0; seed < 200; ++seed)
		for (const int retries2 : {1, 3, 5, 8, 15})
			for (const Millis rto_max : {1000, 10000, 120000})
				for (const int user_timeout : {0, 300, 2500, 30000})
				{
					// A user timeout may end the connection before the peer
					// disappears: not tested here.
					Simulation s(detection_settings_of(7200, 75, 9, user_timeout),
					             {retries2, rto_max}, seed);
					s.run_persist();
					s.check();
					if (HasFatalFailure())
						return;
				}
}

TEST(Simulated, WindowClosedOverDataInFlight)
{
	for (unsigned seed = 0; seed < 200; ++seed)
		for (const Millis rto_max : {1000, 10000, 120000})
			for (const int user_timeout : {0, 2500, 30000})
			{
				Simulation s(detection_settings_of(7200, 75, 9, user_timeout),
				             {15, rto_max}, seed);
				s.run_shrunk_window();
				s.check();
				if (HasFatalFailure())
					return;
			}
}

TEST(Verdict, HasTheExpectedHealth)
{
	const DetectionSettings w = detection_settings_of(10, 2, 3);
	const auto health = [&](const std::function<void(ConnectionSnapshot &)> &change)
	{
		ConnectionSnapshot snapshot = alive_and_idle();
		change(snapshot);
		return verdict(snapshot, w, usual).health;
	};
	EXPECT_EQ(health([](ConnectionSnapshot &) {}), Health::alive);
	EXPECT_EQ(health([](ConnectionSnapshot &l) { l.timer = Timer::off; }), Health::alive);
	EXPECT_EQ(health([](ConnectionSnapshot &l) { l.probes = 1; }), Health::probing);
	EXPECT_EQ(health(
				  [](ConnectionSnapshot &l)
				  {
					  l.timer = Timer::retransmit;
					  l.unacked = 1;
				  }),
	          Health::alive);
	EXPECT_EQ(health(
				  [](ConnectionSnapshot &l)
				  {
					  l.timer = Timer::retransmit;
					  l.unacked = 1;
					  l.retransmits = 2;
					  l.probes = 1;
					  l.last_data_sent = 4000;
				  }),
	          Health::retransmitting);
	EXPECT_EQ(health(
				  [](ConnectionSnapshot &l)
				  {
					  l.timer = Timer::retransmit;
					  l.unacked = 1;
					  l.retransmits = 2;
					  l.last_data_sent = 5000; // answered
				  }),
	          Health::alive);
	EXPECT_EQ(health([](ConnectionSnapshot &l) { l.timer = Timer::persist; }),
	          Health::zero_window);
	EXPECT_EQ(health(
				  [](ConnectionSnapshot &l)
				  {
					  l.timer = Timer::persist;
					  l.probes = 2;
				  }),
	          Health::probing);
	EXPECT_EQ(health(
				  [](ConnectionSnapshot &l)
				  {
					  l.timer = Timer::retransmit;
					  l.unacked = 3;
					  l.snd_wnd = 0;
				  }),
	          Health::zero_window);
	const auto shrunk = [&](Millis last_data_sent)
	{
		return health(
			[&](ConnectionSnapshot &l)
			{
				l.timer = Timer::retransmit;
				l.unacked = 3;
				l.snd_wnd = 0;
				l.retransmitted = 1;
				l.last_data_sent = last_data_sent;
			});
	};
	EXPECT_EQ(shrunk(5000), Health::zero_window);    // answered
	EXPECT_EQ(shrunk(4000), Health::retransmitting); // not answered
	EXPECT_EQ(health([](ConnectionSnapshot &l) { l.snd_wnd = 0; }), Health::alive);
	EXPECT_EQ(health(
				  [](ConnectionSnapshot &l)
				  {
					  l.timer = Timer::retransmit; // all was acknowledged meanwhile
					  l.snd_wnd = 0;
				  }),
	          Health::alive);
	for (const TcpState s : {TcpState::close_wait, TcpState::last_ack, TcpState::closing})
		EXPECT_EQ(health([s](ConnectionSnapshot &l) { l.state = s; }),
		          Health::closed_by_peer);
	EXPECT_EQ(health([](ConnectionSnapshot &l) { l.state = TcpState::close; }),
	          Health::dead);
}

TEST(Verdict, DeadConnectionIsGivenUpNow)
{
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.state = TcpState::close;
	snapshot.timer = Timer::off;
	const Span gives_up_in =
		verdict(snapshot, detection_settings_of(10, 2, 3), usual).gives_up_in;
	EXPECT_EQ(gives_up_in.earliest, Duration(0));
	EXPECT_EQ(gives_up_in.latest, Duration(0));
}

TEST(Verdict, WithoutKeepaliveAnIdlePeerIsNeverGivenUp)
{
	DetectionSettings w = detection_settings_of(10, 2, 3, 5000);
	w.keepalive = false;
	w.dead_after_ms = 5000;
	w.watch_interval_ms = 1000;
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.timer = Timer::off;
	EXPECT_FALSE(verdict(snapshot, w, usual).gives_up_in.earliest);
	EXPECT_FALSE(verdict(snapshot, w, usual).gives_up_in.latest);
	snapshot.timer = Timer::retransmit;
	snapshot.unacked = 1;
	EXPECT_TRUE(verdict(snapshot, w, usual).gives_up_in.latest);
}

TEST(Verdict, KeepaliveCountsDown)
{
	ConnectionSnapshot snapshot =
		alive_and_idle(); // silent for 5 s, the timer fires in 5 s
	const DetectionSettings w = detection_settings_of(10, 2, 3);
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.earliest, 5000 + 3 * 2000);
	snapshot.last_data_recv = snapshot.last_ack_recv = 13000;
	snapshot.probes = 2;
	snapshot.expires = 1000;
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.earliest, 1000 + 2000);
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.latest,
	          1000 + lateness(10000) + late(2000));
}

// The timer finds idle exceeded after 2 s of silence, and fires every 2 s from then on.
TEST(Verdict, KeepaliveWithAUserTimeoutEndsAtTheFirstFiringAfterIt)
{
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.last_data_recv = snapshot.last_ack_recv = 0;
	snapshot.expires = 2000;
	Span gives_up_in =
		verdict(snapshot, detection_settings_of(2, 2, 3, 8000), usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 8000);
	EXPECT_EQ(*gives_up_in.latest, 4 * late(2000));

	// The firing after 8 s is just too early, if none is late.
	gives_up_in =
		verdict(snapshot, detection_settings_of(2, 2, 3, 8001), usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 8001);
	EXPECT_EQ(*gives_up_in.latest, 8001 + late(2000));
}

TEST(Verdict, KeepaliveWaitsForIdleWhateverTheTimer)
{
	const DetectionSettings w = detection_settings_of(10, 2, 3);
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.last_data_recv = snapshot.last_ack_recv = 3000;
	snapshot.expires = 1000; // then it is armed for 6 s
	Span gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 7000 + 3 * 2000);
	EXPECT_EQ(*gives_up_in.latest, 7000 + lateness(10000) + 3 * late(2000));
	snapshot.timer = Timer::off; // at this moment
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 7000 + 3 * 2000);
	EXPECT_EQ(*gives_up_in.latest, late(10000) + 3 * late(2000));

	// An interval longer than idle may be running.
	snapshot.timer = Timer::keepalive;
	gives_up_in = verdict(snapshot, detection_settings_of(1, 60, 1), usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 1000 + 60000);
	EXPECT_EQ(*gives_up_in.latest, 1000 + lateness(60000) + late(60000));
}

ConnectionSnapshot retransmitting(int times)
{
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.timer = Timer::retransmit;
	snapshot.unacked = 1;
	snapshot.retransmits = snapshot.backoff = times;
	snapshot.rto = Millis{200} << times;
	snapshot.expires = 100;
	return snapshot;
}

TEST(Verdict, AUserTimeoutCountsFromTheFirstRetransmission)
{
	const DetectionSettings w = detection_settings_of(10, 2, 3, 30000);
	Span gives_up_in = verdict(retransmitting(0), w, usual).gives_up_in;
	// The timer may be that of a tail-loss probe.
	const Millis latest_first = 100 + lateness(200) + late(200);
	EXPECT_EQ(*gives_up_in.earliest, 100 + 30000);
	EXPECT_EQ(*gives_up_in.latest, latest_first + 30000 + lateness(30000));

	// After three doublings without a retransmission that counts, two with one: 3200 ms,
	// and 6300 ms of 6400 ms.
	ConnectionSnapshot snapshot = retransmitting(5);
	snapshot.retransmits = 2;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 30000 - late(3200) - (late(6400) - 100));
	EXPECT_EQ(*gives_up_in.latest, 30000 - 3200 - 6300 + lateness(30000));

	// A doubling was undone: 400 ms, 800 ms, and 1500 ms of 1600 ms are the least; the
	// most is the time since the last ACK.
	snapshot = retransmitting(3);
	snapshot.retransmits = 4;
	snapshot.last_ack_recv = 20000;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 30000 - 20000);
	EXPECT_EQ(*gives_up_in.latest, 30000 - 400 - 800 - 1500 + lateness(30000));
}

// tcp_rtx_probe0_timed_out()
TEST(Verdict, AWindowClosedOverDataInFlightIsProbedForTwiceTheLongestTimeout)
{
	ConnectionSnapshot snapshot = retransmitting(3);
	snapshot.snd_wnd = 0;
	DetectionSettings w = detection_settings_of(10, 2, 3);
	Span gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 2 * usual.rto_max - 5000);
	EXPECT_EQ(*gives_up_in.latest,
	          100 + lateness(1600) + 2 * usual.rto_max + late(usual.rto_max));
	snapshot.last_ack_recv = 3 * usual.rto_max;
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.earliest, 100);
	w.user_timeout_ms = 30000;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 100);
	EXPECT_EQ(*gives_up_in.latest, 100 + lateness(1600) + late(30000));
}

TEST(Verdict, AZeroWindowIsProbedAsOftenAsTcpRetries2Says)
{
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.timer = Timer::persist;
	snapshot.rto = 200;
	snapshot.probes = snapshot.backoff = 1;
	snapshot.expires = 300;
	const Span gives_up_in =
		verdict(snapshot, detection_settings_of(10, 2, 3), {3, 120000}).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 300 + 800 + 1600);
	EXPECT_EQ(*gives_up_in.latest, 300 + lateness(400) + late(800) + late(1600));
}

TEST(Verdict, DeadAfterCountsFromTheFirstRetransmission)
{
	DetectionSettings w = detection_settings_of(10, 75, 9);
	w.dead_after_ms = 30000;
	w.watch_interval_ms = 1000;
	ConnectionSnapshot snapshot = retransmitting(0);
	Span gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 100 + 30000);
	EXPECT_EQ(*gives_up_in.latest, 100 + lateness(200) + late(200) + 30000 + 2000);

	// A fast retransmission, 3 s ago.
	snapshot.retransmitted = 1;
	snapshot.last_data_sent = 3000;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 30000 - 5000);
	EXPECT_EQ(*gives_up_in.latest, 30000 - 3000 + 2000);

	// 400 ms, 800 ms, and 1500 ms of 1600 ms.
	snapshot = retransmitting(3);
	snapshot.last_data_sent = 1500;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 30000 - 5000);
	EXPECT_EQ(*gives_up_in.latest, 30000 - 400 - 800 - 1500 + 2000);

	// That one is answered; the next one is the first.
	snapshot.last_data_sent = 5000;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 100 + 30000);
	EXPECT_EQ(*gives_up_in.latest, 100 + lateness(1600) + 30000 + 2000);
}

// Periods of 400 ms, 800 ms, and 600 ms of the third.
TEST(Verdict, TheTimeOfTheFirstTimeoutShowsHowLateTimersWere)
{
	ConnectionSnapshot snapshot = retransmitting(3);
	snapshot.expires = 1000;
	const DetectionSettings w = detection_settings_of(10, 2, 3, 30000);
	Span gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 30000 - (late(400) + late(800) + late(1600) - 1000));
	EXPECT_EQ(*gives_up_in.latest, 30000 - 1800 + lateness(30000));

	snapshot.since_first_timeout = 1900;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.latest, 30000 - 1899 + lateness(30000));

	// A fast retransmission was sent before the first one on timeout.
	snapshot.since_first_timeout = 3000;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 30000 - 3000);

	// In the same millisecond.
	snapshot.since_first_timeout = 0;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.latest, 30000 + lateness(30000));
}

// The retransmission timeout is at its cap, after 17 doublings: those of at least 1 ms.
TEST(Verdict, ACappedTimeoutShowsTheLeastTimeThatDoublingsTook)
{
	ConnectionSnapshot snapshot = retransmitting(17);
	snapshot.rto = snapshot.expires = usual.rto_max;
	snapshot.last_ack_recv = 500000;
	const Span gives_up_in =
		verdict(snapshot, detection_settings_of(10, 2, 3, 600000), usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, usual.rto_max);
	EXPECT_EQ(*gives_up_in.latest, 600000 - ((1 << 17) - 2) + lateness(600000));
}

// retransmits_timed_out() looks when the timer fires: with tcp_retries2 = 1 600 ms after
// the first retransmission, or later.
TEST(Verdict, RetransmissionEndsAtTheFirstFiringAfterTheLimit)
{
	constexpr KernelLimits limits = {1, 120000};
	ConnectionSnapshot snapshot = retransmitting(1);
	const auto gives_up_in = [&]
	{
		return verdict(snapshot, detection_settings_of(10, 2, 3), limits).gives_up_in;
	};
	snapshot.rto = snapshot.expires = 600;
	EXPECT_EQ(*gives_up_in().earliest, 600);
	EXPECT_EQ(*gives_up_in().latest, late(600));
	snapshot.rto = snapshot.expires = 598;
	EXPECT_EQ(*gives_up_in().earliest, 598);
	EXPECT_EQ(*gives_up_in().latest, 600 + late(2 * 598));
}

TEST(Verdict, DeadAfterCountsOnlyWhileTheKernelProbes)
{
	DetectionSettings w = detection_settings_of(10, 75, 9);
	w.dead_after_ms = 30000;
	w.watch_interval_ms = 1000;
	ConnectionSnapshot snapshot = alive_and_idle();
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.earliest, 5000 + 30000);

	snapshot.probes = 1;
	snapshot.last_data_recv = snapshot.last_ack_recv = 22000; // probed for about 12 s
	snapshot.expires = 63000;
	Span gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 30000 - 12000);
	EXPECT_EQ(*gives_up_in.latest, 30000 - 12000 + 2000);

	snapshot.asked_for = 20000;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 10000);
	EXPECT_EQ(*gives_up_in.latest, 12000);

	snapshot.asked_for = 31000; // of an earlier question
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.earliest, 8000);
	snapshot.last_data_recv = snapshot.last_ack_recv = 42000;
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.earliest, 0);

	// The watcher is off: only the kernel counts.
	w.watch_interval_ms = 0;
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.earliest, 63000 + 8 * 75000);
}

TEST(Verdict, DeadAfterIgnoresSilenceBeforeTheFirstProbe)
{
	DetectionSettings w = detection_settings_of(7200, 75, 9);
	w.dead_after_ms = 30000;
	w.watch_interval_ms = 1000;
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.last_data_recv = snapshot.last_ack_recv = 3600000;
	snapshot.timer = Timer::retransmit;
	snapshot.unacked = 1;
	snapshot.expires = 100;
	EXPECT_FALSE(asking(snapshot, w, usual));
	EXPECT_GE(*verdict(snapshot, w, usual).gives_up_in.earliest, 30000);
}

// Where the watcher has not seen the question, its time follows from the periods of the
// timer, as far as that runs.
TEST(Verdict, DeadAfterCountsFromTheFirstProbeThatIsUnanswered)
{
	DetectionSettings w = detection_settings_of(10, 75, 9);
	w.dead_after_ms = 30000;
	w.watch_interval_ms = 1000;
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.last_data_recv = snapshot.last_ack_recv = 22000;
	snapshot.probes = 2;
	snapshot.timer = Timer::off;
	Span gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 30000 - 22000);
	EXPECT_EQ(*gives_up_in.latest, 30000 + 2000);

	// A probe was answered, then two were not: 3.2 s, and 1 s of 6.4 s.
	snapshot.timer = Timer::persist;
	snapshot.rto = 200;
	snapshot.backoff = 5;
	snapshot.expires = 6400 - 1000;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 30000 - 22000);
	EXPECT_EQ(*gives_up_in.latest, 30000 - 3200 - 1000 + 2000);
}

TEST(Verdict, DeadAfterCountsFromNowIfIdleWasRaisedWhileProbesAreUnanswered)
{
	DetectionSettings w = detection_settings_of(7200, 75, 9);
	w.dead_after_ms = 30000;
	w.watch_interval_ms = 1000;
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.last_data_recv = snapshot.last_ack_recv = 22000;
	snapshot.expires = 7200000 - 22000;
	snapshot.probes = 1;
	const Span gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 30000);
	EXPECT_EQ(*gives_up_in.latest, 30000 + 2000);
}

// The persist timer sends data into a window that is open a little, which makes it a
// retransmission timer.
TEST(Verdict, APartlyOpenWindowIsProbedWithData)
{
	DetectionSettings w = detection_settings_of(10, 75, 9);
	w.dead_after_ms = 2000;
	w.watch_interval_ms = 200;
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.timer = Timer::persist;
	snapshot.rto = 1000;
	snapshot.backoff = 4;
	snapshot.expires = 3000;
	snapshot.snd_wnd = 0;
	const Span closed = verdict(snapshot, w, usual).gives_up_in;
	snapshot.snd_wnd = 1;
	const Span open = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*open.earliest, *closed.earliest);
	EXPECT_EQ(*open.latest, *closed.latest + 2 * late(1000));

	// The kernel's own verdict: retransmission for as long as tcp_retries2 allows.
	w.dead_after_ms = 0;
	const Span kernel = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_GE(*kernel.earliest, 3000 + retransmission_limit(usual));
	EXPECT_LE(*kernel.latest, late(16000) + *detection(w, usual, 1000).in_flight.latest);
}

TEST(Verdict, AUserTimeoutCountsFromTheFirstProbeOfAZeroWindow)
{
	const DetectionSettings w = detection_settings_of(10, 75, 9, 30000);
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.timer = Timer::persist;
	snapshot.rto = 200;
	snapshot.expires = 100;
	Span gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 100 + 30000);
	EXPECT_EQ(*gives_up_in.latest, 100 + lateness(200) + late(30000));

	// Since the first probe: 400 ms, 800 ms, and 600 ms of 1600 ms.  If answers have
	// restarted the timer, the next firing may be the last.
	snapshot.backoff = 3;
	snapshot.expires = 1000;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 1000);
	EXPECT_EQ(*gives_up_in.latest, 30000 - 1800 + lateness(30000));

	// The user timeout is over when the timer fires.
	snapshot.backoff = 8; // 51.2 s
	snapshot.expires = 20000;
	gives_up_in = verdict(snapshot, w, usual).gives_up_in;
	EXPECT_EQ(*gives_up_in.earliest, 20000);
	EXPECT_EQ(*gives_up_in.latest, 20000 + lateness(51200));
}

TEST(Verdict, StallTimeoutLimitsAZeroWindow)
{
	DetectionSettings w = detection_settings_of(10, 2, 3);
	w.stall_timeout_ms = 60000;
	w.watch_interval_ms = 1000;
	ConnectionSnapshot snapshot = alive_and_idle();
	EXPECT_FALSE(zero_window(snapshot));
	snapshot.timer = Timer::persist;
	EXPECT_TRUE(zero_window(snapshot));
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.earliest, 0);
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.latest, 62000);
	snapshot.stalled_for = 70000;
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.earliest, 0);
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.latest, 2000);
	snapshot.stalled_for = 50000;
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.earliest, 10000);
	EXPECT_EQ(*verdict(snapshot, w, usual).gives_up_in.latest, 12000);
}

bool asks(const ConnectionSnapshot &snapshot)
{
	return asking(snapshot, detection_settings_of(2, 8, 9), usual);
}

// Silent for 5 s.
TEST(Asking, IncludesEveryKindOfProbe)
{
	const ConnectionSnapshot idle = alive_and_idle();
	EXPECT_FALSE(asks(idle));
	ConnectionSnapshot snapshot = idle;
	snapshot.probes = 1;
	EXPECT_TRUE(asks(snapshot));
	snapshot = idle;
	snapshot.retransmits = 1;
	EXPECT_TRUE(asks(snapshot));
	snapshot = idle;
	snapshot.retransmitted = 1;
	EXPECT_TRUE(asks(snapshot));
	snapshot = idle;
	snapshot.last_ack_recv = 100;
	EXPECT_EQ(silent_for(snapshot), 100);
}

TEST(Asking, ARetransmissionIsAnsweredByALaterReceipt)
{
	for (const bool shrunk : {false, true})
	{
		ConnectionSnapshot snapshot = alive_and_idle();
		snapshot.timer = Timer::retransmit;
		snapshot.unacked = 3;
		snapshot.retransmitted = 1;
		snapshot.retransmits = shrunk ? 0 : 4;
		snapshot.snd_wnd = shrunk ? 0 : 65535;
		snapshot.last_data_sent = 4996;
		EXPECT_TRUE(asks(snapshot));
		snapshot.last_data_sent = 5000; // within the same jiffy
		EXPECT_FALSE(asks(snapshot));
		snapshot.last_data_sent = 60000;
		EXPECT_FALSE(asks(snapshot));
		snapshot.last_data_recv = 100000;
		EXPECT_FALSE(asks(snapshot));
		snapshot.last_ack_recv = 60004;
		EXPECT_TRUE(asks(snapshot));
	}
}

TEST(Asking, DataSentAfterAProbeMayBeAnswered)
{
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.timer = Timer::retransmit;
	snapshot.probes = 1;
	snapshot.unacked = 1;
	snapshot.last_data_sent = 4000;
	EXPECT_TRUE(asks(snapshot));
	snapshot.last_data_sent = 6000;
	EXPECT_FALSE(asks(snapshot));
}

// The kernel's fast path receives data without clearing tcpi_probes.
TEST(Asking, DataAnswersAProbeThatTheKernelStillCounts)
{
	// Idle 2 s, interval 8 s.  The last ACK 9 s ago, the probe 7 s ago, data 5 s ago.
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.probes = 1;
	snapshot.last_ack_recv = 9000;
	snapshot.expires = 1000;
	EXPECT_FALSE(asks(snapshot));
	// The data 9 s ago, then the probe.
	snapshot.last_data_recv = 9000;
	snapshot.last_ack_recv = 20000;
	EXPECT_TRUE(asks(snapshot));
	// After data that is less than 2 s older there would have been no probe.
	snapshot.last_data_recv = 8999;
	EXPECT_FALSE(asks(snapshot));
	// Without any data since the last ACK the probe is not answered, whenever it was
	// sent.
	snapshot.last_data_recv = 5000;
	snapshot.last_ack_recv = 5000;
	EXPECT_TRUE(asks(snapshot));
	snapshot.timer = Timer::off;
	EXPECT_TRUE(asks(snapshot));
}

TEST(Asking, ALateTimerDoesNotMakeAnAnsweredProbeUnanswered)
{
	// The timer was set anew after the data, for what was left of two hours, and is late.
	ConnectionSnapshot snapshot = alive_and_idle();
	const DetectionSettings w = detection_settings_of(7200, 10, 9);
	snapshot.probes = 1;
	snapshot.last_data_recv = 7200000 + 60000;
	snapshot.last_ack_recv = 20000000;
	snapshot.expires = 0;
	snapshot.answered_probes = 1;
	EXPECT_FALSE(asking(snapshot, w, usual));
	snapshot.probes = 2;
	EXPECT_TRUE(asking(snapshot, w, usual));
}

TEST(Asking, DataAnswersAWindowProbe)
{
	ConnectionSnapshot snapshot = alive_and_idle();
	snapshot.timer = Timer::persist;
	snapshot.rto = 200;
	snapshot.backoff = 6; // 12.8 s
	snapshot.expires = 12800 - 6000;
	snapshot.probes = 1;
	snapshot.last_ack_recv = 20000;
	EXPECT_FALSE(asks(snapshot)); // the probe 6 s ago, the data 5 s ago
	snapshot.expires = 12800 - 4000;
	EXPECT_TRUE(asks(snapshot));
	snapshot.answered_probes = 1;
	EXPECT_FALSE(asks(snapshot));
}

// What the kernel may report while timers and options change concurrently.
TEST(Verdict, IsConsistentForRandomInput)
{
	std::mt19937 random(1);
	const auto pick = [&](std::initializer_list<Millis> values)
	{
		return values.begin()[random() % values.size()];
	};
	for (int i = 0; i < 200000; ++i)
	{
		ConnectionSnapshot snapshot{};
		snapshot.state = static_cast<TcpState>(random() % 14);
		snapshot.timer = static_cast<Timer>(random() % 5);
		snapshot.expires = pick({0, 1, 200, 100000, UINT32_MAX});
		snapshot.retransmits = static_cast<int>(pick({0, 1, 5, 15, 255}));
		snapshot.probes = static_cast<int>(pick({0, 1, 5, 127, 255}));
		snapshot.backoff = static_cast<int>(pick({0, 1, 5, 15, 255}));
		snapshot.rto = pick({0, 1, 204, 120000, 4294967});
		snapshot.unacked = static_cast<std::uint32_t>(pick({0, 1}));
		snapshot.retransmitted = static_cast<std::uint32_t>(pick({0, 1}));
		snapshot.last_data_recv = pick({0, 5000, UINT32_MAX});
		snapshot.last_ack_recv = pick({0, 5000, UINT32_MAX});
		if (random() % 2)
			snapshot.snd_wnd = static_cast<std::uint32_t>(pick({0, 65535}));
		if (random() % 2)
			snapshot.last_data_sent = pick({0, 5000, UINT32_MAX});
		snapshot.answered_probes = static_cast<int>(pick({0, 1, 255}));
		if (random() % 2)
			snapshot.asked_for = snapshot.stalled_for = pick({0, 1000, INT32_MAX});
		DetectionSettings w = detection_settings_of(
			static_cast<int>(pick({1, 32767})), static_cast<int>(pick({1, 32767})),
			static_cast<int>(pick({1, 127})),
			static_cast<int>(pick({0, 1, 30000, INT32_MAX})));
		w.keepalive = random() % 4;
		w.dead_after_ms = static_cast<int>(pick({0, 1000, INT32_MAX}));
		w.stall_timeout_ms = static_cast<int>(pick({0, 1000, INT32_MAX}));
		w.watch_interval_ms = static_cast<int>(pick({0, 1000, INT32_MAX}));
		const Span span =
			verdict(snapshot, w,
		            {static_cast<int>(pick({0, 15, 255})), pick({1000, 120000})})
				.gives_up_in;
		ASSERT_EQ(span.earliest.has_value(), span.latest.has_value());
		if (span.earliest)
		{
			ASSERT_GE(*span.earliest, 0);
			ASSERT_LE(*span.earliest, *span.latest);
		}
	}
}

} // namespace
