/*
 * Preloaded after keepalive_guard.  Measures the authentication hook that was installed
 * before it, and appends its nanoseconds and page faults, as 64-bit integers, to the file
 * $HOOK_TIMER.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/resource.h>
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
	struct rusage before, after;
	int64 start, spent[2];

	getrusage(RUSAGE_SELF, &before);
	start = now_ns();
	if (timed_hook)
		timed_hook(port, status);
	spent[0] = now_ns() - start;
	getrusage(RUSAGE_SELF, &after);
	spent[1] = after.ru_minflt - before.ru_minflt;
	if (write(output, spent, sizeof(spent)) != sizeof(spent))
		elog(LOG, "hook_timer: could not write");
}

void _PG_init(void)
{
	const char *path = getenv("HOOK_TIMER");

	output = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
	timed_hook = ClientAuthentication_hook;
	ClientAuthentication_hook = time_hook;
}
