#include "pg/postgres.hpp"

#include "pg/functions/preload.hpp"

#include "pg/shared/state.hpp"

namespace guard::pg
{

void require_preload()
{
	if (shared == nullptr)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		     errmsg("keepalive_guard must be loaded via shared_preload_libraries"),
		     errhint("Add keepalive_guard to shared_preload_libraries and restart the "
		             "server.")));
}

} // namespace guard::pg
