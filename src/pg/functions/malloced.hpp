// Memory that src/kernel has allocated, which knows no memory contexts.
#pragma once

#include "pg/postgres.hpp"

#include <cstdlib>

namespace guard::pg
{

// A place for a pointer to malloc()ed memory, which is freed with the current memory
// context, also after an error.
template <typename T> T **freed_with_context()
{
	struct Place
	{
		T *memory;
		MemoryContextCallback callback;
	};
	auto *place = static_cast<Place *>(palloc0(sizeof(Place)));
	place->callback.func = [](void *memory)
	{
		std::free(*static_cast<T **>(memory));
	};
	place->callback.arg = &place->memory;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &place->callback);
	return &place->memory;
}

} // namespace guard::pg
