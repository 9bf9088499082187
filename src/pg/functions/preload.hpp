// What needs shared_preload_libraries.
#pragma once

namespace guard::pg
{

// Raises an error where the library is not preloaded.
void require_preload();

} // namespace guard::pg
