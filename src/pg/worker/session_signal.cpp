#include "pg/postgres.hpp"

#include "pg/worker/session_signal.hpp"

#include <sys/syscall.h>
#include <unistd.h>

namespace guard::pg
{

SignalOutcome signal_session(const Slot &slot, const Session &seen, int number)
{
	const int descriptor = syscall(SYS_pidfd_open, seen.pid, 0);
	if (descriptor < 0)
		return errno == ESRCH ? SignalOutcome::gone : SignalOutcome::failed;

	SignalOutcome outcome = SignalOutcome::sent;
	if (!belongs_to(slot, seen))
		outcome = SignalOutcome::gone;
	else if (syscall(SYS_pidfd_send_signal, descriptor, number, nullptr, 0) != 0)
		outcome = errno == ESRCH ? SignalOutcome::gone : SignalOutcome::failed;

	const int saved_errno = errno;
	close(descriptor);
	errno = saved_errno;
	return outcome;
}

} // namespace guard::pg
