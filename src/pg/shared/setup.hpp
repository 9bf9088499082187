// Setting up all of the guard's shared memory, as PostgreSQL's ipci.c does for its own.
#pragma once

namespace guard::pg
{

// Hooks up the allocation; called while shared_preload_libraries is processed.
void request_shared_memory();

} // namespace guard::pg
