#include "pg/postgres.hpp"

#include "pg/backend_entry.hpp"

#include "pg/compat.hpp"

namespace guard::pg
{

bool read_backend(int number, Backend &backend)
{
	auto *entry =
		const_cast<volatile PgBackendStatus *>(compat::backend_statuses() + number);
	for (int attempt = 0; attempt < 1000; attempt++)
	{
		int before;
		int after;
		pgstat_begin_read_activity(entry, before);
		backend.pid = entry->st_procpid;
		if (backend.pid > 0)
		{
			backend.type = entry->st_backendType;
			backend.started = entry->st_proc_start_timestamp;
			backend.database = entry->st_databaseid;
			backend.role = entry->st_userid;
			memcpy(&backend.client, const_cast<const SockAddr *>(&entry->st_clientaddr),
			       sizeof(SockAddr));
			strlcpy(backend.application_name, entry->st_appname, NAMEDATALEN);
			backend.state = entry->st_state;
			backend.state_since = entry->st_state_start_timestamp;
			backend.transaction_start = entry->st_xact_start_timestamp;
		}
		pgstat_end_read_activity(entry, after);
		if (pgstat_read_activity_complete(before, after))
			return backend.pid > 0 &&
			       (backend.type == B_BACKEND || backend.type == B_WAL_SENDER);
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

} // namespace guard::pg
