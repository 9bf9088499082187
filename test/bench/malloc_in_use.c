/*
 * malloc_in_use(): the bytes that this backend has allocated by malloc and not freed.
 * Resident memory also includes memory that malloc keeps for later, which varies by
 * megabytes.
 */
#include "postgres.h"

#include <malloc.h>

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(malloc_in_use);

Datum malloc_in_use(PG_FUNCTION_ARGS)
{
	struct mallinfo2 info = mallinfo2();

	PG_RETURN_INT64((int64)(info.uordblks + info.hblkhd));
}
