/*
 * Preloaded after keepalive_guard: appends the nanoseconds that the authentication
 * hook before it took, as a 64-bit integer, to the file $HOOK_TIMER.
 */
#include "postgres.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "fmgr.h"
#include "libpq/auth.h"

PG_MODULE_MAGIC;

void _PG_init(void);

static ClientAuthentication_hook_type timed_hook;
static int output = -1;

static int64 now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64CONST(1000000000) + t.tv_nsec;
}

static void time_hook(Port *port, int status)
{
	int64 start = now_ns(), spent;

	if (timed_hook)
		timed_hook(port, status);
	spent = now_ns() - start;
	if (write(output, &spent, sizeof(spent)) != sizeof(spent))
		elog(LOG, "hook_timer: could not write");
}

void _PG_init(void)
{
	const char *path = getenv("HOOK_TIMER");

	output = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
	timed_hook = ClientAuthentication_hook;
	ClientAuthentication_hook = time_hook;
}
