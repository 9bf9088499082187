// Which processes hold which sockets, by /proc/<pid>/fd.  That is readable for
// processes of the same uid (and with CAP_SYS_PTRACE for all).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

namespace guard
{

struct ProcessSocket
{
	pid_t pid;
	std::uint32_t inode; // SocketFacts::inode; of any kind of socket, not of TCP only
};

// The sockets of these processes, in the order of pids; one that a process holds by two
// descriptors comes twice.  A process that has ended or may not be looked into has none.
// root: "" for the system's /proc.  Throws std::bad_alloc only.
std::vector<ProcessSocket> process_sockets(const std::vector<pid_t> &pids,
                                           const std::string &root = "");

// The processes whose parent is pid, ascending; none if pid has ended.  Throws
// std::bad_alloc only.
std::vector<pid_t> children_of(pid_t pid, const std::string &root = "");

} // namespace guard
