/*
 * PostgreSQL's memory contexts tell valgrind which of their memory may be used
 * (utils/memdebug.h, with USE_VALGRIND).  This header, in the place of valgrind's, tells
 * AddressSanitizer instead, so that it knows the bounds of what palloc() returns, and
 * what pfree() has freed.
 */
#pragma once

#include <sanitizer/asan_interface.h>

#define VALGRIND_MAKE_MEM_NOACCESS(address, size) ASAN_POISON_MEMORY_REGION(address, size)
#define VALGRIND_MAKE_MEM_DEFINED(address, size)                                         \
	ASAN_UNPOISON_MEMORY_REGION(address, size)
#define VALGRIND_MAKE_MEM_UNDEFINED(address, size)                                       \
	ASAN_UNPOISON_MEMORY_REGION(address, size)
#define VALGRIND_MEMPOOL_ALLOC(pool, address, size)                                      \
	ASAN_UNPOISON_MEMORY_REGION(address, size)
#define VALGRIND_MEMPOOL_CHANGE(pool, old_address, address, size)                        \
	ASAN_UNPOISON_MEMORY_REGION(address, size)

/* pfree() wipes the memory first, which makes it inaccessible (CLOBBER_FREED_MEMORY). */
#define VALGRIND_MEMPOOL_FREE(pool, address) ((void)0)
#define VALGRIND_CREATE_MEMPOOL(pool, redzone, zeroed) ((void)0)
#define VALGRIND_DESTROY_MEMPOOL(pool) ((void)0)
#define VALGRIND_CHECK_MEM_IS_DEFINED(address, size) ((void)0)
