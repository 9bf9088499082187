#include "model/regex_size.hpp"

#include <cstdlib>
#include <cstring>
#include <string>

#include <gtest/gtest.h>

using namespace guard;

namespace
{

TEST(RegexSize, CountsCharactersBracketsAndEscapes)
{
	EXPECT_EQ(regex_size(""), 0u);
	EXPECT_EQ(regex_size("abc"), 3u);
	EXPECT_EQ(regex_size("[a-z0-9_]b\\d"), 3u);
	EXPECT_EQ(regex_size("[]a]b"), 2u);
	EXPECT_EQ(regex_size("[^]a]b"), 2u);
	EXPECT_EQ(regex_size("[[:alpha:]_]b"), 2u);
	EXPECT_EQ(regex_size("[\\]]b"), 2u);
	EXPECT_EQ(regex_size("\\{3\\}"), 3u);
	EXPECT_EQ(regex_size("\\mapp[[:>:]]"), 5u);
	EXPECT_EQ(regex_size("[[::]]b"), 2u);
}

TEST(RegexSize, MultipliesByBounds)
{
	EXPECT_EQ(regex_size("a{3}"), 3u);
	EXPECT_EQ(regex_size("a{1,40}"), 40u);
	EXPECT_EQ(regex_size("a{40,}"), 41u);
	EXPECT_EQ(regex_size("a{1,}"), 2u);
	EXPECT_EQ(regex_size("ba{1,40}c"), 42u);
	EXPECT_EQ(regex_size("(ab){10}"), 20u);
	EXPECT_EQ(regex_size("a{2}{3}"), 6u);
	EXPECT_EQ(regex_size("[{9}]"), 1u);
}

TEST(RegexSize, MultipliesNestedBounds)
{
	EXPECT_EQ(regex_size("((a{1,40}){1,40}){1,40}x"), 64001u);
	EXPECT_EQ(regex_size("(?:(?:a{255}){255}){255}") > 16000000u, true);
	EXPECT_EQ(regex_size("(a{2}|b{3}){4}"), 24u); // with the "|"
}

TEST(RegexSize, CountsTheGroupsOfTheLongestPattern)
{
	const std::string groups(254, '(');
	EXPECT_EQ(regex_size((groups + "b(aa){3}").c_str()), 7u);
}

TEST(RegexSize, DoublesWhatIsRepeatedWithoutABound)
{
	EXPECT_EQ(regex_size("a+"), 2u);
	EXPECT_EQ(regex_size("(abc)+"), 6u);
	EXPECT_EQ(regex_size("(((abc)+)+){1,}"), 24u);
	EXPECT_EQ(regex_size("(abc)*"), 4u) << "it is not copied";
}

// What they hide from PostgreSQL's reader hides nothing from ours.
TEST(RegexSize, KnowsTheEndOfEscapesAndComments)
{
	EXPECT_EQ(regex_size("[\\c][](a{9}){9}"), 82u);
	EXPECT_EQ(regex_size("(a{9}\\c)b){9}"), 99u);
	EXPECT_EQ(regex_size("\\c"), 1u);
	EXPECT_EQ(regex_size("(?#[)(a{9}){9}"), 81u);
	EXPECT_EQ(regex_size("a(?#b){9}"), 9u);
	EXPECT_EQ(regex_size("a(?#"), 1u);
	EXPECT_EQ(regex_size("[(?#]b[)]"), 3u);
}

TEST(RegexBeginning, IsPlainWithoutOptionsThatChangeHowItIsRead)
{
	for (const char *pattern : {"", "a", "(a)", "(?:a)", "(?=a)", "(?i)a", "(?c)a",
	                            "(?ci)a", "a(?b)", "**", "(?#b)"})
		EXPECT_TRUE(has_plain_beginning(pattern)) << pattern;
	for (const char *pattern :
	     {"(?b)a", "(?e)a", "(?q)a", "(?x)a", "(?n)a", "(?ib)a", "(?bi)a", "(?i", "(?Z)",
	      "***:a", "***=a", "***:(?b)a", "***"})
		EXPECT_FALSE(has_plain_beginning(pattern)) << pattern;
}

TEST(RegexConstraints, CountLinesOnceAndWordsTwice)
{
	EXPECT_EQ(regex_constraints("app_[0-9]{3}(a|b)*\\d\\["), 0u);
	EXPECT_EQ(regex_constraints("^app$|\\Ashop\\Z"), 4u);
	EXPECT_EQ(regex_constraints("\\mapp\\M"), 4u);
	EXPECT_EQ(regex_constraints("\\yapp\\Y"), 4u);
	EXPECT_EQ(regex_constraints("[[:<:]]app[[:>:]]"), 4u);
	EXPECT_EQ(regex_constraints("[$^][^$]\\^\\$"), 0u);
}

TEST(RegexConstraints, MultiplyByBounds)
{
	EXPECT_EQ(regex_constraints("(^|\\y){4}"), 12u);
	EXPECT_EQ(regex_constraints("((\\y|a){4}){5}$"), 41u);
	EXPECT_EQ(regex_constraints("((\\y|a)*b)*"), 128u);
	EXPECT_EQ(regex_constraints("(((\\y|a)+)+){8}"), 4096u);
	EXPECT_EQ(regex_constraints("(\\y|a){2,}"), 48u);
	EXPECT_EQ(regex_constraints("^a*b+(c|d)*$"), 2u);
	EXPECT_EQ(regex_constraints("(a){9}(^)"), 1u);
	EXPECT_EQ(regex_constraints("{,\\y{,\\y"), 4u) << "braces without a bound";
}

TEST(RegexSize, DoesNotOverflow)
{
	std::string pattern(60, '(');
	pattern += "a";
	for (int i = 0; i < 60; ++i)
		pattern += "{99999999999999999999})";
	EXPECT_EQ(regex_size(pattern.c_str()), UINT32_MAX);
}

TEST(RegexSize, ReadsInvalidPatternsToTheirEnd)
{
	for (const char *pattern : {"(", ")", "[", "[^", "[[:", "[[:a", "{", "a{", "a{9",
	                            "\\", "(((", "a{,", "[\\", "))((", "[a-"})
		EXPECT_LE(regex_size(pattern), 9u) << pattern;
	EXPECT_LE(regex_size(std::string(1000, '(').c_str()), 1000u);
	// At the end of its memory.
	char *backslash = strdup("\\");
	EXPECT_EQ(regex_size(backslash), 1u);
	free(backslash);
}

} // namespace
