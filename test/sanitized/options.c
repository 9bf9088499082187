/*
 * The options of the sanitizers, linked into each program of the server.  PostgreSQL does
 * not free everything at exit, and measures the depth of its stack by the addresses of
 * local variables.  A server treats only the death by a signal as a crash.
 */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1";
}

const char *__ubsan_default_options(void)
{
	return "print_stacktrace=1:abort_on_error=1";
}
