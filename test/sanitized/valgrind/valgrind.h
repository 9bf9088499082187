/* What PostgreSQL 16 and later use of valgrind beside memcheck.h. */
#pragma once

#define VALGRIND_COUNT_ERRORS 0
#define VALGRIND_PRINTF(...) ((void)0)
