// PostgreSQL's headers as C, for code under src/pg.  Include it first.
#pragma once

extern "C"
{
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "utils/elog.h"
#include "utils/guc.h"
}

// The module is built with hidden visibility; before 16 PostgreSQL had no need to
// mark what it looks up.
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#endif
