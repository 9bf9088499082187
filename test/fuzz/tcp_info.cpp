// A struct tcp_info of any length and with any bytes.
#include "input.hpp"

#include "kernel/tcp_info.hpp"

using namespace guard;
using namespace guard::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
	Input input(data, size);
	const auto layout =
		input.flag() ? TcpInfoLayout::linux_7_0 : TcpInfoLayout::linux_6_18;
	const auto bytes = input.rest();
	const TcpInfo info = decode_tcp_info(bytes.data(), bytes.size(), layout);
	require(info.received <= sizeof(TcpInfo));
	for (const TcpInfoField &field : tcp_info_fields)
	{
		const auto value = value_of(info, field);
		require(value.has_value() == has_field(info, field));
		if (value && field.width > 0)
			require(*value >> field.width == 0);
	}
	tcp_info_layout(std::string(bytes.begin(), bytes.end()).c_str());
	return 0;
}
