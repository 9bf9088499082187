#include "pg/postgres.hpp"

#include "pg/authentication.hpp"
#include "pg/command_hooks.hpp"
#include "pg/ending.hpp"
#include "pg/native_settings.hpp"
#include "pg/policy_change.hpp"
#include "pg/settings.hpp"
#include "pg/shared.hpp"
#include "pg/worker.hpp"

extern "C"
{
	// From 18 on the macro leaves fields out, which clang tells of even in a system
	// header's macro.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
	PG_MODULE_MAGIC;
#pragma GCC diagnostic pop
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
	watch_objects();
	install_authentication_hook();
	install_command_hooks();
	install_ending_hooks();
	register_worker();
}
