// A reply of sock_diag: any bytes.
#include "input.hpp"

#include "kernel/inet_diag.hpp"

using namespace guard;
using namespace guard::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	const auto layout =
		input.flag() ? TcpInfoLayout::linux_7_0 : TcpInfoLayout::linux_6_18;
	const auto payload = input.rest();
	SocketFacts facts;
	const bool read = parse_diag_reply(payload.data(), payload.size(), layout, facts);
	require(read == facts.found);
	require(facts.memory_count <= memory_figure_count);
	require(memchr(facts.congestion, 0, sizeof(facts.congestion)) != nullptr);
	require(facts.info.received <= sizeof(TcpInfo));
	if (read)
		require(is_wanted(facts.id, facts.id) &&
		        endpoint_text(facts.id.remote).text[0] != 0);
	return 0;
}
