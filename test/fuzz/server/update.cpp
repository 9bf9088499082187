// A session's own slot with any contents: the update signal, bringing settings into
// force, and SET.  What reaches the socket is within the kernel's bounds, and nothing but
// the session's own slot is written.
#include "shared_copy.hpp"

#include "kernel/socket_options.hpp"
#include "pg/session/session.hpp"
#include "pg/setting_records.hpp"

#include <csignal>

extern "C"
{
#include "libpq/libpq-be.h"
#include "utils/acl.h"
#include "utils/builtins.h"
}

namespace guard::pg::fuzz
{
namespace
{

Oid ordinary_role = InvalidOid;

void begin()
{
	require(my_slot != nullptr && own_session.transport == Transport::tcp);
	ordinary_role = get_role_oid("fuzz_ordinary", false);
	copy_shared();
	// Warnings of values that are out of range, for one.
	log_level() = PANIC;
	client_min_messages = ERROR;
}

void set(Input &input)
{
	const auto setting = static_cast<Setting>(input.between(0, setting_count - 1));
	const char *value =
		psprintf("%d", input.flag() ? input.any<std::int32_t>() : input.between(0, 127));
	if (input.flag())
		value = nullptr; // RESET
	constexpr GucSource sources[] = {PGC_S_SESSION, PGC_S_INTERACTIVE, PGC_S_CLIENT,
	                                 PGC_S_USER,    PGC_S_DATABASE,    PGC_S_GLOBAL};
	const GucSource source = sources[input.between(0, int(lengthof(sources)) - 1)];
	const GucAction action = input.flag() ? GUC_ACTION_SET : GUC_ACTION_LOCAL;
	Oid role;
	int context;
	GetUserIdAndSecContext(&role, &context);
	if (input.flag())
		SetUserIdAndSecContext(ordinary_role, context);
	(void)set_config_option(setting_name(setting), value, PGC_USERSET, source, action,
	                        true, DEBUG5, false);
	SetUserIdAndSecContext(role, context);
}

void check()
{
	Options options = {};
	require(read_options(MyProcPort->sock, options) == 0);
	require(options.keepalives_idle >= 1 && options.keepalives_idle <= 32767);
	require(options.keepalives_interval >= 1 && options.keepalives_interval <= 32767);
	require(options.keepalives_count >= 1 && options.keepalives_count <= 127);
	require(options.user_timeout_ms >= 0);
	require(variable_value(Setting::client_check) >= 0);
	require(others_unchanged());

	Session shown;
	require(my_slot->session.read(shown));
	require(shown.pid == MyProcPid && shown.started == MyStartTimestamp);
	for (int i = 0; i < setting_count; i++)
		GetConfigOptionByName(setting_name(static_cast<Setting>(i)), nullptr, false);
}

void run(Input &input)
{
	restore_shared();
	any_wanted(input, my_slot->wanted);
	scribble(input, shared->configured);
	for (int steps = input.between(1, 6); steps > 0; steps--)
		switch (input.between(0, 5))
		{
		case 0:
		case 1:
			raise(own_session.update_signal);
			break;
		case 2:
			synchronize_settings();
			break;
		case 3:
			any_wanted(input, my_slot->wanted);
			break;
		default:
			set(input);
		}
	pg_atomic_write_u32(&my_slot->wanted.sequence, 0);
	check();
}

} // namespace

extern const Target update_target = {"update", false, begin, run};

} // namespace guard::pg::fuzz
