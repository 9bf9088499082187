// The short-lived worker that reads keepalive_policy and compiles it into shared memory.
// It stays connected to keepalive_guard.database only while there are edits to read,
// because DROP DATABASE and CREATE DATABASE ... TEMPLATE need that database without
// sessions.  On a standby, where no commit wakes it, it stays and looks.
#pragma once

#include "pg/postgres.hpp"

extern "C"
{
#include "postmaster/bgworker.h"

	PGDLLEXPORT void keepalive_guard_policy_reader(Datum argument);
}

namespace guard::pg
{

// Requests another reading when recovery has ended: a commit that is replayed requests
// none, and the last ones before a promotion may not be read yet.  The worker and the
// reader call it before they look for something to do.
void notice_end_of_recovery();

// Starts the reader.  False if max_worker_processes leaves no room.
bool start_policy_reader(BackgroundWorkerHandle **handle);

} // namespace guard::pg
