#include "model/client_plan.hpp"

#include <cstring>
#include <set>
#include <string>

#include <gtest/gtest.h>

using namespace guard;

namespace
{

// Calls visit(intent, plan, row) for each client and many intents.
template <typename Visit> void every_row(Visit visit)
{
	for (const Millis within :
	     {9300, 10000, 15000, 45500, 60000, 350000, 3600000, 864000000})
		for (const Millis path : {0, 5000, 240000})
		{
			Intent intent{within, std::nullopt, false};
			if (path != 0)
				intent.path_idle_timeout = path;
			const Plan plan = make_plan(intent, 1000, KernelLimits());
			ASSERT_EQ(plan.error, PlanError::none);
			for (std::size_t i = 0; i < client_plan_count(); ++i)
			{
				ClientPlan row;
				ASSERT_TRUE(client_plan(plan, i, &row)) << i;
				visit(intent, plan, row);
			}
		}
}

ClientPlan row_of(const std::string &client, const Intent &intent)
{
	const Plan plan = make_plan(intent, 1000, KernelLimits());
	ClientPlan row{};
	for (std::size_t i = 0; i < client_plan_count(); ++i)
	{
		EXPECT_TRUE(client_plan(plan, i, &row));
		if (row.client == client)
			return row;
	}
	ADD_FAILURE() << client;
	return row;
}

// A client that can set everything, or has the sysctls, finds a dead server in time.
TEST(ClientPlan, FindsADeadServerInTime)
{
	every_row(
		[](const Intent &intent, const Plan &, const ClientPlan &row)
		{
			const std::string client = row.client;
			if (client == "Kubernetes pod")
			{
				EXPECT_LE(*row.idle, intent.detect_within);
				EXPECT_GT(*row.busy, 900000);
				return;
			}
			// Node.js cannot probe for less than ten seconds.
			if (client != "node-postgres" || intent.detect_within >= 15000)
			{
				EXPECT_LE(*row.idle, intent.detect_within) << client;
				if (client != "postgres_fdw") // it connects once more
				{
					EXPECT_LE(*row.busy, intent.detect_within) << client;
				}
			}
			EXPECT_LE(*row.idle, *row.busy) << client;
			if (row.connecting)
			{
				EXPECT_LE(*row.connecting, intent.detect_within) << client;
			}
		});
	const Intent short_time{10000, std::nullopt, false};
	EXPECT_GT(*row_of("node-postgres", short_time).idle, 10000);
	EXPECT_GT(*row_of("postgres_fdw", short_time).busy, 10000);
}

// All clients but Node.js have the probes of the plan, and its user timeout or its
// sysctls.
TEST(ClientPlan, TimesAreThoseOfThePlan)
{
	every_row(
		[](const Intent &, const Plan &plan, const ClientPlan &row)
		{
			const std::string client = row.client;
			const std::string text = row.settings;
			if (client == "node-postgres")
				return;
			DetectionSettings socket{};
			socket.keepalive = true;
			socket.idle_s = plan.settings.idle_s;
			socket.interval_s = plan.settings.interval_s;
			socket.count = plan.settings.count;
			if (client == "tokio-postgres")
				socket.user_timeout_ms = plan.client_user_timeout_ms / 1000 * 1000;
			else if (text.find(std::to_string(plan.client_user_timeout_ms)) !=
		             std::string::npos)
				socket.user_timeout_ms = plan.client_user_timeout_ms;
			const bool host =
				std::set<std::string>{"Docker", "Kubernetes pod", "sysctl"}.count(
					client) != 0;
			EXPECT_EQ(row.needs != nullptr, socket.user_timeout_ms == 0 && !host)
				<< client;

			KernelLimits limits;
			int syn_retries = 6;
			if (socket.user_timeout_ms == 0 && client != "Kubernetes pod")
			{
				limits.tcp_retries2 = plan.tcp_retries2;
				syn_retries = plan.tcp_syn_retries;
			}
			const Detection times = detection(socket, limits);
			EXPECT_EQ(row.idle, times.idle.latest) << client;

			const Duration kernel =
				socket.user_timeout_ms != 0
					? times.in_flight.latest
					: later(times.in_flight.latest, connect_gives_up(syn_retries).latest);
			const Duration own = with_margin(plan.client_connect_timeout_s * 1000);
			if (row.connecting)
			{
				EXPECT_EQ(row.connecting, host ? kernel
			                              : client == "HAProxy, to servers"
			                                  ? own
			                                  : sooner(kernel, own))
					<< client;
			}
			EXPECT_EQ(row.busy, later(times.idle.latest,
		                              client == "postgres_fdw" // it connects once more
		                                  ? sum(times.in_flight.latest, row.connecting)
		                                  : times.in_flight.latest))
				<< client;
		});
}

// Node.js sends ten probes, one each second.
TEST(ClientPlan, NodeHasItsOwnProbes)
{
	const ClientPlan row = row_of("node-postgres", {60000, std::nullopt, false});
	EXPECT_EQ(row.idle,
	          detection({true, 18, 1, 10, 0, 0, 0, 0, 0}, KernelLimits()).idle.latest);
	EXPECT_STREQ(row.needs, "sysctl");
	// They do not end in time, however soon they begin.
	const ClientPlan late_one = row_of("node-postgres", {10000, std::nullopt, false});
	EXPECT_NE(std::strstr(late_one.settings, "keepAliveInitialDelayMillis: 1000,"),
	          nullptr)
		<< late_one.settings;
}

TEST(ClientPlan, LeavesNoPlaceholder)
{
	every_row(
		[](const Intent &, const Plan &, const ClientPlan &row)
		{
			const std::string text = row.settings;
			for (const char *name : {"{libpq", "{sysctl}", "{go_dialer}", "{idle}",
		                             "{interval}", "{count}", "{user_timeout", "{connect",
		                             "{attempt", "{wait", "{retries2}", "{syn_retries}"})
				EXPECT_EQ(text.find(name), std::string::npos) << text;
			EXPECT_FALSE(text.empty());
		});
}

TEST(ClientPlan, NamesAreUniqueAndNeedsAreThere)
{
	std::set<std::string> names;
	every_row([&](const Intent &, const Plan &, const ClientPlan &row)
	          { names.insert(row.client); });
	EXPECT_EQ(names.size(), client_plan_count());
	every_row(
		[&](const Intent &, const Plan &, const ClientPlan &row)
		{
			if (row.needs)
			{
				EXPECT_EQ(names.count(row.needs), 1u) << row.client;
				EXPECT_STRNE(row.needs, row.client);
			}
		});
}

TEST(ClientPlan, ProxiesThatOnlyAcceptDoNotConnect)
{
	const Intent minute{60000, std::nullopt, false};
	EXPECT_FALSE(row_of("systemd socket", minute).connecting);
	EXPECT_FALSE(row_of("HAProxy, to clients", minute).connecting);
	EXPECT_TRUE(row_of("HAProxy, to servers", minute).connecting);
}

TEST(ClientPlan, HasTheExpectedTexts)
{
	const Intent intent{60000, 350000, false};
	EXPECT_STREQ(row_of("primary_conninfo", intent).settings,
	             "keepalives=1 keepalives_idle=18 keepalives_interval=5 "
	             "keepalives_count=6 tcp_user_timeout=32000 connect_timeout=59");
	EXPECT_STREQ(row_of("libpq URI (postgresql://...?)", intent).settings,
	             "keepalives=1&keepalives_idle=18&keepalives_interval=5&"
	             "keepalives_count=6&tcp_user_timeout=32000&connect_timeout=59");
	EXPECT_STREQ(
		row_of("postgres_fdw", intent).settings,
		"OPTIONS (keepalives '1', keepalives_idle '18', keepalives_interval '5', "
		"keepalives_count '6', tcp_user_timeout '32000', connect_timeout '59')");
	EXPECT_STREQ(row_of("tokio-postgres", intent).settings,
	             "keepalives=1 keepalives_idle=18 keepalives_interval=5 "
	             "keepalives_retries=6 tcp_user_timeout=32 connect_timeout=59");
	EXPECT_STREQ(
		row_of("PgBouncer", intent).settings,
		"tcp_keepalive = 1\ntcp_keepidle = 18\ntcp_keepintvl = 5\ntcp_keepcnt = 6\n"
		"tcp_user_timeout = 32000\nserver_connect_timeout = 59\n"
		"query_wait_timeout = 58\n");
	EXPECT_STREQ(row_of("HAProxy, to servers", intent).settings,
	             "option srvtcpka\nsrvtcpka-idle 18s\nsrvtcpka-intvl 5s\nsrvtcpka-cnt 6\n"
	             "timeout connect 14750ms\nretries 3\n"
	             "# append to each server line: tcp-ut 32000ms\n");
	EXPECT_STREQ(row_of("node-postgres", intent).settings,
	             "keepAlive: true, keepAliveInitialDelayMillis: 18000, "
	             "connectionTimeoutMillis: 59000");
	EXPECT_STREQ(row_of("sysctl", intent).settings, "net.ipv4.tcp_keepalive_time = 18\n"
	                                                "net.ipv4.tcp_keepalive_intvl = 5\n"
	                                                "net.ipv4.tcp_keepalive_probes = 6\n"
	                                                "net.ipv4.tcp_retries2 = 6\n"
	                                                "net.ipv4.tcp_syn_retries = 4\n");
	// The same times, although ten probes of Node.js take ten seconds.
	EXPECT_STREQ(row_of("node-postgres", {15000, std::nullopt, false}).settings,
	             "keepAlive: true, keepAliveInitialDelayMillis: 2000, "
	             "connectionTimeoutMillis: 14000");
}

TEST(ClientPlan, KernelGivesUpConnecting)
{
	EXPECT_EQ(*connect_gives_up(1).earliest, 3000);
	EXPECT_EQ(*connect_gives_up(6).earliest, 127000);
	EXPECT_GT(*connect_gives_up(6).latest, 131000);
	EXPECT_LT(*connect_gives_up(6).latest, 150000);
}

} // namespace
