// What a policy is: plain, fixed-width, trivially copyable data that lives in
// shared memory as it is.  Nothing here depends on PostgreSQL.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

namespace guard
{

// Bytes of a name including the final NUL: PostgreSQL's NAMEDATALEN.
constexpr int name_bytes = 64;

// Bytes of a role or database pattern including the final NUL.
constexpr int pattern_bytes = 256;

// The PostgreSQL settings that a policy can give.  The value is in the setting's own
// unit.
enum class Setting : std::uint8_t
{
	keepalives_idle,     // seconds, 0..32767, 0: the system's default
	keepalives_interval, // seconds, 0..32767, 0: the system's default
	keepalives_count,    // probes, 0..127, 0: the system's default
	user_timeout,        // milliseconds, 0..INT_MAX, 0: off
	client_check,        // milliseconds, 0..INT_MAX, 0: off
};
constexpr int setting_count = 5;
// The first tcp_setting_count settings are socket options: TCP only.
constexpr int tcp_setting_count = 4;

using SettingValues = std::array<std::int32_t, setting_count>;

// All that a policy can give: the PostgreSQL settings with their own numbers, and three
// more.
constexpr int item_keepalive = setting_count;
constexpr int item_dead_after = setting_count + 1;
constexpr int item_stall_timeout = setting_count + 2;
constexpr int item_count = setting_count + 3;

constexpr int item_of(Setting setting) noexcept
{
	return static_cast<int>(setting);
}

enum class Enforcement : std::uint8_t
{
	by_default, // a session may override
	ceiling,    // a session may only be stricter
	locked,     // a session may not change it
};

// As in keepalive_policy.
constexpr const char *enforcement_name(Enforcement enforcement) noexcept
{
	switch (enforcement)
	{
	case Enforcement::by_default:
		return "default";
	case Enforcement::ceiling:
		return "ceiling";
	case Enforcement::locked:
		return "locked";
	}
	return nullptr;
}

enum class BackendKind : std::uint8_t
{
	any,
	client,
	replication, // walsenders, physical and logical
};

// What one policy gives.  A value counts where has() is true; 0 is a value.
struct Settings
{
	std::array<std::int32_t, item_count> value; // SO_KEEPALIVE: 0, 1; the last two: ms
	std::uint8_t given;                         // bit per item
	Enforcement enforcement;
	bool final;    // later policies give nothing
	bool log_only; // dead_after and stall_timeout end nothing

	bool has(int item) const noexcept { return (given >> item) & 1; }
	bool has(Setting s) const noexcept { return has(item_of(s)); }
	std::int32_t get(Setting s) const noexcept { return value[item_of(s)]; }
	void give(int item, std::int32_t v) noexcept
	{
		value[item] = v;
		given |= 1 << item;
	}
};

// How a role or database pattern is to be read.
enum class PatternKind : std::uint8_t
{
	any,   // NULL in the table
	name,  // equal, byte by byte
	group, // "+name": member of that role, directly or not (roles only)
	regex, // "/regex": PostgreSQL's advanced regular expressions
};

// An IP network in network byte order; IPv4 uses the first four bytes.
struct Network
{
	std::uint8_t family; // 0: any client, Unix sockets too; 4; 6
	std::uint8_t bits;   // prefix length: 0..32 or 0..128
	std::array<std::uint8_t, 16> address;
};

// Which connections a policy is for.  Stored apart from the strings, and small, because
// a starting backend tests all rules.
struct Rule
{
	std::uint64_t database_hash; // of the name, where database is `name`
	std::uint64_t role_hash;     // of the name, where role is `name`
	PatternKind database;
	PatternKind role;
	BackendKind backend;
	bool enabled; // only these are matched; the others are there to be explained
	Network client;
};

// A policy as the worker compiled it, next to its Rule.
struct Policy
{
	std::int32_t priority;
	Settings settings;
	char name[name_bytes];
	char database[pattern_bytes]; // without the "/"; "" for any
	char role[pattern_bytes];     // without the "/" or "+"; "" for any
};

static_assert(std::has_unique_object_representations_v<Settings>); // compared as bytes
static_assert(std::is_trivially_copyable_v<Rule> && sizeof(Rule) <= 64);
static_assert(std::is_trivially_copyable_v<Policy>);

} // namespace guard
