// Whether an earlier policy matches every session that a later one matches: the part
// that does not need PostgreSQL.
#pragma once

#include "model/policy.hpp"

namespace guard
{

// Whether every client of `inner` is one of `outer`; family 0 stands for all clients.
bool covers(const Network &outer, const Network &inner) noexcept;

bool covers(BackendKind outer, BackendKind inner) noexcept;

} // namespace guard
