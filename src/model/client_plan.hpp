// The client's side of a plan: what to set in each kind of client and proxy, and within
// which time it notices that its server is gone.
#pragma once

#include <cstddef>

#include "model/duration.hpp"
#include "model/plan.hpp"

namespace guard
{

// A row of keepalive_plan_clients().
struct ClientPlan
{
	const char *client;
	char settings[2048];
	const char *needs; // the client whose settings must be in place as well, or nullptr
	// The worst cases, if the server's host is gone.  never: this client does not
	// connect.
	Duration idle;       // nothing is in flight: until the kernel gives up
	Duration busy;       // waits for an answer, to a query sent before or after the end
	Duration connecting; // to one address
	const char *limits;
	const char *source;
};

std::size_t client_plan_count() noexcept;

// The i-th client.  false if memory has run out.  `plan` has no error.
bool client_plan(const Plan &plan, std::size_t i, ClientPlan *client) noexcept;

} // namespace guard
