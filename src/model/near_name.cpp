#include "model/near_name.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace guard
{
namespace
{

// Case differences alone: nearer than any other difference.
constexpr int same_but_for_case = 0;

char lower(char c) noexcept
{
	return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool equal_but_for_case(const char *a, const char *b, int length) noexcept
{
	return std::equal(a, a + length, b,
	                  [](char x, char y) { return lower(x) == lower(y); });
}

// The Levenshtein distance, or `limit` if it is not below that.
int distance(const char *a, int a_length, const char *b, int b_length, int limit) noexcept
{
	if (std::abs(a_length - b_length) >= limit)
		return limit;
	int row[name_bytes];
	for (int j = 0; j <= b_length; j++)
		row[j] = j;
	for (int i = 1; i <= a_length; i++)
	{
		int diagonal = row[0];
		int least = row[0] = i;
		for (int j = 1; j <= b_length; j++)
		{
			const int replaced = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
			least = std::min(least, row[j]);
		}
		if (least >= limit)
			return limit;
	}
	return std::min(row[b_length], limit);
}

} // namespace

NearName search_near_name(const char *wanted) noexcept
{
	NearName search = {};
	search.length = static_cast<int>(strnlen(wanted, name_bytes - 1));
	memcpy(search.wanted, wanted, search.length);
	search.limit = search.length < 6 ? 2 : 3;
	return search;
}

void offer_name(NearName &search, const char *name) noexcept
{
	const int length = static_cast<int>(strnlen(name, name_bytes - 1));
	const int away =
		length == search.length && equal_but_for_case(name, search.wanted, length)
			? same_but_for_case
			: distance(search.wanted, search.length, name, length, search.limit);
	// If every byte was replaced, the names have nothing in common.
	if (away >= search.limit || away >= search.length)
		return;
	search.limit = away;
	memcpy(search.best, name, length);
	search.best[length] = '\0';
}

} // namespace guard
