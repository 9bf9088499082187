#include "pg/postgres.hpp"

#include "pg/session/guc_hooks.hpp"

#include "kernel/socket_options.hpp"
#include "model/effective.hpp"
#include "pg/compat.hpp"
#include "pg/session/own_slot.hpp"
#include "pg/setting_records.hpp"
#include "pg/settings.hpp"
#include "pg/shared/snapshot.hpp"
#include "pg/shared/state.hpp"
#include "pg/text.hpp"

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

// What a check hook attaches to a value whose source is above that of a policy's value.
// PostgreSQL keeps it with the value (GUC "extra"): on the stack and in the reset value.
struct Extra
{
	std::int32_t native; // as asked for, before the policy changed it
	bool may_override;   // chosen by a superuser
};

struct NativeSetting
{
	// nullptr for client_check, which no socket has.
	int (*set_option)(int fd, int value) noexcept; // in the kernel
	int Port::*remembered; // the Port's copy of the kernel's value; 0: the default

	GucIntCheckHook check = nullptr; // PostgreSQL's own hooks
	GucIntAssignHook assign = nullptr;

	// The default was set by apply_native_settings().
	bool default_is_ours = false;
	// ALTER ROLE ALL SET gave a default: it has the same source as ours.
	bool default_is_role_all = false;

	// The value that was assigned last.  PostgreSQL changes the record only after the
	// assign hook has returned, and the update signal may arrive before that.
	volatile std::int32_t assigned = 0;
	volatile bool chosen = false; // by a source above that of a policy's value
	volatile bool may_override = false;
};

NativeSetting settings[setting_count] = {
	{set_keepalives_idle, &Port::keepalives_idle},
	{set_keepalives_interval, &Port::keepalives_interval},
	{set_keepalives_count, &Port::keepalives_count},
	{set_user_timeout, &Port::tcp_user_timeout},
	{nullptr, nullptr},
};

// apply_native_settings() is running: the hooks accept every value.
bool applying = false;

NativeSetting &native(Setting setting)
{
	return settings[static_cast<int>(setting)];
}

// The kernel's limits, on which detection times depend.  Read when a value is chosen,
// because a signal handler cannot read files.
KernelLimits limits;

void note_assigned(NativeSetting &n, std::int32_t value, const void *extra)
{
	const auto *choice = static_cast<const Extra *>(extra);
	n.chosen = choice != nullptr;
	n.may_override = choice != nullptr && choice->may_override;
	n.assigned = choice != nullptr ? choice->native : value;
}

// Async-signal-safe, as all that follows up to effective_values().
Choices choices_made()
{
	Choices choices = {};
	for (int i = 0; i < setting_count; i++)
		if (settings[i].chosen)
			choices[i] = {settings[i].assigned, true, settings[i].may_override};
	return choices;
}

// The values without any choice.
Basis basis_of(const Wanted &wanted)
{
	Basis basis = {};
	ConfiguredValues configured;
	const bool known = shared->configured.read(configured);
	for (int i = 0; i < setting_count; i++)
	{
		auto setting = static_cast<Setting>(i);
		const NativeSetting &n = settings[i];
		if (wanted.settings.has(setting))
			basis.unchosen[i] = wanted.settings.get(setting);
		else if ((n.chosen || n.default_is_ours) && known)
			basis.unchosen[i] = configured.value[i];
		else
			basis.unchosen[i] = n.assigned;
		basis.system_default[i] = resolved(setting, 0);
	}
	basis.limits = limits;
	basis.watch_interval_ms = watch_interval;
	basis.tcp = own_is_tcp();
	return basis;
}

// Settings that the policies leave to PostgreSQL and that a superuser has chosen so that
// a dead client is found later than the policies promise.  A bit per Setting.
std::uint8_t overrides_of_promise(const Wanted &wanted, const SettingValues &expected)
{
	std::uint8_t overrides = 0;
	for (int i = 0; i < setting_count; i++)
		if (settings[i].may_override && !wanted.settings.has(i))
			overrides |= 1 << i;
	if (overrides == 0)
		return 0;
	const Basis basis = basis_of(wanted);
	return keeps(promised({}, wanted.settings, basis), expected, wanted.settings, basis)
	           ? 0
	           : overrides;
}

