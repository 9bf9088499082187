// The worker: has the policies read when they may have changed, and brings every
// connected session up to date.  It is not connected to any database.
#pragma once

#include "pg/postgres.hpp"

extern "C"
{
	PGDLLEXPORT void keepalive_guard_worker(Datum argument);
}

namespace guard::pg
{

// Has the postmaster start the worker, and start it again should it end.
void register_worker();

} // namespace guard::pg
