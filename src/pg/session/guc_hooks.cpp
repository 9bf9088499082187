#include "pg/postgres.hpp"

#include "pg/session/guc_hooks.hpp"

#include "kernel/socket_options.hpp"
#include "model/effective.hpp"
#include "pg/compat.hpp"
#include "pg/session/own_slot.hpp"
#include "pg/setting_records.hpp"
#include "pg/shared/state.hpp"

#include <algorithm>

extern "C"
{
#include "libpq/libpq.h"
#include "utils/builtins.h"
}

namespace guard::pg
{
namespace
{

// What a check hook attaches to a value that was chosen in a place above the
// policy's; it goes where the value goes (GUC "extra": onto the stack, into the
// reset value).
struct Choice
{
	std::int32_t native; // as asked for, before the policy changed it
	bool may_override;   // chosen by a superuser
};

struct NativeSetting
{
	// nullptr for client_check, which no socket has.
	int (*set_option)(int fd, int value) noexcept; // in the kernel
	int Port::*remembered; // what it has, 0 for the default, as the Port remembers it

	GucIntCheckHook check = nullptr; // PostgreSQL's own hooks
	GucIntAssignHook assign = nullptr;

	// The default comes from our own apply_native_settings().
	bool default_is_ours = false;
	// ALTER ROLE ALL SET gave a default: it has the same source as ours.
	bool default_is_role_all = false;

