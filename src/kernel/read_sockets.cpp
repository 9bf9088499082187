#include "kernel/read_sockets.hpp"

#include "kernel/sock_diag.hpp"

#include <cerrno>
#include <cstdio>

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

} // namespace

ReadOutcome read_sockets(const SocketId *wanted, std::size_t n, SocketFacts *answers,
                         Details details) noexcept
try
{
	SockDiag().query(wanted, n, answers, details);
	return outcome(ReadOutcome::ok, 0, "");
}
catch (const SockDiagError &error)
{
	return outcome(error.is_refused() ? ReadOutcome::refused : ReadOutcome::failed,
	               error.code().value(), error.what());
}
catch (const std::exception &error)
{
	return outcome(ReadOutcome::failed, 0, error.what());
}
catch (...)
{
	return outcome(ReadOutcome::failed, 0, "unknown exception");
}

} // namespace guard
