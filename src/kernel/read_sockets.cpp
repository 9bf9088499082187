#include "kernel/read_sockets.hpp"

#include "kernel/sock_diag.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <unistd.h>

namespace guard
{
namespace
{

ReadOutcome outcome(ReadOutcome::Kind kind, int error, const char *message) noexcept
{
	ReadOutcome result = {kind, error, ""};
	std::snprintf(result.message, sizeof(result.message), "%s", message);
	return result;
}

// The process's own netlink socket, opened when first needed and kept, because opening
// one and testing it takes as long as asking for several sockets.  It is closed on exec
// and at the end of the process.  A forked process opens another one.
SockDiag &process_diag()
{
	static std::unique_ptr<SockDiag> kept;
	static pid_t owner = 0;
	if (!kept || owner != getpid())
	{
		kept = std::make_unique<SockDiag>();
		owner = getpid();
	}
	return *kept;
}

// Runs read(), which returns an outcome, and turns exceptions into one.
template <typename Read> ReadOutcome without_exception(Read read) noexcept
try
{
	return read();
}
catch (const SockDiagError &error)
{
	return outcome(error.is_refused() ? ReadOutcome::refused : ReadOutcome::failed,
	               error.code().value(), error.what());
}
catch (const std::system_error &error)
{
	return outcome(ReadOutcome::failed, error.code().value(), error.what());
}
catch (const std::exception &error)
{
	return outcome(ReadOutcome::failed, 0, error.what());
}
catch (...)
{
	return outcome(ReadOutcome::failed, 0, "unknown exception");
}

// Runs read(SockDiag *), with nullptr if netlink is refused.
template <typename Read> ReadOutcome with_or_without_netlink(Read read) noexcept
{
	const ReadOutcome by_netlink = without_exception(
		[&]
		{
			read(&process_diag());
			return outcome(ReadOutcome::ok, 0, "");
		});
	if (by_netlink.kind != ReadOutcome::refused)
		return by_netlink;
	return without_exception(
		[&]
		{
			read(nullptr);
			return by_netlink;
		});
}

// Calls find(SockDiag *), with nullptr where netlink is refused, and makes an array of
// what it returns, which the caller has to free().
template <typename Find>
ReadOutcome read_array(Find find, ServerSocket **sockets, std::size_t *count) noexcept
{
	*sockets = nullptr;
	*count = 0;
	return with_or_without_netlink(
		[&](SockDiag *diag)
		{
			const std::vector<ServerSocket> found = find(diag);
			if (found.empty())
				return;
			const std::size_t bytes = found.size() * sizeof(ServerSocket);
			*sockets = static_cast<ServerSocket *>(std::malloc(bytes));
			if (!*sockets)
				throw std::bad_alloc();
			std::memcpy(static_cast<void *>(*sockets), found.data(), bytes);
			*count = found.size();
		});
}

} // namespace

ReadOutcome read_session_sockets(const SessionSocket *wanted, std::size_t n,
                                 SocketFacts *answers, Details details) noexcept
{
	return with_or_without_netlink(
		[&](SockDiag *diag) { find_session_sockets(diag, wanted, n, answers, details); });
}

ReadOutcome read_server_sockets(pid_t postmaster, const pid_t *pids, std::size_t n,
                                std::uint16_t server_port, ServerSocket **sockets,
                                std::size_t *count) noexcept
{
	return read_array(
		[&](SockDiag *diag) {
			return find_server_sockets(diag, postmaster, {pids, pids + n}, server_port);
		},
		sockets, count);
}

ReadOutcome read_listeners(pid_t postmaster, ServerSocket **sockets,
                           std::size_t *count) noexcept
{
	return read_array([&](SockDiag *diag) { return find_listeners(diag, postmaster); },
	                  sockets, count);
}

ReadOutcome read_sockets(const SocketId *wanted, std::size_t n, SocketFacts *answers,
                         Details details) noexcept
{
	return without_exception(
		[&]
		{
			process_diag().query(wanted, n, answers, details);
			return outcome(ReadOutcome::ok, 0, "");
		});
}

} // namespace guard
