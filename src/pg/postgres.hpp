// PostgreSQL's headers as C, for code under src/pg.  Include it first.
//
// The boundary between PostgreSQL and C++
//
// PostgreSQL's errors are longjmp(): they skip destructors.  C++ exceptions unwind frames
// that know nothing of PostgreSQL: one that gets there ends the server.  So:
//
// - Code under src/kernel and src/model knows no PostgreSQL header.  It may throw inside.
// - Code under src/pg may raise PostgreSQL errors.  No object with a destructor lives in
//   any of its frames: what it takes from C++ are plain structs and arrays.
// - Every function of src/kernel and src/model that src/pg calls is a door between
//   them, and is noexcept: it catches what it throws, and returns an outcome or writes
//   to memory that its caller gives.
// - Signal handlers and shared memory hold plain data only.
//
// The doors are in these headers:
//
//     kernel/kernel_settings.hpp   integer_sysctl_or(), plain_kernel_settings()
//     kernel/read_sockets.hpp      read_sockets(), read_session_sockets(),
//                                  read_server_sockets(), read_listeners()
//     kernel/socket.hpp            names, addresses and their text
//     kernel/socket_options.hpp    getsockopt() and setsockopt()
//     kernel/tcp_info.hpp          fields of struct tcp_info
//     model/*.hpp                  all of them: what follows from what
//
// `make test` checks this (test/lint/objects): no object of src/pg refers to
// __gxx_personality_v0 or _Unwind_Resume, so no frame there has a destructor to run, and
// no object of src/kernel or src/model refers to errstart(), palloc() or the like.
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
