// What a session gets from policies, its own choices and PostgreSQL.
#pragma once

#include "pg/postgres.hpp"

#include "model/effective.hpp"
#include "pg/functions/rows.hpp"

namespace guard::pg
{

// Settings that are no TCP options, dead_after and stall_timeout count on TCP only.
struct Outcome
{
	bool tcp; // false: only client_check has a value
	bool keepalive;
	SettingValues values;       // 0 resolved to the system's default
	std::int32_t dead_after_ms; // 0: never
	std::int32_t stall_timeout_ms;
	std::int32_t log_dead_after_ms; // of policies that are log_only
	std::int32_t log_stall_timeout_ms;
	DetectionSettings detection;
};

// What stands without policies and choices: postgresql.conf and the kernel.
Basis basis_without_policies();

// `basis`: basis_without_policies(), with tcp as the session has it.
Outcome outcome_of(const ComposedSettings &composed, const Choices &choices,
                   const Basis &basis);

// What PostgreSQL has a value for, bit per item.
constexpr std::uint8_t postgres_items = (1 << (setting_count + 1)) - 1;

// What was added to a composition, bit per item.
std::uint8_t items_given(const Composition &before, const Composition &after);

// A column of keepalive_policy.
const char *item_name(int item);

// The bits as an array of column names, in the order of the columns.
Datum item_names_datum(std::uint8_t items);

// keepalive, the five settings, dead_after, stall_timeout, detects_idle, detects_busy.
template <const auto &columns>
void add_outcome(RowValues<columns> &row, const Outcome &outcome,
                 const KernelLimits &limits)
{
	const auto add_ms = [&row](std::int64_t milliseconds)
	{
		row.add(interval_datum(milliseconds));
	};
	const auto add_time_limit = [&](std::int32_t milliseconds)
	{
		if (milliseconds != 0)
			add_ms(milliseconds);
		else
			row.add_null();
	};
	const SettingValues &values = outcome.values;
	if (!outcome.tcp)
	{
		row.add_nulls(tcp_setting_count + 1);
		add_ms(values[item_of(Setting::client_check)]);
		row.add_nulls(4);
		return;
	}
	row.add(BoolGetDatum(outcome.keepalive));
	add_ms(values[item_of(Setting::keepalives_idle)] * INT64CONST(1000));
	add_ms(values[item_of(Setting::keepalives_interval)] * INT64CONST(1000));
	row.add(Int32GetDatum(values[item_of(Setting::keepalives_count)]));
	add_ms(values[item_of(Setting::user_timeout)]);
	add_ms(values[item_of(Setting::client_check)]);
	add_time_limit(outcome.dead_after_ms);
	add_time_limit(outcome.stall_timeout_ms);
	const Detection worst = detection(outcome.detection, limits);
	row.add_interval_or_null(worst.idle.latest);
	row.add_interval_or_null(worst.busy.latest);
}

} // namespace guard::pg
