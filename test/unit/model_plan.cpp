#include "model/plan.hpp"

#include <climits>
#include <string>

#include <gtest/gtest.h>

using namespace guard;

namespace
{

constexpr KernelLimits usual;

// Detection times from the shortest possible to months, denser where they are short.
template <typename Visit> void every_intent(Visit visit)
{
	const Millis shortest = make_plan({1, std::nullopt, false}, 1000, usual).minimum;
	for (Millis within = shortest; within < 10000000000;
	     within += 1 + within / 300 + (within < 300000 ? 0 : within / 20))
	{
		visit(Intent{within, std::nullopt, false});
		visit(Intent{within, std::nullopt, true});
		for (const Millis path :
		     {1208, 2000, 5000, 20000, 60000, 240000, 350000, 900000, 432000000})
			visit(Intent{within, path, false});
	}
}

TEST(Plan, FindsADeadPeerInEveryState)
{
	for (const int watch_interval : {1, 100, 1000, 60000})
		every_intent(
			[&](const Intent &intent)
			{
				const Plan plan = make_plan(intent, watch_interval, usual);
				if (watch_interval == 60000 && plan.error == PlanError::detect_too_soon)
					return;
				ASSERT_EQ(plan.error, PlanError::none) << intent.detect_within;
				const Detection d = detection(plan.settings, usual);
				for (const Span *s : {&d.idle, &d.working, &d.in_flight, &d.busy,
			                          &d.late_write, &d.stalled})
				{
					if (s == &d.stalled && !intent.end_slow_readers)
						continue;
					ASSERT_TRUE(s->latest);
					ASSERT_LT(*s->latest, intent.detect_within);
				}
				ASSERT_EQ(plan.detection.late_write.latest, d.late_write.latest);
				// The kernel alone also finds idle peers, whether the backend is busy or
			    // not.
				DetectionSettings alone = plan.settings;
				alone.watch_interval_ms = 0;
				ASSERT_LT(*detection(alone, usual).idle.latest, intent.detect_within);
				ASSERT_LT(*detection(alone, usual).working.latest, intent.detect_within);
			});
}

TEST(Plan, KeepsThePathOpenEvenIfAProbeIsLost)
{
	every_intent(
		[](const Intent &intent)
		{
			const Plan plan = make_plan(intent, 1000, usual);
			ASSERT_EQ(plan.error, PlanError::none);
			const Millis idle = late(plan.settings.idle_s * 1000);
			const Millis interval = late(plan.settings.interval_s * 1000);
			ASSERT_LE(plan.settings.interval_s, plan.settings.idle_s);
			if (!intent.path_idle_timeout)
				return;
			const Millis path = *intent.path_idle_timeout;
			ASSERT_LE(idle, path * 95 / 100);
			if (path > 2500)
			{
				ASSERT_LE(idle + interval, path * 95 / 100);
			}
		});
}

TEST(Plan, AllowsForLostProbes)
{
	every_intent(
		[](const Intent &intent)
		{
			const Plan plan = make_plan(intent, 1000, usual);
			ASSERT_GE(plan.settings.count, 3) << intent.detect_within;
			ASSERT_GE(plan.settings.dead_after_ms, 3500);
			// The peer has at least a third of the time to answer, unless the bounds of
		    // the settings or rounding to whole seconds prevent it.
			const DetectionSettings &w = plan.settings;
			if (intent.detect_within > 15000 && intent.detect_within < 150000)
			{
				ASSERT_GE(Millis{w.count} * w.interval_s * 1000, intent.detect_within / 3)
					<< intent.detect_within;
			}
		});
}

TEST(Plan, SettingsAreWithinPostgresqlsBounds)
{
	every_intent(
		[](const Intent &intent)
		{
			const DetectionSettings w = make_plan(intent, 1000, usual).settings;
			ASSERT_TRUE(w.keepalive);
			ASSERT_GE(w.idle_s, 1);
			ASSERT_LE(w.idle_s, 32767);
			ASSERT_GE(w.interval_s, 1);
			ASSERT_LE(w.interval_s, 32767);
			ASSERT_GE(w.count, 1);
			ASSERT_LE(w.count, 127);
			ASSERT_EQ(w.user_timeout_ms, 0);
			ASSERT_GE(w.client_check_ms, 100);
		});
}

TEST(Plan, TimesAreEasyToRead)
{
	every_intent(
		[](const Intent &intent)
		{
			const Plan plan = make_plan(intent, 1000, usual);
			for (const Millis time :
		         {plan.settings.client_check_ms, plan.settings.dead_after_ms,
		          plan.settings.stall_timeout_ms, plan.client_user_timeout_ms})
				ASSERT_EQ(time % (time >= 10000 ? 1000 : 100), 0) << intent.detect_within;
		});
}

// Otherwise a plan never ends a living client.
TEST(Plan, SetsStallTimeoutOnlyToEndSlowReaders)
{
	every_intent(
		[](const Intent &intent)
		{
			const DetectionSettings w = make_plan(intent, 1000, usual).settings;
			ASSERT_EQ(w.stall_timeout_ms > 0, intent.end_slow_readers);
			ASSERT_EQ(w.user_timeout_ms, 0);
		});

	const Plan minute = make_plan({60000, std::nullopt, false}, 1000, usual);
	EXPECT_GT(*minute.detection.stalled.latest, 120000);
	EXPECT_LT(*minute.detection.stalled.latest, 180000);
	const Plan strict = make_plan({60000, std::nullopt, true}, 1000, usual);
	EXPECT_GT(strict.settings.stall_timeout_ms, 50000);
	EXPECT_LT(*strict.detection.stalled.latest, 60000);
}

// From about four minutes on there is time to probe a closed window.
TEST(Plan, FindsADeadPeerBehindAClosedWindowIfThereIsTime)
{
	for (const Millis within : {240000, 300000, 3600000})
		EXPECT_LT(*make_plan({within, std::nullopt, false}, 1000, usual)
		               .detection.stalled.latest,
		          within);
	// With tcp_rto_max_ms the kernel probes sooner.
	EXPECT_LT(*make_plan({90000, std::nullopt, false}, 1000, {15, 5000})
	               .detection.stalled.latest,
	          90000);
}

TEST(Plan, MinimumIsPossible)
{
	for (int watch_interval = 1; watch_interval <= 60000;
	     watch_interval += watch_interval < 200 ? 1 : 1000)
	{
		const Plan refused =
			make_plan({1000, std::nullopt, false}, watch_interval, usual);
		ASSERT_EQ(refused.error, PlanError::detect_too_soon);
		const Intent least{refused.minimum, std::nullopt, false};
		EXPECT_EQ(make_plan(least, watch_interval, usual).error, PlanError::none);
		const Plan below =
			make_plan({refused.minimum - 1, std::nullopt, false}, watch_interval, usual);
		EXPECT_EQ(below.error, PlanError::detect_too_soon);
		EXPECT_EQ(below.minimum, refused.minimum);
	}
	const Plan refused = make_plan({60000, 500, false}, 1000, usual);
	ASSERT_EQ(refused.error, PlanError::path_too_forgetful);
	EXPECT_EQ(make_plan({60000, refused.minimum, false}, 1000, usual).error,
	          PlanError::none);
	EXPECT_EQ(make_plan({60000, refused.minimum - 1, false}, 1000, usual).error,
	          PlanError::path_too_forgetful);
	EXPECT_EQ(make_plan({60000, std::nullopt, false}, 0, usual).error,
	          PlanError::not_watching);
	// With the default watch_interval of one second, the minimum is below ten seconds.
	EXPECT_LT(make_plan({1, std::nullopt, false}, 1000, usual).minimum, 10000);
}

TEST(Plan, ExtremesDoNotOverflow)
{
	const Plan plan = make_plan({INT64_C(1) << 50, INT64_C(1) << 50, false}, 1000, usual);
	EXPECT_EQ(plan.error, PlanError::none);
	EXPECT_EQ(plan.settings.idle_s, 32767);
	EXPECT_GT(plan.settings.dead_after_ms, 0);
	EXPECT_GT(plan.client_user_timeout_ms, 0);
	EXPECT_EQ(make_plan({60000, std::nullopt, false}, INT_MAX, usual).error,
	          PlanError::detect_too_soon);
}

TEST(Plan, ClientOptionsDetectWithinTheSameTime)
{
	every_intent(
		[](const Intent &intent)
		{
			const Plan plan = make_plan(intent, 1000, usual);
			DetectionSettings client{};
			client.keepalive = true;
			client.idle_s = plan.settings.idle_s;
			client.interval_s = plan.settings.interval_s;
			client.count = plan.settings.count;
			client.user_timeout_ms = plan.client_user_timeout_ms;
			const Detection d = detection(client, usual);
			ASSERT_LT(*d.idle.latest, intent.detect_within);
			ASSERT_LT(*d.in_flight.latest, intent.detect_within);
			ASSERT_LT(*d.stalled.latest, intent.detect_within);
		});
}

TEST(Plan, ClientUserTimeoutIsTheLongest)
{
	every_intent(
		[](const Intent &intent)
		{
			const Plan plan = make_plan(intent, 1000, usual);
			const Millis chosen = plan.client_user_timeout_ms;
			const Millis longer = chosen + (chosen < 10000 ? 100 : 1000);
			if (longer > INT_MAX ||
		        longer + late(plan.settings.interval_s * 1000) > plan.promise)
				return;
			DetectionSettings client{};
			client.user_timeout_ms = static_cast<std::int32_t>(longer);
			ASSERT_GT(*detection(client, usual).in_flight.latest, plan.promise);
		});
}

// The most retries that still give up within the time.
TEST(Plan, RetriesAreTheMost)
{
	const auto plan_of = [](Duration latest, Millis less)
	{
		return make_plan({with_margin(*latest) - less, std::nullopt, false}, 1, usual);
	};
	for (int retries = 2; retries <= 6; ++retries)
	{
		const Duration latest = connect_gives_up(retries).latest;
		EXPECT_EQ(plan_of(latest, 0).tcp_syn_retries, retries);
		EXPECT_EQ(plan_of(latest, 1).tcp_syn_retries, retries - 1);
	}
	for (int retries = 2; retries <= 15; ++retries)
	{
		const Duration latest =
			detection(DetectionSettings{}, {retries, usual.rto_max}).in_flight.latest;
		EXPECT_EQ(plan_of(latest, 0).tcp_retries2, retries);
		EXPECT_EQ(plan_of(latest, 1).tcp_retries2, retries - 1);
	}
}

TEST(Plan, HasTheExpectedSettings)
{
	struct
	{
		Millis within;
		int idle, interval, count, check, dead_after, user_timeout, connect_timeout;
	} const expected[] = {
		{10000, 1, 1, 3, 800, 4200, 3600, 9},
		{30000, 8, 2, 7, 2400, 16000, 15000, 29},
		{100000, 31, 8, 6, 8200, 59000, 56000, 98},
		{275554, 90, 19, 6, 10000, 135000, 159000, 272}, // 5 * 24 s is as good
		{3600000, 1200, 325, 6, 10000, 2207000, 3040000, 3563},
	};
	for (const auto &e : expected)
	{
		const Plan plan = make_plan({e.within, std::nullopt, false}, 1000, usual);
		EXPECT_EQ(plan.settings.idle_s, e.idle) << e.within;
		EXPECT_EQ(plan.settings.interval_s, e.interval) << e.within;
		EXPECT_EQ(plan.settings.count, e.count) << e.within;
		EXPECT_EQ(plan.settings.client_check_ms, e.check) << e.within;
		EXPECT_EQ(plan.settings.dead_after_ms, e.dead_after) << e.within;
		EXPECT_EQ(plan.client_user_timeout_ms, e.user_timeout) << e.within;
		EXPECT_EQ(plan.client_connect_timeout_s, e.connect_timeout) << e.within;
	}
}

TEST(Plan, SysctlsDetectWithinTheSameTimeWithDataInFlight)
{
	every_intent(
		[](const Intent &intent)
		{
			const Plan plan = make_plan(intent, 1000, usual);
			DetectionSettings host{};
			host.keepalive = true;
			host.idle_s = plan.settings.idle_s;
			host.interval_s = plan.settings.interval_s;
			host.count = plan.settings.count;
			const KernelLimits changed{plan.tcp_retries2, usual.rto_max};
			ASSERT_LT(*detection(host, changed).idle.latest, intent.detect_within);
			ASSERT_LT(*detection(host, changed).in_flight.latest, intent.detect_within);
			ASSERT_GE(plan.tcp_retries2, 2);
			ASSERT_LE(plan.tcp_retries2, 15);
			ASSERT_LT(*connect_gives_up(plan.tcp_syn_retries).latest,
		              intent.detect_within);
			ASSERT_GE(plan.tcp_syn_retries, 1);
			ASSERT_LE(plan.tcp_syn_retries, 6);
		});
}

TEST(Plan, HasTheExpectedTexts)
{
	const Intent intent{60000, 350000, false};
	const Plan plan = make_plan(intent, 1000, usual);
	EXPECT_EQ(libpq_options(plan),
	          "keepalives=1 keepalives_idle=18 keepalives_interval=5 "
	          "keepalives_count=6 tcp_user_timeout=32000");
	EXPECT_EQ(sysctl_lines(plan), "net.ipv4.tcp_keepalive_time = 18\n"
	                              "net.ipv4.tcp_keepalive_intvl = 5\n"
	                              "net.ipv4.tcp_keepalive_probes = 6\n"
	                              "net.ipv4.tcp_retries2 = 6\n"
	                              "net.ipv4.tcp_syn_retries = 4\n");
	EXPECT_EQ(
		policy_insert(plan, intent),
		"INSERT INTO keepalive_policy (name, priority, tcp_keepalives_idle, "
		"tcp_keepalives_interval, tcp_keepalives_count, tcp_user_timeout, "
		"client_connection_check_interval, dead_after, stall_timeout) VALUES "
		"('dead_within_60s_path_350s', 1000, '18s', '5s', 6, '0s', '4900ms', '34s', "
		"NULL) ON CONFLICT (name) DO UPDATE SET priority = excluded.priority, "
		"tcp_keepalives_idle = excluded.tcp_keepalives_idle, "
		"tcp_keepalives_interval = excluded.tcp_keepalives_interval, "
		"tcp_keepalives_count = excluded.tcp_keepalives_count, "
		"tcp_user_timeout = excluded.tcp_user_timeout, "
		"client_connection_check_interval = excluded.client_connection_check_interval, "
		"dead_after = excluded.dead_after, stall_timeout = excluded.stall_timeout;");
	EXPECT_EQ(plan.probes_per_hour, 200);

	const Intent hour{3600500, std::nullopt, true};
	const std::string insert = policy_insert(make_plan(hour, 1000, usual), hour);
	EXPECT_NE(insert.find("'dead_within_3600500ms_end_slow', 1000"), std::string::npos);
	EXPECT_EQ(insert.find("NULL"), std::string::npos);

	// The longest of all: a policy's name has at most 63 bytes.
	const Millis century = INT64_C(36525) * 24 * 3600 * 1000 - 1;
	const Intent longest{century, century, true};
	PlanTexts texts;
	const Plan long_plan = make_plan(longest, 1000, usual);
	EXPECT_TRUE(plan_texts(long_plan, longest, std::string(130, 'x').c_str(), &texts));
	const std::string text = texts.policy_insert;
	EXPECT_FALSE(plan_texts(long_plan, longest, std::string(5000, 'x').c_str(), &texts));
	const std::size_t quote = text.find('\'');
	EXPECT_LE(text.find('\'', quote + 1) - quote - 1, 63u) << text;
}

} // namespace