void publish(const Wanted &wanted, std::int32_t client_check)
{
	const SettingValues expected = effective_values(wanted);
	own_session.choices = choices_made();
	publish_own(wanted, expected, overrides_of_promise(wanted, expected), client_check);
}

bool attach_extra(void **extra, std::int32_t value, bool may_override)
{
	auto *choice = static_cast<Extra *>(compat::allocate_extra(sizeof(Extra)));
	if (choice == nullptr)
		return false;
	*choice = {value, may_override};
	*extra = choice;
	return true;
}

// Whether the session gets what it chooses, and keeps what it chose before.
bool is_honoured(int chosen, const Choices &choices, const SettingValues &before,
                 const SettingValues &after)
{
	for (int i = 0; i < setting_count; i++)
		if (choices[i].made && after[i] != choices[i].value &&
		    (i == chosen || after[i] != before[i]))
			return false;
	return true;
}

// Why a value is refused.  `detail` is valid until the next call.
struct Refusal
{
	const char *policy;
	const char *detail;
};

const char *time_text(const Duration &duration, char *text, size_t room)
{
	if (duration)
		snprintf(text, room, "%.1f s", *duration / 1000.0);
	else
		strlcpy(text, "for ever", room);
	return text;
}

Refusal refusal_of(Setting setting, const SettingValues &values, const Wanted &wanted,
                   const Basis &basis)
{
	static char detail[256];
	const ComposedSettings &policy = wanted.settings;
	const int i = item_of(setting);
	if (!allowed(setting, values[i], policy, basis.system_default[i]))
	{
		snprintf(detail, sizeof(detail), "Policy value is %d; enforcement is \"%s\".",
		         policy.get(setting), enforcement_name(policy.enforcement[i]));
		return {wanted.source_of(i), detail};
	}
	const Promise promise = promised({}, policy, basis);
	const Detection worst = detection_of(values, policy, basis);
	char now[32];
	char then[32];
	const bool idle =
		promise.idle && (!worst.idle.latest || *worst.idle.latest > *promise.idle);
	snprintf(detail, sizeof(detail),
	         "A dead client would go unnoticed for %s while the session is %s; the "
	         "policies promise %s.",
	         time_text(idle ? worst.idle.latest : worst.busy.latest, then, sizeof(then)),
	         idle ? "idle" : "busy",
	         time_text(idle ? promise.idle : promise.busy, now, sizeof(now)));
	return {wanted.source_of(first_enforced_item(policy)), detail};
}

// Never raises an error: returns false for a value that is refused, and changes a value
// that comes with the connection, because refusing it would refuse the connection.
bool enforce(Setting setting, int *value, void **extra, GucSource source)
{
	if (my_slot == nullptr || applying)
		return true;
	if (source == PGC_S_GLOBAL)
	{
		native(setting).default_is_role_all = true;
		native(setting).default_is_ours = false;
	}
	if (source == PGC_S_TEST || source < PGC_S_GLOBAL)
		return true;

	Wanted wanted = {};
	if (!my_slot->wanted.read(wanted) || first_enforced_item(wanted.settings) < 0)
		return attach_extra(extra, *value, false);

	limits = kernel_limits();
	const int i = item_of(setting);
	const Basis basis = basis_of(wanted);
	Choices choices = choices_made();
	const SettingValues before = effective(choices, wanted.settings, basis);
	choices[i] = {*value, true, false};
	const SettingValues after = effective(choices, wanted.settings, basis);
	if (is_honoured(i, choices, before, after))
		return attach_extra(extra, *value, false);
	if (source >= PGC_S_INTERACTIVE && superuser())
		return attach_extra(extra, *value, true);

	SettingValues asked_for = before;
	asked_for[i] = *value;
	const Refusal refusal = refusal_of(setting, asked_for, wanted, basis);
	if (source >= PGC_S_INTERACTIVE)
	{
		GUC_check_errcode(ERRCODE_INSUFFICIENT_PRIVILEGE);
		GUC_check_errmsg(
			"permission denied to set parameter \"%s\" to %d: keepalive policy "
			"\"%s\" does not allow it",
			setting_name(setting), *value, text_for_log(refusal.policy));
		GUC_check_errdetail("%s", refusal.detail);
		GUC_check_errhint("Only superusers may override it; the policy can be changed in "
		                  "table keepalive_policy.");
		return false;
	}

	if (!attach_extra(extra, *value, false))
		return false;
	ereport(
		WARNING_CLIENT_ONLY,
		(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
	     errmsg("value of parameter \"%s\" is overridden by keepalive policy \"%s\"",
	            setting_name(setting), text_for_log(refusal.policy)),
	     errdetail("The value %d comes from the connection's options or from ALTER ROLE "
	               "or ALTER DATABASE.  %s",
	               *value, refusal.detail)));
	*value = after[i];
	return true;
}

