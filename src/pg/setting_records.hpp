// The records of PostgreSQL's own five settings that a policy can give.
#pragma once

#include "pg/postgres.hpp"

#include "model/policy.hpp"

extern "C"
{
#include "utils/guc_tables.h"
}

namespace guard::pg
{

struct SettingRecord
{
	const char *name; // PostgreSQL's
	config_generic *generic = nullptr;
	config_int *integer = nullptr;
};

// nullptr as `generic` before find_setting_records().
SettingRecord &setting_record(Setting setting);

// Finds the records of the five settings; false (and a log line) if this PostgreSQL does
// not have them.
bool find_setting_records();

const char *setting_name(Setting setting);

// The value of a setting's variable.  Async-signal-safe.
std::int32_t variable_value(Setting setting);

// Values and sources of the five settings in postgresql.conf and on the command line.
struct ConfiguredValues
{
	SettingValues value;
	std::array<GucSource, setting_count> source;
};

inline void bound(ConfiguredValues &configured)
{
	for (std::int32_t &value : configured.value)
		value = Max(value, 0);
	for (GucSource &source : configured.source)
		source = Min(source, PGC_S_ARGV);
}

// Those, in a process that has no settings of its own (the worker).
ConfiguredValues configured_values();

// The kernel's default of a setting in this process: that of the connection, if
// set_system_default() was called, else that of the network namespace.  0 for
// user_timeout and client_check.
std::int32_t system_default(Setting setting);
void set_system_default(Setting setting, std::int32_t value);

// A value with 0 resolved to the default of this process's connection; 0 where
// set_system_default() was not called.  Async-signal-safe.
std::int32_t resolved(Setting setting, std::int32_t value);

} // namespace guard::pg
