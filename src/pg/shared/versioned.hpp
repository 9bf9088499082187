// A value in shared memory with one writer at a time and any number of readers
// that never block it (a sequence lock).
#pragma once

#include "pg/postgres.hpp"

#include <cstring>
#include <type_traits>

namespace guard::pg
{

// Makes a copy safe to read, whatever the bytes in shared memory are: strings end, and
// what is an index stays within its array.  Overloaded for what has any of that.
template <typename T> void bound(T &) {}

// The string's last byte is its end, if no other one is.
template <std::size_t room> void bound_text(char (&text)[room])
{
	text[room - 1] = '\0';
}

template <typename T> struct Versioned
{
	static_assert(std::is_trivially_copyable_v<T>);

	pg_atomic_uint32 sequence; // odd while being written
	T value;

	void init()
	{
		pg_atomic_init_u32(&sequence, 0);
		memset(static_cast<void *>(&value), 0, sizeof(T));
	}

	// Async-signal-safe.
	void write(const T &next)
	{
		// Writes at once: reading first would have the kernel map the page's whole
		// neighbourhood into a new process (fault-around), which takes twice as long.
		std::uint32_t before = pg_atomic_fetch_add_u32(&sequence, 1);
		pg_write_barrier();
		memcpy(static_cast<void *>(&value), &next, sizeof(T));
		pg_write_barrier();
		pg_atomic_write_u32(&sequence, before + 2);
	}

	// Where several processes may write: begins to change `value` in place, unless
	// another one is at it.
	bool try_begin()
	{
		std::uint32_t before = pg_atomic_read_u32(&sequence);
		return (before & 1) == 0 &&
		       pg_atomic_compare_exchange_u32(&sequence, &before, before + 1);
	}
	void end()
	{
		pg_write_barrier();
		pg_atomic_fetch_add_u32(&sequence, 1);
	}

	// Copies the value as it was at one moment.  False if writers kept it busy;
	// async-signal-safe.
	[[nodiscard]] bool read(T &copy) const
	{
		auto *seq = const_cast<pg_atomic_uint32 *>(&sequence);
		for (int attempt = 0; attempt < 10000; attempt++)
		{
			std::uint32_t before = pg_atomic_read_u32(seq);
			pg_read_barrier();
			memcpy(static_cast<void *>(&copy), &value, sizeof(T));
			pg_read_barrier();
			if ((before & 1) == 0 && pg_atomic_read_u32(seq) == before)
			{
				bound(copy);
				return true;
			}
		}
		return false;
	}
};

} // namespace guard::pg
