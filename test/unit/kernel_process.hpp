// Other processes for tests: children that wait, and a sandbox.
#pragma once

#include <cstddef>
#include <iterator>

#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <signal.h>
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
