// What ALTER ROLE ... SET and ALTER DATABASE ... SET choose for new sessions.
#pragma once

#include "pg/postgres.hpp"

#include "model/effective.hpp"

namespace guard::pg
{

// For a session of `role` in the database.  A physical walsender, which has no database
// (nullptr), does not see them at all.
Choices stored_choices(const char *database, Oid role);

} // namespace guard::pg
