#include "pg/postgres.hpp"

#include "pg/setting_records.hpp"

#include "kernel/kernel_settings.hpp"
#include "pg/compat.hpp"

namespace guard::pg
{
namespace
{

SettingRecord records[setting_count] = {
	{"tcp_keepalives_idle"},
	{"tcp_keepalives_interval"},
	{"tcp_keepalives_count"},
	{"tcp_user_timeout"},
	{"client_connection_check_interval"},
};

SettingValues connection_defaults = {};

} // namespace

SettingRecord &setting_record(Setting setting)
{
	return records[static_cast<int>(setting)];
}

bool find_setting_records()
{
	for (SettingRecord &record : records)
	{
		record.generic = compat::find_setting(record.name);
		if (record.generic == nullptr || record.generic->vartype != PGC_INT)
		{
			ereport(LOG,
			        (errmsg("keepalive_guard: this server has no integer setting \"%s\"",
			                record.name)));
			return false;
		}
		record.integer = compat::int_setting(record.generic);
	}
	return true;
}

const char *setting_name(Setting setting)
{
	return setting_record(setting).name;
}

std::int32_t variable_value(Setting setting)
{
	return *setting_record(setting).integer->variable;
}

ConfiguredValues configured_values()
{
	ConfiguredValues configured = {};
	for (int i = 0; i < setting_count; i++)
	{
		configured.value[i] = records[i].integer->reset_val;
		configured.source[i] = records[i].generic->reset_source;
	}
	return configured;
}

std::int32_t system_default(Setting setting)
{
	if (const std::int32_t value = connection_defaults[static_cast<int>(setting)])
		return value;
	// tcp_keepalive_time and so on in net/ipv4/tcp_ipv4.c, with the kernel's defaults
	// where they cannot be read.
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

void set_system_default(Setting setting, std::int32_t value)
{
	connection_defaults[static_cast<int>(setting)] = value;
}

std::int32_t resolved(Setting setting, std::int32_t value)
{
	return value == 0 ? connection_defaults[static_cast<int>(setting)] : value;
}

} // namespace guard::pg
