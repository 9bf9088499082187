// One end of a connection as PostgreSQL has it.
#pragma once

#include "pg/postgres.hpp"

#include "kernel/socket.hpp"

extern "C"
{
#include "libpq/pqcomm.h"
}

namespace guard::pg
{

// Without family for a Unix socket.
Endpoint endpoint_of(const SockAddr &address);

} // namespace guard::pg
