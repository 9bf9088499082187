// How to write the extension's table in a statement for people.
#pragma once

#include "pg/postgres.hpp"

namespace guard::pg
{

// keepalive_policy as the caller has to write it, with its schema unless search_path
// finds it; quoted where need be.  `function`: one of the extension's functions, which
// are in the same schema.  Palloc'd.
const char *policy_table_name(Oid function);

} // namespace guard::pg
