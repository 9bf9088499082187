// The guard's shared memory with any contents: this process works on a copy of its own,
// which ends before a page that nothing can access.
#pragma once

#include "target.hpp"

#include "pg/session/own_slot.hpp"
#include "pg/settings.hpp"
#include "pg/shared/state.hpp"

#include <algorithm>

#include <sys/mman.h>
#include <unistd.h>

extern "C"
{
#include "utils/memutils.h"
}

namespace guard::pg::fuzz
{

inline Shared *original = nullptr;

// From here on `shared` and `my_slot` are the copy.
inline void copy_shared()
{
	const Size page = sysconf(_SC_PAGESIZE);
	const Size size = state_size();
	const Size pages = TYPEALIGN(page, size);
	auto *map = static_cast<char *>(mmap(nullptr, pages + page, PROT_READ | PROT_WRITE,
	                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	require(map != MAP_FAILED && mprotect(map + pages, page, PROT_NONE) == 0);
	const auto number = my_slot - shared_slots();
	original = static_cast<Shared *>(MemoryContextAlloc(TopMemoryContext, size));
	memcpy(static_cast<void *>(original), shared, size);
	shared =
		reinterpret_cast<Shared *>(map + TYPEALIGN_DOWN(alignof(Slot), pages - size));
	memcpy(static_cast<void *>(shared), original, size);
	my_slot = &shared_slots()[number];
}

inline void restore_shared()
{
	memcpy(static_cast<void *>(shared), original, state_size());
}

// Whether the slots of other sessions are as they were.
inline bool others_unchanged()
{
	const auto at = [](const void *slot) -> Size
	{
		return static_cast<const char *>(slot) - reinterpret_cast<char *>(shared);
	};
	const auto same = [](Size from, Size to)
	{
		return memcmp(reinterpret_cast<char *>(shared) + from,
		              reinterpret_cast<char *>(original) + from, to - from) == 0;
	};
	return same(at(shared_slots()), at(my_slot)) &&
	       same(at(my_slot + 1), at(shared_slots() + shared->slot_count));
}

// Overwrites any parts of a value with any bytes.
template <typename T> void scribble(Input &input, T &value)
{
	auto *bytes = reinterpret_cast<unsigned char *>(&value);
	for (int times = input.between(0, 4); times > 0; times--)
	{
		const auto from = input.between<Size>(0, sizeof(T) - 1);
		const auto count = std::min(input.between<Size>(1, 80), sizeof(T) - from);
		const bool same = input.flag();
		const auto byte = input.any<unsigned char>();
		for (Size i = 0; i < count; i++)
			bytes[from + i] = same ? byte : input.any<unsigned char>();
	}
}

template <typename T> void scribble(Input &input, Versioned<T> &versioned)
{
	scribble(input, versioned.value);
	// Its writer is stopped: reading it takes thousands of attempts.
	if (input.rarely())
		pg_atomic_write_u32(&versioned.sequence, 1);
}

// What a session should have: some of it as the worker writes it, then any bytes.
inline void any_wanted(Input &input, Versioned<Wanted> &versioned)
{
	Wanted &wanted = versioned.value;
	wanted = {};
	for (int policies = input.between(0, 3); policies > 0; policies--)
	{
		Policy policy = {};
		strlcpy(policy.name, any_bytes(input, name_bytes - 1), name_bytes);
		for (int item = 0; item < item_count; item++)
			if (input.flag())
				policy.settings.give(item, input.flag() ? input.any<std::int32_t>()
				                                        : input.between(0, 127));
		policy.settings.enforcement = static_cast<Enforcement>(input.between(0, 2));
		policy.settings.log_only = input.flag();
		add_policy(wanted, policy);
	}
	wanted.version = input.any<std::uint32_t>();
	scribble(input, versioned);
}

} // namespace guard::pg::fuzz
