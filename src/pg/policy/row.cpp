#include "pg/postgres.hpp"

#include "pg/policy/row.hpp"

#include "kernel/socket.hpp"
#include "model/match.hpp"
#include "pg/policy/matching.hpp"

#include <climits>

#include <sys/socket.h>

extern "C"
{
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "datatype/timestamp.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/inet.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
}

namespace guard::pg
{
namespace
{

// What it means that a table lacks a column.  The table of an older version lacks those
// that were added later, which are optional: they read as null, or as their default.
// Without a column of 1.0 that selects sessions or restrains a policy, policies would
// apply to other sessions or do more than they should, so these are required.
enum class Presence
{
	required,
	optional,
};

struct ColumnDefinition
{
	const char *name;
	Oid type;
	Presence presence;
};

// In the order of PolicyColumn.
constexpr ColumnDefinition column_definitions[policy_column_count] = {
	{"name", TEXTOID, Presence::required},
	{"priority", INT4OID, Presence::required},
	{"database", TEXTOID, Presence::required},
	{"role", TEXTOID, Presence::required},
	{"client", CIDROID, Presence::required},
	{"backend", TEXTOID, Presence::required},
	{"keepalive", BOOLOID, Presence::optional},
	{"tcp_keepalives_idle", INTERVALOID, Presence::optional},
	{"tcp_keepalives_interval", INTERVALOID, Presence::optional},
	{"tcp_keepalives_count", INT4OID, Presence::optional},
	{"tcp_user_timeout", INTERVALOID, Presence::optional},
	{"client_connection_check_interval", INTERVALOID, Presence::optional},
	{"dead_after", INTERVALOID, Presence::optional},
	{"stall_timeout", INTERVALOID, Presence::optional},
	{"enforcement", TEXTOID, Presence::optional},
	{"final", BOOLOID, Presence::required},
	{"log_only", BOOLOID, Presence::required},
	{"enabled", BOOLOID, Presence::required},
};

// The kernel's limits: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT in
// net/tcp.h; setsockopt answers EINVAL beyond them.
constexpr std::int32_t max_keepalive_seconds = 32767;
constexpr std::int32_t max_keepalive_count = 127;

// A network in IPv4-mapped form, ::ffff:a.b.c.d/96 or longer, as the IPv4 network
// that it means: PostgreSQL's IPv6 sockets have no IPv4 clients (IPV6_V6ONLY in
// StreamServerPort), so it would match nobody.
void unmap(Network &network)
{
	if (network.family != 6 || network.bits < 96 ||
	    !is_ipv4_mapped(network.address.data()))
		return;

	Network ipv4 = {};
	ipv4.family = 4;
	ipv4.bits = network.bits - 96;
	memcpy(ipv4.address.data(), network.address.data() + 12, 4);
	network = ipv4;
}

// A row on its way into a Policy.  Each take_...() stops at the first problem.
struct RowReader
{
	HeapTuple tuple;
	TupleDesc descriptor;
	const PolicyColumns &columns;
	RowProblem *problem;
	bool failed;

	bool lacks(PolicyColumn column) const
	{
		return columns.number[static_cast<int>(column)] == InvalidAttrNumber;
	}

	Datum get(PolicyColumn column, bool *is_null) const
	{
		if (lacks(column))
		{
			*is_null = true;
			return Datum(0);
		}
		return heap_getattr(tuple, columns.number[static_cast<int>(column)], descriptor,
		                    is_null);
	}

	void fail(PolicyColumn column, const char *detail, const char *hint = nullptr)
	{
		if (failed)
			return;
		failed = true;

		const ColumnDefinition &definition = column_definitions[static_cast<int>(column)];
		bool is_null;
		Datum value = get(column, &is_null);
		const char *text = "null";
		if (!is_null)
		{
			Oid output;
			bool is_varlena;
			getTypeOutputInfo(definition.type, &output, &is_varlena);
			text = psprintf("\"%s\"", OidOutputFunctionCall(output, value));
		}
		*problem = {definition.name, columns.number[static_cast<int>(column)], text,
		            detail, hint};
	}

	// Nullptr for NULL.
	const char *text_of(PolicyColumn column) const
	{
		bool is_null;
		Datum value = get(column, &is_null);
		return is_null ? nullptr : TextDatumGetCString(value);
	}

