// Sockets and children of processes, from an artificial /proc and from the real one.
#include "kernel/proc_fd.hpp"

#include "kernel_loopback.hpp"
#include "kernel_tree.hpp"

#include <algorithm>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

using namespace guard;

namespace
{

std::vector<std::uint32_t> inodes(const std::vector<ProcessSocket> &sockets, pid_t pid)
{
	std::vector<std::uint32_t> found;
	for (const ProcessSocket &s : sockets)
		if (s.pid == pid)
			found.push_back(s.inode);
	std::sort(found.begin(), found.end());
	return found;
}

// A child process that waits until it is killed.
class Child
{
  public:
	Child() : pid(fork())
	{
		if (pid == 0)
			for (;;)
				pause();
	}
	~Child() { end(); }
	void end()
	{
		if (pid <= 0)
			return;
		kill(pid, SIGKILL);
		waitpid(pid, nullptr, 0);
		pid = -1;
	}
	pid_t pid;
};

} // namespace

TEST(ProcessSockets, ContainOnlySockets)
{
	const Tree tree;
	tree.link("proc/10/fd/0", "/dev/null");
	tree.link("proc/10/fd/3", "socket:[111]");
	tree.link("proc/10/fd/4", "socket:[222]");
	tree.link("proc/10/fd/5", "anon_inode:[eventpoll]");
	tree.link("proc/10/fd/6", "pipe:[333]");
	tree.link("proc/10/fd/7", "socket:[]");
	tree.link("proc/10/fd/8", "socket:[12x]");
	tree.link("proc/10/fd/9", "socket:[444");
	tree.link("proc/10/fd/10", "socket:[" + std::string(200, '1') + "]");
	tree.link("proc/10/fd/11", "socket:[4294967295]");
	tree.write("proc/10/fd/12", "no link");
	tree.link("proc/20/fd/3", "socket:[111]");
	tree.write("proc/30/comm", "no fd directory");

	const auto found = process_sockets({10, 20, 30, 40}, tree.root());
	EXPECT_EQ(inodes(found, 10), (std::vector<std::uint32_t>{111, 222, 4294967295U}));
	EXPECT_EQ(inodes(found, 20), (std::vector<std::uint32_t>{111}));
	EXPECT_EQ(found.size(), 4U);
}

TEST(ProcessSockets, AreReadFromARealProcess)
{
	loopback::Listener listener;
	Child child; // has it too
	struct stat s;
	fstat(listener.fd, &s);
	const auto inode = static_cast<std::uint32_t>(s.st_ino);

	auto found = process_sockets({getpid(), child.pid});
	for (const pid_t pid : {getpid(), child.pid})
	{
		const auto of_pid = inodes(found, pid);
		EXPECT_EQ(std::count(of_pid.begin(), of_pid.end(), inode), 1) << pid;
	}
	const pid_t ended = child.pid;
	child.end();
	EXPECT_TRUE(process_sockets({ended}).empty());
}

TEST(HoldsSocket, LooksAtEveryDescriptor)
{
	const Tree tree;
	tree.link("proc/10/fd/3", "socket:[111]");
	tree.link("proc/10/fd/4", "socket:[222]");
	tree.link("proc/20/fd/4", "socket:[333]");
	tree.link("proc/20/fd/5", "/dev/null");
	std::string likely;
	EXPECT_TRUE(holds_socket(10, 222, likely, tree.root()));
	EXPECT_EQ(likely, "4");
	EXPECT_TRUE(holds_socket(20, 333, likely, tree.root()));
	EXPECT_FALSE(holds_socket(20, 222, likely, tree.root()));
	EXPECT_TRUE(holds_socket(10, 111, likely, tree.root()));
	EXPECT_EQ(likely, "3");
	likely = "5";
	EXPECT_TRUE(holds_socket(20, 333, likely, tree.root()));
	EXPECT_FALSE(holds_socket(10, 0, likely, tree.root()));
	EXPECT_FALSE(holds_socket(30, 111, likely, tree.root()));
}

TEST(ShowsSockets, IsTrueOnlyForReadableProcesses)
{
	const Tree tree;
	tree.link("proc/10/fd/3", "/dev/null");
	tree.write("proc/20/comm", "no fd directory");
	EXPECT_TRUE(shows_sockets(10, tree.root()));
	EXPECT_FALSE(shows_sockets(20, tree.root()));
	EXPECT_FALSE(shows_sockets(30, tree.root()));
}

TEST(IsChildOf, ReadsTheParentFromStat)
{
	const Tree tree;
	tree.write("proc/20/stat", "20 (a) R 1 (b) ) S 10 20 20 0\n");
	EXPECT_TRUE(is_child_of(20, 10, tree.root()));
	EXPECT_FALSE(is_child_of(20, 1, tree.root()));
	EXPECT_FALSE(is_child_of(30, 10, tree.root()));
}

TEST(ChildrenOf, AreReadFromARealProcess)
{
	Child a;
	Child b;
	auto children = children_of(getpid());
	EXPECT_TRUE(std::is_sorted(children.begin(), children.end()));
	EXPECT_EQ(std::count(children.begin(), children.end(), a.pid), 1);
	EXPECT_EQ(std::count(children.begin(), children.end(), b.pid), 1);
	EXPECT_TRUE(children_of(a.pid).empty());
	const pid_t ended = a.pid;
	a.end();
	children = children_of(getpid());
	EXPECT_EQ(std::count(children.begin(), children.end(), ended), 0);
	EXPECT_TRUE(children_of(ended).empty());
}

TEST(ChildrenOf, ReadsTheChildrenOfEveryThread)
{
	const Tree tree;
	tree.write("proc/10/task/10/children", "30 20 ");
	tree.write("proc/10/task/11/children", "25 ");
	EXPECT_EQ(children_of(10, tree.root()), (std::vector<pid_t>{20, 25, 30}));
}

TEST(ChildrenOf, ScansProcWithoutTheChildrenFile)
{
	const Tree tree;
	tree.write("proc/10/task/10/comm", "postgres\n");
	tree.write("proc/10/stat", "10 (postgres) S 1 10 10 0\n");
	tree.write("proc/30/stat", "30 (postgres) S 10 30 30 0\n");
	tree.write("proc/20/stat", "20 (a) R 1 (b) ) S 10 20 20 0\n"); // a hostile name
	tree.write("proc/21/stat", "21 (two\nlines) S 10 21 21 0\n");
	tree.write("proc/40/stat", "40 (x 10) S 30 40 40 0\n");
	tree.write("proc/50/stat", "50 (cut)");
	tree.write("proc/51/stat", "");
	tree.write("proc/52/comm", "no stat\n");
	tree.write("proc/meminfo", "");
	EXPECT_EQ(children_of(10, tree.root()), (std::vector<pid_t>{20, 21, 30}));
	EXPECT_TRUE(children_of(99, tree.root()).empty());
}
