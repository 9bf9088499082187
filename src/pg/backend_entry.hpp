// What PostgreSQL shows of another backend.
#pragma once

#include "pg/postgres.hpp"

extern "C"
{
#include "libpq/pqcomm.h"
#include "utils/backend_status.h"
}

namespace guard::pg
{

// What pg_stat_activity shows of a backend, as far as it is needed here.
struct Backend
{
	int pid;
	BackendType type;
	TimestampTz started;
	Oid database;
	Oid role;
	SockAddr client;
	char application_name[NAMEDATALEN];
	BackendState state;
	TimestampTz state_since;
	TimestampTz transaction_start; // 0: no transaction is open
};

// Reads the entry of the backend with this number (from 0, below MaxBackends).  False if
// there is no client backend or walsender, or its entry changes all the time.  As
// pgstat_read_current_status() in backend_status.c does, which copies, among other
// things, every backend's query.
bool read_backend(int number, Backend &backend);

} // namespace guard::pg