	void copy_text(PolicyColumn column, const char *value, char *to, size_t room,
	               const char *what)
	{
		if (value[0] == '\0')
			fail(column, psprintf("%s must not be empty.", what));
		else if (strlen(value) >= room)
			fail(column, psprintf("%s can be at most %zu bytes long.", what, room - 1));
		// Messages name a policy whose name is too long: by whole characters.
		strlcpy(to, value, pg_mbcliplen(value, strlen(value), room - 1) + 1);
	}

	// An interval as a multiple of `unit` microseconds from 0 to `max`.  False for
	// NULL or a problem.
	bool take_interval(PolicyColumn column, std::int64_t unit, const char *unit_name,
	                   std::int32_t max, std::int32_t *result)
	{
		bool is_null;
		Datum datum = get(column, &is_null);
		if (is_null)
			return false;

		const char *range = psprintf(
			"The value must be a whole number of %s from 0 to %d.", unit_name, max);
		const Interval *interval = DatumGetIntervalP(datum);
		std::int64_t microseconds;
		if (interval->month != 0)
			fail(column, range,
			     "Months and years have no fixed length: give days or less.");
		else if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &microseconds) ||
		         pg_add_s64_overflow(microseconds, interval->time, &microseconds) ||
		         microseconds < 0 || microseconds % unit != 0 ||
		         microseconds / unit > max)
			fail(column, range);
		else
		{
			*result = static_cast<std::int32_t>(microseconds / unit);
			return true;
		}
		return false;
	}

	void take_setting(PolicyColumn column, int item, std::int64_t unit,
	                  const char *unit_name, std::int32_t max, Settings *settings)
	{
		std::int32_t value;
		if (take_interval(column, unit, unit_name, max, &value))
			settings->give(item, value);
	}

	void take_count(Settings *settings)
	{
		bool is_null;
		Datum datum = get(PolicyColumn::tcp_keepalives_count, &is_null);
		if (is_null)
			return;
		std::int32_t count = DatumGetInt32(datum);
		if (count < 0 || count > max_keepalive_count)
			fail(PolicyColumn::tcp_keepalives_count,
			     psprintf("The value must be a number of probes from 0 to %d.",
			              max_keepalive_count));
		settings->give(item_of(Setting::keepalives_count), count);
	}

	PatternKind take_pattern(PolicyColumn column, bool groups, char *to)
	{
		const char *value = text_of(column);
		to[0] = '\0';
		if (value == nullptr)
			return PatternKind::any;

		if (value[0] == '/')
		{
			copy_text(column, value + 1, to, pattern_bytes, "A regular expression");
			if (!failed)
				if (const char *reason = regex_problem(to))
					fail(column, reason);
			return PatternKind::regex;
		}
		if (groups && value[0] == '+')
		{
			copy_text(column, value + 1, to, name_bytes, "The name of a group");
			return PatternKind::group;
		}
		copy_text(column, value, to, name_bytes, "A name");
		return PatternKind::name;
	}

	Network take_network() const
	{
		Network network = {};
		bool is_null;
		Datum datum = get(PolicyColumn::client, &is_null);
		if (!is_null)
		{
			inet *client = DatumGetInetPP(datum);
			network.family = ip_family(client) == PGSQL_AF_INET ? 4 : 6;
			network.bits = ip_bits(client);
			memcpy(network.address.data(), ip_addr(client), ip_addrsize(client));
			unmap(network);
		}
		return network;
	}

	BackendKind take_backend()
	{
		const char *value = text_of(PolicyColumn::backend);
		if (value == nullptr)
			return BackendKind::any;
		if (strcmp(value, "client") == 0)
			return BackendKind::client;
		if (strcmp(value, "replication") == 0)
			return BackendKind::replication;
		fail(PolicyColumn::backend,
		     "The value must be \"client\" or \"replication\", or null for both.");
		return BackendKind::any;
	}

	Enforcement take_enforcement()
	{
		if (lacks(PolicyColumn::enforcement))
			return Enforcement::by_default;
		const char *value = text_of(PolicyColumn::enforcement);
		if (value != nullptr)
		{
			if (strcmp(value, "default") == 0)
				return Enforcement::by_default;
			if (strcmp(value, "ceiling") == 0)
				return Enforcement::ceiling;
			if (strcmp(value, "locked") == 0)
				return Enforcement::locked;
		}
		fail(PolicyColumn::enforcement,
		     "The value must be \"default\", \"ceiling\" or \"locked\".");
		return Enforcement::by_default;
	}

