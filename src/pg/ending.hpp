// How this backend comes to its end: listening for what PostgreSQL says on the way,
// and weighing it at the end.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared.hpp"
#include "policy/cause.hpp"

extern "C"
{
#include "libpq/libpq-be.h"
}

namespace guard::pg
{

constexpr int detail_bytes = 256;

struct Ending
{
	Cause cause;
	TcpInfo info;              // TCP only
	char detail[detail_bytes]; // the evidence, for people
};

// Hooks into the server log, where PostgreSQL's reasons pass by.
void install_ending_hooks();

// Has SIGTERM tell who sent it.  In a backend, once PostgreSQL has its handler.
void watch_for_termination();

// What ended the session.  While its socket is still open.
Ending weigh_ending(const Session &session, Port *port);

} // namespace guard::pg
