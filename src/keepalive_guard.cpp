#include "pg/postgres.hpp"

#include "pg/compat.hpp"
#include "pg/policy/change.hpp"
#include "pg/session/authentication.hpp"
#include "pg/session/command_hooks.hpp"
#include "pg/session/ending.hpp"
#include "pg/session/guc_hooks.hpp"
#include "pg/settings.hpp"
#include "pg/shared/setup.hpp"
#include "pg/worker/worker.hpp"

extern "C"
{
	PG_MODULE_MAGIC_EXT(.name = "keepalive_guard", .version = KEEPALIVE_GUARD_VERSION);
	PGDLLEXPORT void _PG_init(void);
}

void _PG_init(void)
{
	using namespace guard::pg;

	// Loaded by a function's call: the reading functions work, policies do not.
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	define_settings();
	if (!wrap_native_settings())
		return;
	request_shared_memory();
	install_object_access_hook();
	install_authentication_hook();
	install_command_hooks();
	install_ending_hooks();
	register_worker();
}
