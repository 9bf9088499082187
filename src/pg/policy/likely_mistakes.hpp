// Values of a policy that are valid and most likely a mistake.
#pragma once

#include "pg/postgres.hpp"

#include "pg/policy/row.hpp"

namespace guard::pg
{

enum class MistakeKind
{
	never_matches, // the policy, because of a name
	no_effect,     // nothing is set, or nothing of it is in force
	value,         // of one setting
	probes,        // of settings that belong together; other policies may give the rest
};

struct LikelyMistake
{
	MistakeKind kind;
	const char *problem; // as an error message: 'role "App" does not exist'
	const char *hint;    // a sentence, with the likely intent; may be nullptr
	const char *change;  // assignments for UPDATE ... SET with which it is gone
};

constexpr int most_mistakes = 16;

struct LikelyMistakes
{
	int count;
	LikelyMistake found[most_mistakes];
};

// How many times a name that is near one which does not exist may still be looked for,
// each time among all roles or databases.
constexpr int most_name_searches = 3;

// How many warnings one command gives.
constexpr int most_warnings = 20;

// Palloc'd texts.  Counts `searches` down.
LikelyMistakes likely_mistakes(const Rule &rule, const Policy &policy, int *searches);

// Sends a WARNING for each of them.  Looks for near names a few times in each command.
void warn_of_likely_mistakes(const PolicyRow &row);

} // namespace guard::pg
