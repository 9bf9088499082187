// The arguments of keepalive_plan() and keepalive_plan_clients().
#pragma once

#include "pg/postgres.hpp"

#include "model/plan.hpp"

extern "C"
{
#include "fmgr.h"
}

namespace guard::pg
{

// The first two arguments: detect_within and path_idle_timeout.  Raises an error for an
// invalid one.
Intent intent_of(FunctionCallInfo fcinfo);

// Raises the error of a plan.  function: the one that is called.
[[noreturn]] void refuse_intent(const Plan &plan, const Intent &intent,
                                int watch_interval, Oid function);

} // namespace guard::pg
