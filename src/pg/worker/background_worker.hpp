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

} // namespace guard::pg
