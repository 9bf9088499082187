// Whether an earlier policy leaves nothing for a later one: the part that needs no
// PostgreSQL.
#pragma once

#include "model/policy.hpp"

namespace guard
{

// Whether every client of `inner` is one of `outer`; family 0 stands for all clients.
bool covers(const Network &outer, const Network &inner) noexcept;

bool covers(BackendKind outer, BackendKind inner) noexcept;

} // namespace guard
