// Runs a test's body in a child process with a network namespace of its own, where it can
// change the loopback interface.
#pragma once

#include "kernel_loopback.hpp"

#include <cstdio>
#include <cstring>
#include <exception>

#include <linux/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

class OwnNetwork
{
  public:
	// Exit status of a child that cannot create a network namespace.
	static constexpr int not_allowed = 77;

	// body(OwnNetwork &) returns 0 for success, and so does this function.
	template <typename Body> static int run(Body body)
	{
		const pid_t child = fork();
		if (child == 0)
		{
			if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
				_exit(not_allowed);
			try
			{
				OwnNetwork network;
				_exit(body(network));
			}
			catch (const std::exception &error)
			{
				std::fprintf(stderr, "%s\n", error.what());
				_exit(100);
			}
		}
		int status = -1;
		waitpid(child, &status, 0);
		return WIFEXITED(status) ? WEXITSTATUS(status) : 101;
	}

	unsigned loopback_index() const { return index_; }

	void loopback_up(bool up)
	{
		ifreq request = loopback();
		request.ifr_flags = up ? IFF_UP | IFF_RUNNING : 0;
		loopback::check(ioctl(control_, SIOCSIFFLAGS, &request), "SIOCSIFFLAGS");
	}

	// Adds this address to the loopback interface.  Returns false without IPv6.
	bool add_ipv6(const char *address)
	{
		const loopback::Fd socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
		struct
		{
			in6_addr address;
			std::uint32_t prefix_bits;
			int interface;
		} request = {}; // struct in6_ifreq
		inet_pton(AF_INET6, address, &request.address);
		request.prefix_bits = 64;
		request.interface = static_cast<int>(index_);
		return socket >= 0 && ioctl(socket, SIOCSIFADDR, &request) == 0;
	}

  private:
	OwnNetwork() : control_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0))
	{
		ifreq request = loopback();
		loopback::check(ioctl(control_, SIOCGIFINDEX, &request), "SIOCGIFINDEX");
		index_ = static_cast<unsigned>(request.ifr_ifindex);
		loopback_up(true);
	}

	static ifreq loopback()
	{
		ifreq request{};
		std::strcpy(request.ifr_name, "lo");
		return request;
	}

	loopback::Fd control_;
	unsigned index_;
};
