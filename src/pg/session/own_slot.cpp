#include "pg/postgres.hpp"

#include "pg/session/own_slot.hpp"

#include "kernel/socket_options.hpp"
#include "pg/clock.hpp"
#include "pg/setting_records.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "libpq/libpq-be.h"
}

namespace guard::pg
{

Slot *my_slot = nullptr;
Session own_session;
volatile sig_atomic_t synchronization_needed = false;

namespace
{

sigset_t mask_before_hold;

std::uint8_t bit(Setting setting)
{
	return 1 << static_cast<int>(setting);
}

} // namespace

bool own_is_tcp()
{
	return own_session.transport == Transport::tcp;
}

void publish_own(const Wanted &wanted, const SettingValues &expected,
                 std::uint8_t overrides, std::int32_t client_check)
{
	own_session.overridden = overrides;
	own_session.failed = 0;
	own_session.keepalive_failed = false;

	if (own_is_tcp())
	{
		Options options = {};
		read_options(MyProcPort->sock, options);
		if (own_session.keepalive != (options.keepalive != 0) ||
		    own_session.in_force[static_cast<int>(Setting::keepalives_idle)] !=
		        options.keepalives_idle)
			own_session.probes_changed = monotonic_ms();
		own_session.keepalive = options.keepalive != 0;
		own_session.in_force = {options.keepalives_idle, options.keepalives_interval,
		                        options.keepalives_count, options.user_timeout_ms,
		                        client_check};
		own_session.keepalive_failed =
			wanted.settings.has(item_keepalive) &&
			own_session.keepalive == wanted.settings.keepalive_off();
	}
	else
		own_session.in_force = {0, 0, 0, 0, client_check};

	for (int i = own_is_tcp() ? 0 : tcp_setting_count; i < setting_count; i++)
	{
		auto setting = static_cast<Setting>(i);
		if (!wanted.settings.has(setting))
			continue;
		std::int32_t in_force = own_session.in_force[i];
		if (in_force == resolved(setting, wanted.settings.get(setting)))
			continue;
		if (in_force == resolved(setting, expected[i]))
			own_session.overridden |= bit(setting);
		else
			own_session.failed |= bit(setting);
	}
	my_slot->session.write(own_session);
}

void request_resignal()
{
	own_session.applied = 0;
	my_slot->session.write(own_session);
	call_for_attention();
}

void hold_updates()
{
	sigset_t held;
	sigemptyset(&held);
	if (own_session.update_signal != 0)
		sigaddset(&held, own_session.update_signal);
	sigprocmask(SIG_BLOCK, &held, &mask_before_hold);
}

void release_updates()
{
	sigprocmask(SIG_SETMASK, &mask_before_hold, nullptr);
}

} // namespace guard::pg
