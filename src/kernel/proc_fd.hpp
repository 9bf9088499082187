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

// The sockets of these processes, in the order of pids.  A socket for which a process has
// two descriptors is returned twice.  For a process that has ended or whose descriptors
// may not be read, nothing is returned.
// root: "" for the system's /proc.  Throws std::bad_alloc only.
std::vector<ProcessSocket> process_sockets(const std::vector<pid_t> &pids,
                                           const std::string &root = "");

// Whether the process holds that socket; false for inode 0, which is none, and for a
// process that has ended or whose descriptors may not be read.  likely: the name of the
// descriptor to try first; then set to the one that was found.  Most backends of a server
// have their client at the same one.  Throws std::bad_alloc only.
bool holds_socket(pid_t pid, std::uint32_t inode, std::string &likely,
                  const std::string &root = "");

// Whether process_sockets() and holds_socket() may read the process's descriptors.
// Throws std::bad_alloc only.
bool shows_sockets(pid_t pid, const std::string &root = "");

// The processes whose parent is pid, ascending; none if pid has ended.  If a child ends
// at this moment, a younger one may be missing.  Throws std::bad_alloc only.
std::vector<pid_t> children_of(pid_t pid, const std::string &root = "");

// Whether a process runs (or is a zombie) whose parent that is.  Throws std::bad_alloc
// only.
bool is_child_of(pid_t pid, pid_t parent, const std::string &root = "");

} // namespace guard