template <Setting setting> bool check_hook(int *value, void **extra, GucSource source)
{
	NativeSetting &n = native(setting);
	if (n.check != nullptr && !n.check(value, extra, source))
		return false;
	return enforce(setting, value, extra, source);
}

// Brings one setting into force without PostgreSQL's SET machinery.  Async-signal-safe.
void apply_to_socket(Setting setting, std::int32_t value, Port *port)
{
	NativeSetting &n = native(setting);
	if (n.set_option == nullptr)
	{
		*setting_record(setting).integer->variable = value; // PostgreSQL reads it there
		return;
	}

	// SHOW reads the Port's copy, and pq_set...() does nothing if the copy has the value.
	std::int32_t kernel_value = resolved(setting, value);
	if (resolved(setting, port->*n.remembered) != kernel_value &&
	    n.set_option(port->sock, kernel_value) == 0)
		port->*n.remembered = kernel_value;
}

// A value from the stack or the reset value may be older than the policies.  And the
// value of one setting can decide which values others may have.
void assign(Setting setting, std::int32_t value, void *extra, const Wanted &wanted)
{
	NativeSetting &n = native(setting);
	const bool is_check = setting == Setting::client_check;
	const SettingValues before = effective_values(wanted);
	note_assigned(n, value, extra);
	const SettingValues expected = effective_values(wanted);
	const std::int32_t governed = expected[item_of(setting)];
	if (n.assign != nullptr)
		n.assign(governed, extra);
	for (int i = own_is_tcp() ? 0 : tcp_setting_count; i < setting_count; i++)
		if (i != item_of(setting) && expected[i] != before[i])
			apply_to_socket(static_cast<Setting>(i), expected[i], MyProcPort);
	publish(wanted, is_check ? value : variable_value(Setting::client_check));

	if (governed == value)
		return;
	synchronization_needed = true;
	// The kernel has the expected value; the variable does not get it.
	if (is_check)
		request_resignal();
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
	if (my_slot->wanted.read(wanted))
		assign(setting, value, extra, wanted);
	else
	{
		// The worker is writing; it sends the signal afterwards.
		note_assigned(n, value, extra);
		if (n.assign != nullptr)
			n.assign(value, extra);
	}
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

// Returns to the value and source of postgresql.conf.  SetConfigOption() cannot lower a
// source, so this changes the record, as ProcessConfigFile() does for a line that was
// removed.
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

	if (wanted.settings.has(setting))
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

	// The value to which RESET returns.
	const SettingRecord &record = setting_record(setting);
	if (const auto *choice =
	        static_cast<const Extra *>(*compat::reset_extra(record.generic)))
	{
		Choices alone = {};
		alone[item_of(setting)] = {choice->native, true, choice->may_override};
		record.integer->reset_val =
			effective(alone, wanted.settings, basis_of(wanted))[item_of(setting)];
	}
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
	// Where postgresql.conf has set an option, the Port has the default from before that.
	// Otherwise the kernel still has the default, and it is stored in the Port: the Port
	// asks the kernel when it first sets an option, and apply_to_socket() may have
	// changed the option by then.
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

SettingValues effective_values(const Wanted &wanted)
{
	return effective(choices_made(), wanted.settings, basis_of(wanted));
}

void publish_in_force(const Wanted &wanted)
{
	publish(wanted, variable_value(Setting::client_check));
}

void apply_to_socket(const SettingValues &values, Port *port)
{
	for (int i = own_is_tcp() ? 0 : tcp_setting_count; i < setting_count; i++)
		apply_to_socket(static_cast<Setting>(i), values[i], port);
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
