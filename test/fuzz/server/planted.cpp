// A fault that must be found: whether libFuzzer and AddressSanitizer work in a backend.
#include "target.hpp"

namespace guard::pg::fuzz
{
namespace
{

void begin() {}

void run(Input &input)
{
	char copy[16] = {};
	const auto from = input.any<std::uint8_t>();
	if (input.any<char>() == 'b' && input.any<char>() == 'u' && input.any<char>() == 'g')
		require(static_cast<volatile char *>(copy)[from] != 'b');
}

} // namespace

extern const Target planted_target = {"planted", false, begin, run};

} // namespace guard::pg::fuzz
