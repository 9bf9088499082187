/*
 * Measures page faults of a new process.  Prints the nanoseconds for reading a page of
 * shared memory, which maps adjacent pages too, and for writing a private page, which
 * copies it.  One line for each of 400 processes.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static volatile char *pages(int flags)
{
	size_t size = 1 << 20;
	void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	madvise(start, size, MADV_NOHUGEPAGE);
	memset(start, 1, size);
	return start;
}

int main(void)
{
	volatile char *shared = pages(MAP_SHARED), *private = pages(MAP_PRIVATE);

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < 400; i++)
	{
		if (fork() == 0)
		{
			long start, read, written;

			now_ns(); /* touches the pages that it needs itself */
			start = now_ns();
			(void)shared[1 << 19];
			read = now_ns();
			private[1 << 19] = 2;
			written = now_ns();
			printf("%ld %ld\n", read - start, written - read);
			_exit(0);
		}
		wait(NULL);
	}
	return 0;
}
