#include "model/regex_size.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace guard
{
namespace
{

constexpr std::uint64_t most = UINT32_MAX;

std::uint64_t product(std::uint64_t a, std::uint64_t b) noexcept
{
	return std::min(a * b, most);
}

bool is_digit(char c) noexcept
{
	return c >= '0' && c <= '9';
}

bool is_letter(char c) noexcept
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// How often a bound, which follows its "{", has its atom repeated: the greatest number,
// at least 1; without an upper one ("{m,}") once more, because {1,} is the same as +, and
// times `loop`.
std::uint64_t repetitions(const char *p, std::uint64_t loop) noexcept
{
	std::uint64_t greatest = 1;
	std::uint64_t number = 0;
	bool is_open = false;
	for (; is_digit(*p) || *p == ','; ++p)
	{
		is_open = *p == ',';
		number = is_open ? 0 : std::min(number * 10 + (*p - '0'), most);
		greatest = std::max(greatest, number);
	}
	return is_open ? product(greatest + 1, loop) : greatest;
}

// After the escape that begins at p.  "\c" takes the next character, whatever it is.
const char *after_escape(const char *p) noexcept
{
	if (p[1] == '\0')
		return p + 1;
	return p[1] == 'c' && p[2] != '\0' ? p + 3 : p + 2;
}

// After the "]" that ends the bracket expression which begins at p.
const char *after_bracket(const char *p) noexcept
{
	++p;
	if (*p == '^')
		++p;
	if (*p == ']')
		++p;
	while (*p != '\0' && *p != ']')
	{
		// [:class:], [.element.], [=class=]
		if (*p == '[' && (p[1] == ':' || p[1] == '.' || p[1] == '='))
		{
			const char kind = p[1];
			p += 2;
			while (*p != '\0' && !(*p == kind && p[1] == ']'))
				++p;
			p += *p != '\0' ? 2 : 0;
		}
		else
			p = *p == '\\' ? after_escape(p) : p + 1;
	}
	return *p == ']' ? p + 1 : p;
}

// After the ")" that ends the comment which begins at p.
const char *after_comment(const char *p) noexcept
{
	while (*p != '\0' && *p != ')')
		++p;
	return *p == ')' ? p + 1 : p;
}

// Sizes of the group that is being read and of those around it.
struct Groups
{
	// A pattern has at most 255 bytes.  Deeper nesting is counted in the innermost.
	std::array<std::uint64_t, 256> size{};
	std::size_t depth = 0;
	std::uint64_t last_atom = 0;

	void add(std::uint64_t atom) noexcept
	{
		last_atom = atom;
		size[depth] = std::min(size[depth] + atom, most);
	}
	void open() noexcept
	{
		if (depth + 1 < size.size())
			size[++depth] = 0;
	}
	void close(std::uint64_t least) noexcept
	{
		if (depth == 0)
			return;
		const std::uint64_t group = std::max(size[depth], least);
		--depth;
		add(group);
	}
	void repeat(std::uint64_t times) noexcept
	{
		const std::uint64_t repeated = product(last_atom, times);
		size[depth] = std::min(size[depth] - last_atom + repeated, most);
		last_atom = repeated;
	}
};

// What an atom counts.
struct Weights
{
	std::uint64_t character; // likewise a bracket expression and an escape
	std::uint64_t line;      // the beginning or the end: ^ $ \A \Z
	std::uint64_t word;      // the same of a word: \m \M \y \Y [[:<:]] [[:>:]]
	std::uint64_t loop; // by how much that is multiplied which may repeat without end
};

std::uint64_t weight_of_escape(char escape, const Weights &weights) noexcept
{
	constexpr std::string_view line = "AZ";
	constexpr std::string_view word = "mMyY<>";
	return line.find(escape) != line.npos   ? weights.line
	       : word.find(escape) != word.npos ? weights.word
	                                        : weights.character;
}

std::uint64_t weight_of_bracket(const char *p, const Weights &weights) noexcept
{
	const bool is_word =
		std::strncmp(p, "[[:<:]]", 7) == 0 || std::strncmp(p, "[[:>:]]", 7) == 0;
	return is_word ? weights.word : weights.character;
}

std::uint32_t weigh(const char *pattern, const Weights &weights) noexcept
{
	Groups groups;
	for (const char *p = pattern; *p != '\0';)
		switch (*p)
		{
		case '(':
			if (p[1] == '?' && p[2] == '#')
			{
				p = after_comment(p);
				break;
			}
			groups.open();
			++p;
			break;
		case ')':
			groups.close(weights.character);
			++p;
			break;
		case '[':
			groups.add(weight_of_bracket(p, weights));
			p = after_bracket(p);
			break;
		case '^':
		case '$':
			groups.add(weights.line);
			++p;
			break;
		case '+': // (x)+ is compiled as (?:x)*(x)
			groups.repeat(2 * weights.loop);
			++p;
			break;
		case '*':
			groups.repeat(weights.loop);
			groups.add(weights.character);
			++p;
			break;
		case '{':
			++p;
			if (!is_digit(*p)) // an ordinary character
			{
				groups.add(weights.character);
				break;
			}
			groups.repeat(repetitions(p, weights.loop));
			while (*p != '\0' && *p != '}')
				++p;
			p += *p != '\0';
			break;
		case '\\':
			groups.add(weight_of_escape(p[1], weights));
			p = after_escape(p);
			break;
		default:
			groups.add(weights.character);
			++p;
		}
	while (groups.depth > 0)
		groups.close(weights.character);
	return static_cast<std::uint32_t>(groups.size[0]);
}

} // namespace

bool has_plain_beginning(const char *pattern) noexcept
{
	if (std::strncmp(pattern, "***", 3) == 0)
		return false;
	if (pattern[0] != '(' || pattern[1] != '?')
		return true;
	const char *options = pattern + 2;
	while (*options == 'c' || *options == 'i')
		++options;
	return options == pattern + 2 ? !is_letter(*options) : *options == ')';
}

std::uint32_t regex_size(const char *pattern) noexcept
{
	return weigh(pattern, {1, 1, 1, 1});
}

std::uint32_t regex_constraints(const char *pattern) noexcept
{
	return weigh(pattern, {0, 1, 2, 8});
}

} // namespace guard
