// What the guard's two background workers have in common.
#pragma once

#include "pg/postgres.hpp"

extern "C"
{
#include "postmaster/bgworker.h"
}

namespace guard::pg
{

// A worker of that name that runs `function` of this library, and can connect to
// databases, on a standby too.  The postmaster never restarts it.
BackgroundWorker background_worker(const char *name, const char *function);

// Resets the latch and does what signals have asked for.  SIGTERM ends the process with
// exit status 1 and, unlike CHECK_FOR_INTERRUPTS(), without a FATAL message: the server
// log of a shutdown is to have none.
void take_interrupts();

} // namespace guard::pg
