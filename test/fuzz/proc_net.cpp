// Lines of /proc/net/tcp: any text.
#include "input.hpp"

#include "kernel/proc_net.hpp"

#include <string_view>

using namespace guard;
using namespace guard::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	const long ticks = input.flag() ? 100 : 1000;
	const auto bytes = input.rest();
	const std::string_view line(reinterpret_cast<const char *>(bytes.data()),
	                            bytes.size());
	SocketFacts facts;
	const bool read = parse_proc_net_line(line, ticks, facts);
	require(read == facts.found);
	if (read)
		require(facts.id.local.family == facts.id.remote.family &&
		        (facts.id.local.family == 4 || facts.id.local.family == 6));
	return 0;
}
