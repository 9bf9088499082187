// Other processes for tests: children that wait, a sandbox, and failing system calls.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <functional>
#include <iterator>
#include <thread>
#include <utility>

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// A child process that runs a function while this is constructed, and then waits.
class Process
{
  public:
	template <typename Body> explicit Process(Body body)
	{
		int ready[2];
		if (pipe(ready) != 0)
			_exit(1);
		pid = fork();
		if (pid == 0)
		{
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			body();
			if (write(ready[1], "", 1) != 1)
				_exit(1);
			for (;;)
				pause();
		}
		close(ready[1]);
		char byte;
		if (read(ready[0], &byte, 1) != 1)
			end();
		close(ready[0]);
	}
	~Process() { end(); }
	Process(const Process &) = delete;
	Process &operator=(const Process &) = delete;

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

// From now on socket(AF_NETLINK, ...) fails with this errno in this process, as under
// systemd's RestrictAddressFamilies.
inline void refuse_netlink_sockets(int error)
{
	constexpr std::size_t low =
		__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0; // half of an argument
	sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0]) + low),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const sock_fprog filter = {static_cast<unsigned short>(std::size(program)), program};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
		_exit(1);
}

// Lets a system call of the thread that constructs it fail, or does something else first.
// For a process that exits afterwards.
class FailingCalls
{
  public:
	explicit FailingCalls(long number)
	{
		sock_filter program[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		};
		const sock_fprog filter = {std::size(program), program};
		std::thread([this] { decide(); }).detach();
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		listener_ = static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		                                     SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter));
	}

	// Not where another sandbox decides about system calls already.
	bool allowed() const { return listener_ >= 0; }

	// After the next `spared` calls, `times` calls fail with this errno.
	void fail(int error, int times, int spared = 0)
	{
		calls_ = 0;
		spared_ = spared;
		error_ = error;
		times_ = times;
	}

	// The next call comes after this.
	void precede(std::function<void()> body)
	{
		before_ = std::move(body);
		fail(0, 0);
		has_before_ = true;
	}

	int calls() const { return calls_; } // since fail()

  private:
	void decide()
	{
		while (listener_ == unknown)
			usleep(1000);
		for (;;)
		{
			seccomp_notif request{};
			if (ioctl(listener_, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0)
				continue;
			if (has_before_.exchange(false))
				before_();
			seccomp_notif_resp response{};
			response.id = request.id;
			const int call = calls_++ - spared_;
			if (call >= 0 && call < times_)
				response.error = -error_;
			else
				response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
			ioctl(listener_, SECCOMP_IOCTL_NOTIF_SEND, &response);
		}
	}

	static constexpr int unknown = -2;
	std::atomic<int> listener_{unknown};
	std::atomic<int> calls_{0};
	std::atomic<int> error_{0};
	std::atomic<int> times_{0};
	std::atomic<int> spared_{0};
	std::function<void()> before_;
	std::atomic<bool> has_before_{false};
};

constexpr int not_allowed = 77;

// Runs body(FailingCalls &), which returns 0 for success, in a new process in which this
// system call can fail, and returns what it returns, or not_allowed.
template <typename Body> int with_failing_calls(long number, Body body)
{
	const pid_t child = fork();
	if (child == 0)
	{
		FailingCalls failing(number);
		if (!failing.allowed())
			_exit(not_allowed);
		_exit(body(failing));
	}
	int status = -1;
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 101;
}

// The end of a test that returns what with_failing_calls() returned.
inline void expect_success(int result)
{
	if (result == not_allowed)
		GTEST_SKIP() << "cannot let a system call fail";
	EXPECT_EQ(result, 0);
}
