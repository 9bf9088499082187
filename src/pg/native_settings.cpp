#include "pg/postgres.hpp"

#include "pg/native_settings.hpp"

#include "kernel/kernel_settings.hpp"
#include "kernel/socket_options.hpp"
#include "pg/compat.hpp"
#include "pg/session.hpp"
#include "policy/effective.hpp"

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
	const char *name;
	// nullptr for client_check, which no socket has.
	int (*set_option)(int fd, int value) noexcept; // in the kernel
	int Port::*remembered; // what it has, 0 for the default, as the Port remembers it

	config_generic *record = nullptr;
	config_int *integer = nullptr;
	GucIntCheckHook check = nullptr; // PostgreSQL's own hooks
	GucIntAssignHook assign = nullptr;

	std::int32_t system_default = 0;

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
	{"tcp_keepalives_idle", set_keepalives_idle, &Port::keepalives_idle},
	{"tcp_keepalives_interval", set_keepalives_interval, &Port::keepalives_interval},
	{"tcp_keepalives_count", set_keepalives_count, &Port::keepalives_count},
	{"tcp_user_timeout", set_user_timeout, &Port::tcp_user_timeout},
	{"client_connection_check_interval", nullptr, nullptr},
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
	return effective(setting, choice, wanted.settings, native(setting).system_default,
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
	my_slot->wanted.read(wanted);

	NativeSetting &n = native(setting);
	if (source == PGC_S_GLOBAL)
	{
		n.default_is_role_all = true;
		n.default_is_ours = false;
	}

	if (source == PGC_S_TEST || source < PGC_S_GLOBAL)
		return true;
	if (!wanted.governed ||
	    allowed(setting, *value, wanted.settings, n.system_default, false))
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
			n.name, *value, wanted.policy);
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
	     errmsg("parameter \"%s\" stays as keepalive policy \"%s\" has it", n.name,
	            wanted.policy),
	     errdetail("The value %d comes from the connection's options or from ALTER ROLE "
	               "or ALTER DATABASE; the policy sets %d, and is %s.",
	               *value, wanted.settings.get(setting), word)));
	*value = govern(setting, *value, false, wanted);
	return true;
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
	my_slot->wanted.read(wanted);
	note_assigned(n, value, extra);
	// A value from the stack or the reset value may be older than the policy.
	std::int32_t governed = effective_value(setting, wanted);
	if (n.assign != nullptr)
		n.assign(governed, extra);
	publish_assigned(wanted, setting, governed, value);
	release_updates();
}

template <Setting setting> bool wrap()
{
	NativeSetting &n = native(setting);
	n.record = compat::find_setting(n.name);
	if (n.record == nullptr || n.record->vartype != PGC_INT)
	{
		ereport(LOG, (errmsg("keepalive_guard: this server has no integer setting \"%s\"",
		                     n.name)));
		return false;
	}
	n.integer = compat::int_setting(n.record);
	n.check = n.integer->check_hook;
	n.assign = n.integer->assign_hook;
	n.integer->check_hook = check_hook<setting>;
	n.integer->assign_hook = assign_hook<setting>;
	n.assigned = *n.integer->variable;
	return true;
}

// Back to the value and source of postgresql.conf.  SET's machinery has no way to
// lower a source, so the record is changed, as ProcessConfigFile() does it for a line
// that has gone.
void release_default(NativeSetting &n)
{
	ConfiguredValues configured;
	if (!shared->configured.read(configured))
		return;
	auto index = &n - settings;
	GucSource source = configured.source[index];

	if (n.record->source == PGC_S_GLOBAL)
		compat::set_source(n.record, source);
	if (n.record->reset_source == PGC_S_GLOBAL)
		n.record->reset_source = source;
	for (GucStack *stack = n.record->stack; stack != nullptr; stack = stack->prev)
		if (stack->source == PGC_S_GLOBAL)
			stack->source = source;

	char text[16];
	pg_ltoa(configured.value[index], text);
	SetConfigOption(n.record->name, text, PGC_SIGHUP, source);
	n.default_is_ours = false;
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
			SetConfigOption(n.record->name, text, PGC_USERSET, PGC_S_GLOBAL);
			n.default_is_ours = true;
		}
	}
	else if (n.default_is_ours)
		release_default(n);

	// What RESET would bring back.
	if (const auto *choice = static_cast<const Choice *>(*compat::reset_extra(n.record)))
		n.integer->reset_val =
			govern(setting, choice->native, choice->may_override, wanted);
}

} // namespace

const char *setting_name(Setting setting)
{
	return native(setting).name;
}

bool wrap_native_settings()
{
	return wrap<Setting::keepalives_idle>() && wrap<Setting::keepalives_interval>() &&
	       wrap<Setting::keepalives_count>() && wrap<Setting::user_timeout>() &&
	       wrap<Setting::client_check>();
}

ConfiguredValues configured_values()
{
	ConfiguredValues configured = {};
	for (int i = 0; i < setting_count; i++)
	{
		configured.value[i] = settings[i].integer->reset_val;
		configured.source[i] = settings[i].record->reset_source;
	}
	return configured;
}

void remember_system_defaults(Port *port)
{
	// Where postgresql.conf has set something, the Port knows the default from before;
	// else the kernel still has it, and the Port is told: it asks the kernel when it
	// first sets an option, and by then force_setting() may have changed it.
	Options now = {};
	read_options(port->sock, now);
	if (port->default_keepalives_idle <= 0)
		port->default_keepalives_idle = now.keepalives_idle;
	if (port->default_keepalives_interval <= 0)
		port->default_keepalives_interval = now.keepalives_interval;
	if (port->default_keepalives_count <= 0)
		port->default_keepalives_count = now.keepalives_count;

	native(Setting::keepalives_idle).system_default = port->default_keepalives_idle;
	native(Setting::keepalives_interval).system_default =
		port->default_keepalives_interval;
	native(Setting::keepalives_count).system_default = port->default_keepalives_count;
}

std::int32_t system_default(Setting setting)
{
	// tcp_keepalive_time and so on in net/ipv4/tcp_ipv4.c, with the kernel's defaults
	// where they cannot be read.
	if (native(setting).system_default != 0)
		return native(setting).system_default;
	switch (setting)
	{
	case Setting::keepalives_idle:
		return integer_sysctl_or("net/ipv4/tcp_keepalive_time", 7200);
	case Setting::keepalives_interval:
		return integer_sysctl_or("net/ipv4/tcp_keepalive_intvl", 75);
	case Setting::keepalives_count:
		return integer_sysctl_or("net/ipv4/tcp_keepalive_probes", 9);
	default:
		return 0;
	}
}

std::int32_t resolved(Setting setting, std::int32_t value)
{
	return value == 0 ? native(setting).system_default : value;
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

std::int32_t variable_value(Setting setting)
{
	return *native(setting).integer->variable;
}

void force_setting(Setting setting, std::int32_t value, Port *port)
{
	NativeSetting &n = native(setting);
	if (n.set_option == nullptr)
	{
		*n.integer->variable = value; // PostgreSQL reads it there
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