	// What was assigned last.  Kept here because PostgreSQL changes the record only
	// after the assign hook has returned, and an update may come in between.
	volatile std::int32_t assigned = 0;
	volatile bool chosen = false; // in a place above the policy's
	volatile bool may_override = false;
};

NativeSetting settings[setting_count] = {
	{set_keepalives_idle, &Port::keepalives_idle},
	{set_keepalives_interval, &Port::keepalives_interval},
	{set_keepalives_count, &Port::keepalives_count},
	{set_user_timeout, &Port::tcp_user_timeout},
	{nullptr, nullptr},
};

// apply_native_settings() is at work: the hooks let everything pass.
bool applying = false;

NativeSetting &native(Setting setting)
{
	return settings[static_cast<int>(setting)];
}

void note_assigned(NativeSetting &n, std::int32_t value, const void *extra)
{
	const auto *choice = static_cast<const Choice *>(extra);
	n.chosen = choice != nullptr;
	n.may_override = choice != nullptr && choice->may_override;
	n.assigned = choice != nullptr ? choice->native : value;
}

std::int32_t govern(Setting setting, std::int32_t choice, bool may_override,
                    const Wanted &wanted)
{
	if (!wanted.governed)
		return choice;
	return effective(setting, choice, wanted.settings, resolved(setting, 0),
	                 may_override);
}

bool attach_choice(void **extra, std::int32_t value, bool may_override)
{
	auto *choice = static_cast<Choice *>(compat::allocate_extra(sizeof(Choice)));
	if (choice == nullptr)
		return false;
	*choice = {value, may_override};
	*extra = choice;
	return true;
}

const char *enforcement_word(Enforcement enforcement)
{
	return enforcement == Enforcement::locked ? "locked" : "a ceiling";
}

// DESIGN "Enforcement".  Never raises an error: what is refused returns false, and
// what must not be refused, because it would keep a client from connecting, is
// changed.
bool enforce(Setting setting, int *value, void **extra, GucSource source)
{
	Wanted wanted = {};
	if (my_slot == nullptr || applying)
		return true;
	if (!my_slot->wanted.read(wanted))
		wanted = {};

	NativeSetting &n = native(setting);
	if (source == PGC_S_GLOBAL)
	{
		n.default_is_role_all = true;
		n.default_is_ours = false;
	}

	if (source == PGC_S_TEST || source < PGC_S_GLOBAL)
		return true;
	if (!wanted.governed ||
	    allowed(setting, *value, wanted.settings, resolved(setting, 0), false))
		return attach_choice(extra, *value, false);

	const char *word = enforcement_word(wanted.settings.enforcement);
	if (source >= PGC_S_INTERACTIVE)
	{
		if (superuser())
			return attach_choice(extra, *value, true);
		GUC_check_errcode(ERRCODE_INSUFFICIENT_PRIVILEGE);
		GUC_check_errmsg(
			"permission denied to set parameter \"%s\" to %d: keepalive policy "
			"\"%s\" does not allow it",
			setting_name(setting), *value, wanted.policy);
		GUC_check_errdetail("The policy sets %d, and is %s.",
		                    wanted.settings.get(setting), word);
		GUC_check_errhint("Only superusers may override it; the policy can be changed in "
		                  "table keepalive_policy.");
		return false;
	}

	if (!attach_choice(extra, *value, false))
		return false;
	ereport(
		WARNING_CLIENT_ONLY,
		(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
	     errmsg("parameter \"%s\" stays as keepalive policy \"%s\" has it",
	            setting_name(setting), wanted.policy),
	     errdetail("The value %d comes from the connection's options or from ALTER ROLE "
	               "or ALTER DATABASE; the policy sets %d, and is %s.",
	               *value, wanted.settings.get(setting), word)));
	*value = govern(setting, *value, false, wanted);
	return true;
}

// Publishes what is in force after an assign hook has brought `expected` into force;
// the setting's variable is about to become `variable`.
void publish_assigned(const Wanted &wanted, Setting setting, std::int32_t expected,
                      std::int32_t variable)
{
	bool is_check = setting == Setting::client_check;
	publish_own(wanted, effective_values(wanted),
	            is_check ? variable : variable_value(Setting::client_check));

	if (expected == variable)
		return;
	synchronization_needed = true;
	// The kernel has what is expected; but this variable will not have it.
	if (is_check)
		request_resignal();
}

template <Setting setting> bool check_hook(int *value, void **extra, GucSource source)
{
	NativeSetting &n = native(setting);
	if (n.check != nullptr && !n.check(value, extra, source))
		return false;
	return enforce(setting, value, extra, source);
}

template <Setting setting> void assign_hook(int value, void *extra)
{
	NativeSetting &n = native(setting);
	if (my_slot == nullptr || applying)
	{
		note_assigned(n, value, extra);
		if (n.assign != nullptr)
			n.assign(value, extra);
		return;
	}

	hold_updates();
	Wanted wanted = {};
	if (!my_slot->wanted.read(wanted))
		wanted = {};
	note_assigned(n, value, extra);
	// A value from the stack or the reset value may be older than the policy.
	std::int32_t governed = effective_value(setting, wanted);
	if (n.assign != nullptr)
		n.assign(governed, extra);
	publish_assigned(wanted, setting, governed, value);
	release_updates();
}

template <Setting setting> void wrap()
{
	NativeSetting &n = native(setting);
	config_int *record = setting_record(setting).integer;
	n.check = record->check_hook;
	n.assign = record->assign_hook;
	record->check_hook = check_hook<setting>;
	record->assign_hook = assign_hook<setting>;
	n.assigned = *record->variable;
}

// Back to the value and source of postgresql.conf.  SET's machinery has no way to
// lower a source, so the record is changed, as ProcessConfigFile() does it for a line
// that has gone.
void release_default(Setting setting)
{
	ConfiguredValues configured;
	if (!shared->configured.read(configured))
		return;
	const auto index = static_cast<int>(setting);
	const GucSource source = configured.source[index];
	config_generic *record = setting_record(setting).generic;

	if (record->source == PGC_S_GLOBAL)
		compat::set_source(record, source);
	if (record->reset_source == PGC_S_GLOBAL)
		record->reset_source = source;
	for (GucStack *stack = record->stack; stack != nullptr; stack = stack->prev)
		if (stack->source == PGC_S_GLOBAL)
			stack->source = source;

	char text[16];
	pg_ltoa(configured.value[index], text);
	SetConfigOption(setting_name(setting), text, PGC_SIGHUP, source);
	native(setting).default_is_ours = false;
}

void apply_native_setting(Setting setting, const Wanted &wanted)
{
	NativeSetting &n = native(setting);

	if (wanted.governed && wanted.settings.has(setting))
	{
		if (!n.default_is_role_all)
		{
			char text[16];
			pg_ltoa(wanted.settings.get(setting), text);
			SetConfigOption(setting_name(setting), text, PGC_USERSET, PGC_S_GLOBAL);
			n.default_is_ours = true;
		}
	}
	else if (n.default_is_ours)
		release_default(setting);

	// What RESET would bring back.
	const SettingRecord &record = setting_record(setting);
	if (const auto *choice =
	        static_cast<const Choice *>(*compat::reset_extra(record.generic)))
		record.integer->reset_val =
			govern(setting, choice->native, choice->may_override, wanted);
}

} // namespace

bool wrap_native_settings()
{
	if (!find_setting_records())
		return false;
	wrap<Setting::keepalives_idle>();
	wrap<Setting::keepalives_interval>();
	wrap<Setting::keepalives_count>();
	wrap<Setting::user_timeout>();
	wrap<Setting::client_check>();
	return true;
}

void remember_system_defaults(Port *port)
{
	// Where postgresql.conf has set something, the Port knows the default from before;
	// else the kernel still has it, and the Port is told: it asks the kernel when it
	// first sets an option, and by then apply_to_socket() may have changed it.
	Options now = {};
	read_options(port->sock, now);
	if (port->default_keepalives_idle <= 0)
		port->default_keepalives_idle = now.keepalives_idle;
	if (port->default_keepalives_interval <= 0)
		port->default_keepalives_interval = now.keepalives_interval;
	if (port->default_keepalives_count <= 0)
		port->default_keepalives_count = now.keepalives_count;

	set_system_default(Setting::keepalives_idle, port->default_keepalives_idle);
	set_system_default(Setting::keepalives_interval, port->default_keepalives_interval);
	set_system_default(Setting::keepalives_count, port->default_keepalives_count);
}

std::int32_t effective_value(Setting setting, const Wanted &wanted)
{
	const NativeSetting &n = native(setting);
	if (n.chosen)
		return govern(setting, n.assigned, n.may_override, wanted);
	if (wanted.governed && wanted.settings.has(setting))
		return wanted.settings.get(setting);
	ConfiguredValues configured;
	if (n.default_is_ours && shared->configured.read(configured))
		return configured.value[static_cast<int>(setting)];
	return n.assigned;
}

SettingValues effective_values(const Wanted &wanted)
{
	SettingValues values;
	for (int i = 0; i < setting_count; i++)
		values[i] = effective_value(static_cast<Setting>(i), wanted);
	return values;
}

void apply_to_socket(Setting setting, std::int32_t value, Port *port)
{
	NativeSetting &n = native(setting);
	if (n.set_option == nullptr)
	{
		*setting_record(setting).integer->variable = value; // PostgreSQL reads it there
		return;
	}

	// SHOW reads what the Port remembers, and pq_set...() does nothing if it finds the
	// value there.
	std::int32_t kernel_value = resolved(setting, value);
	if (resolved(setting, port->*n.remembered) != kernel_value &&
	    n.set_option(port->sock, kernel_value) == 0)
		port->*n.remembered = kernel_value;
}

void apply_native_settings(const Wanted &wanted)
{
	applying = true;
	PG_TRY();
	{
		for (int i = 0; i < setting_count; i++)
			apply_native_setting(static_cast<Setting>(i), wanted);
	}
	PG_FINALLY();
	{
		applying = false;
	}
	PG_END_TRY();
}

} // namespace guard::pg
