// Regular expressions of policies in PostgreSQL's engine: what a policy may have takes
// bounded time to refuse, to compile and to match.
#include "target.hpp"

#include "pg/policy/matching.hpp"

#include <cstdio>
#include <ctime>

namespace guard::pg::fuzz
{
namespace
{

double cpu_ms()
{
	timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

// Stops if it took too long since `start`, and reports the longest times.
void check_time(const char *what, const char *pattern, double start, double limit,
                double *longest)
{
	const double ms = cpu_ms() - start;
	if (ms > 1.5 * *longest)
		fprintf(stderr, "longest to %s: %.1f ms, %s\n", what, *longest = ms, pattern);
	require(ms < limit);
}

// Any bytes, or what expressions are made of.
const char *any_pattern(Input &input)
{
	constexpr const char *parts[] = {
		"(",  ")",     "(?:",   "(?=",  "(?!",  "|",   "*",   "+",       "?",
		"*?", "{1,9}", "{0,}",  "{2}",  "{,",   "^",   "$",   ".",       "[a-z]",
		"[^", "]",     "[[:",   ":]]",  "\\",   "\\1", "\\d", "\\m",     "\\y",
		"a",  "b",     "a{99}", "(?i)", "***=", "_",   "[a-", "[[.a.]]", "\\u0061",
		")+", "{1,}",  "(?#",   "\\c",  "(?b)", "\\{", "\\(", "(\\y|a)", "[\\c]"};
	if (input.flag())
		return any_bytes(input, pattern_bytes - 1);
	auto *pattern = static_cast<char *>(palloc0(pattern_bytes));
	for (int left = input.between(0, 60); left > 0 && !input.empty(); left--)
		strlcat(pattern, parts[input.any<std::uint8_t>() % lengthof(parts)],
		        pattern_bytes);
	return pattern;
}

void begin() {}

void run(Input &input)
{
	static double longest_check = 1;
	static double longest_match = 1;
	const char *pattern = any_pattern(input);
	double start = cpu_ms();
	const char *problem = regex_problem(pattern);
	check_time("check", pattern, start, 2000, &longest_check);
	if (problem != nullptr)
	{
		require(problem[0] != '\0');
		return;
	}
	Policy policy = {};
	strlcpy(policy.database, pattern, pattern_bytes);
	const Rule rule =
		make_rule(policy, PatternKind::regex, PatternKind::any, BackendKind::any, {});
	const char *name = any_bytes(input, name_bytes - 1);
	const Connection connection =
		make_connection(name, "", 0, nullptr, BackendKind::client);
	start = cpu_ms();
	const bool agrees = postgres_agrees(rule, policy, connection, InvalidOid);
	check_time("match", pattern, start, 200, &longest_match);
	require(agrees == postgres_agrees(rule, policy, connection, InvalidOid));
}

} // namespace

extern const Target regex_target = {"regex", false, begin, run};

} // namespace guard::pg::fuzz