	void take_keepalive(Settings *settings) const
	{
		bool is_null;
		Datum datum = get(PolicyColumn::keepalive, &is_null);
		if (!is_null)
			settings->give(item_keepalive, DatumGetBool(datum));
	}

	bool take_flag(PolicyColumn column)
	{
		bool is_null;
		Datum datum = get(column, &is_null);
		if (is_null)
			fail(column, "The value must be true or false.");
		return !is_null && DatumGetBool(datum);
	}
};

} // namespace

bool find_policy_columns(TupleDesc descriptor, PolicyColumns *columns,
                         const char **unusable)
{
	columns->missing = nullptr;
	for (int i = 0; i < policy_column_count; i++)
	{
		const ColumnDefinition &definition = column_definitions[i];
		columns->number[i] = InvalidAttrNumber;
		bool has_another_type = false;
		for (int j = 0; j < descriptor->natts; j++)
		{
			Form_pg_attribute attribute = TupleDescAttr(descriptor, j);
			if (attribute->attisdropped ||
			    strcmp(NameStr(attribute->attname), definition.name) != 0)
				continue;
			has_another_type = attribute->atttypid != definition.type;
			columns->number[i] = attribute->attnum;
		}
		const bool is_missing = columns->number[i] == InvalidAttrNumber;
		if (has_another_type || (is_missing && definition.presence == Presence::required))
		{
			*unusable = definition.name;
			return false;
		}
		if (is_missing && columns->missing == nullptr)
			columns->missing = definition.name;
	}
	return true;
}

bool read_policy_row(HeapTuple tuple, TupleDesc descriptor, const PolicyColumns &columns,
                     PolicyRow *row, RowProblem *problem)
{
	*row = {};
	RowReader reader = {tuple, descriptor, columns, problem, false};
	Policy &policy = row->policy;
	Settings &settings = policy.settings;
	bool is_null;

	const char *name = reader.text_of(PolicyColumn::name);
	if (name == nullptr)
		reader.fail(PolicyColumn::name, "A policy must have a name.");
	else
		reader.copy_text(PolicyColumn::name, name, policy.name, name_bytes,
		                 "The name of a policy");

	policy.priority = DatumGetInt32(reader.get(PolicyColumn::priority, &is_null));
	if (is_null)
		reader.fail(PolicyColumn::priority, "A policy must have a priority.");
	bool enabled = reader.take_flag(PolicyColumn::enabled);

	PatternKind database =
		reader.take_pattern(PolicyColumn::database, false, policy.database);
	PatternKind role = reader.take_pattern(PolicyColumn::role, true, policy.role);
	Network client = reader.take_network();
	BackendKind backend = reader.take_backend();

	reader.take_keepalive(&settings);
	reader.take_setting(PolicyColumn::tcp_keepalives_idle,
	                    item_of(Setting::keepalives_idle), USECS_PER_SEC, "seconds",
	                    max_keepalive_seconds, &settings);
	reader.take_setting(PolicyColumn::tcp_keepalives_interval,
	                    item_of(Setting::keepalives_interval), USECS_PER_SEC, "seconds",
	                    max_keepalive_seconds, &settings);
	reader.take_count(&settings);
	reader.take_setting(PolicyColumn::tcp_user_timeout, item_of(Setting::user_timeout),
	                    1000, "milliseconds", INT_MAX, &settings);
	reader.take_setting(PolicyColumn::client_connection_check_interval,
	                    item_of(Setting::client_check), 1000, "milliseconds", INT_MAX,
	                    &settings);
	reader.take_setting(PolicyColumn::dead_after, item_dead_after, 1000, "milliseconds",
	                    INT_MAX, &settings);
	reader.take_setting(PolicyColumn::stall_timeout, item_stall_timeout, 1000,
	                    "milliseconds", INT_MAX, &settings);
	settings.enforcement = reader.take_enforcement();
	settings.final = reader.take_flag(PolicyColumn::final_policy);
	settings.log_only = reader.take_flag(PolicyColumn::log_only);

	row->rule = make_rule(policy, database, role, backend, client);
	row->rule.enabled = enabled;
	return !reader.failed;
}

} // namespace guard::pg
