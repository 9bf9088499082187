// keepalive_kernel()'s rows, from an artificial /proc and from the real one.
#include "kernel/kernel_settings.hpp"

#include "kernel_loopback.hpp"
#include "kernel_tree.hpp"

#include <cstdlib>
#include <memory>
#include <set>
#include <stdexcept>

#include <gtest/gtest.h>
#include <sys/utsname.h>

using namespace guard;

namespace
{

const KernelSetting &row(const std::vector<KernelSetting> &rows, const std::string &name)
{
	for (const KernelSetting &r : rows)
		if (r.name == name)
			return r;
	throw std::out_of_range(name);
}

} // namespace

TEST(KernelSettings, AreReadFromFiles)
{
	const Tree tree;
	tree.write("proc/sys/net/ipv4/tcp_keepalive_time", "7200\n");
	tree.write("proc/sys/net/ipv4/tcp_mem", "1\t2\t3\n");
	tree.write("proc/sys/net/core/somaxconn", "4096\n");
	tree.write("proc/self/net/sockstat", "sockets: used 11\n"
	                                     "TCP: inuse 5 orphan 1 tw 2 alloc 7 mem 3\n"
	                                     "UDP: inuse 9 mem 0\n");
	tree.write("proc/self/net/sockstat6", "TCP6: inuse 4\n");
	const auto rows = kernel_settings(tree.root());

	const KernelSetting idle = row(rows, "tcp_keepalive_time");
	EXPECT_EQ(idle.setting, "7200");
	EXPECT_EQ(idle.unit, "s");
	EXPECT_EQ(idle.source, "/proc/sys/net/ipv4/tcp_keepalive_time");
	EXPECT_EQ(row(rows, "tcp_mem").setting, "1 2 3");
	EXPECT_EQ(row(rows, "somaxconn").setting, "4096");
	EXPECT_EQ(row(rows, "sockstat_tcp_inuse").setting, "5");
	EXPECT_EQ(row(rows, "sockstat_tcp_orphan").setting, "1");
	EXPECT_EQ(row(rows, "sockstat_tcp_tw").setting, "2");
	EXPECT_EQ(row(rows, "sockstat_tcp_alloc").setting, "7");
	EXPECT_EQ(row(rows, "sockstat_tcp_mem").setting, "3");
	EXPECT_EQ(row(rows, "sockstat_tcp6_inuse").setting, "4");
	for (const KernelSetting &r : rows)
		EXPECT_NE(r.setting.has_value(),
		          r.description.find("(not available: ") != std::string::npos)
			<< r.name;
}

TEST(KernelSettings, GiveAReasonWhenAbsent)
{
	const Tree tree;
	tree.write("proc/self/net/sockstat", "TCP: inuse\n");
	tree.write("proc/sys/net/ipv4/tcp_retries2/not_a_file", "");
	const auto rows = kernel_settings(tree.root());
	for (const KernelSetting &r : rows)
	{
		if (r.name == "kernel_release")
			continue;
		EXPECT_FALSE(r.setting) << r.name;
		EXPECT_NE(r.description.find("(not available: "), std::string::npos) << r.name;
	}
	EXPECT_NE(row(rows, "tcp_rto_max_ms").description.find("6.15"), std::string::npos);
	EXPECT_NE(row(rows, "nf_conntrack_max").description.find("not loaded"),
	          std::string::npos);
}

TEST(KernelSettings, AreReadFromTheRunningKernel)
{
	const auto rows = kernel_settings();
	std::set<std::string> names;
	for (const KernelSetting &r : rows)
	{
		EXPECT_TRUE(names.insert(r.name).second) << r.name << " is a duplicate";
		EXPECT_FALSE(r.description.empty());
		EXPECT_FALSE(r.source.empty());
	}
	utsname name;
	ASSERT_EQ(uname(&name), 0);
	EXPECT_EQ(row(rows, "kernel_release").setting, name.release);
	EXPECT_EQ(row(rows, "tcp_retries2").setting,
	          std::to_string(integer_sysctl("net/ipv4/tcp_retries2").value()));
	EXPECT_TRUE(row(rows, "somaxconn").setting);

	loopback::Listener listener;
	EXPECT_GE(std::stoi(row(kernel_settings(), "sockstat_tcp_inuse").setting.value()), 1);
}

TEST(KernelSettings, AreTheSameInOnePieceOfMemory)
{
	const auto rows = kernel_settings();
	std::size_t count = 99;
	const std::unique_ptr<PlainKernelSetting[], decltype(&std::free)> plain(
		plain_kernel_settings(&count), std::free);
	ASSERT_NE(plain, nullptr);
	ASSERT_EQ(count, rows.size());
	for (std::size_t i = 0; i < count; i++)
	{
		EXPECT_EQ(plain[i].name, rows[i].name);
		EXPECT_EQ(plain[i].unit ? plain[i].unit : "", rows[i].unit);
		EXPECT_EQ(plain[i].source, rows[i].source);
		EXPECT_EQ(plain[i].description, rows[i].description);
		EXPECT_EQ(plain[i].setting != nullptr, rows[i].setting.has_value());
	}
	EXPECT_EQ(plain[0].setting, rows[0].setting) << "the kernel's release";
}

TEST(IntegerSysctl, AcceptsOnlyWholeNumbers)
{
	const Tree tree;
	tree.write("proc/sys/net/ipv4/good", "120000\n");
	tree.write("proc/sys/net/ipv4/negative", "-1\n");
	tree.write("proc/sys/net/ipv4/three", "1\t2\t3\n");
	tree.write("proc/sys/net/ipv4/empty", "");
	tree.write("proc/sys/net/ipv4/huge", "99999999999999999999\n");
	EXPECT_EQ(integer_sysctl("net/ipv4/good", tree.root()), 120000);
	EXPECT_EQ(integer_sysctl("net/ipv4/negative", tree.root()), -1);
	for (const char *name : {"three", "empty", "huge", "absent"})
		EXPECT_FALSE(integer_sysctl(std::string("net/ipv4/") + name, tree.root()))
			<< name;
}

TEST(IntegerSysctl, HasAFallback)
{
	EXPECT_EQ(integer_sysctl_or("net/ipv4/tcp_retries2", -2),
	          integer_sysctl("net/ipv4/tcp_retries2"));
	EXPECT_EQ(integer_sysctl_or("net/ipv4/absent", -2), -2);
}
