// What users write into a policy: regular expressions and names, any text.
#include "input.hpp"

#include "model/near_name.hpp"
#include "model/regex_size.hpp"

using namespace guard;
using namespace guard::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	const std::string pattern = input.text(255);
	const std::uint32_t once = regex_size(pattern.c_str());
	// Each repetition of a group counts at least as much as the group.
	if (pattern.size() < 200 && once < 1000)
		require(regex_size((pattern + "x").c_str()) + 1 >= once);

	const std::string wanted = input.text(name_bytes - 1);
	NearName search = search_near_name(wanted.c_str());
	while (!input.empty())
	{
		const std::string name = input.text(name_bytes - 1);
		offer_name(search, name.c_str());
		require(search.best[0] == '\0' || std::strlen(search.best) < name_bytes);
	}
	return 0;
}
