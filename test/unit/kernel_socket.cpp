#include "kernel/socket.hpp"

#include <arpa/inet.h>
#include <cstring>
#include <string>

#include <gtest/gtest.h>

using namespace guard;

namespace
{

Endpoint endpoint(const char *address, std::uint16_t port)
{
	Endpoint end{};
	end.port = port;
	end.family = std::strchr(address, ':') ? 6 : 4;
	EXPECT_EQ(
		inet_pton(end.family == 4 ? AF_INET : AF_INET6, address, end.address.data()), 1);
	return end;
}

std::string text(const Endpoint &end)
{
	return endpoint_text(end).text;
}

TEST(EndpointText, TellsAnAddressFromItsPort)
{
	EXPECT_EQ(text(endpoint("192.0.2.1", 5432)), "192.0.2.1:5432");
	EXPECT_EQ(text(endpoint("2001:db8::1", 5432)), "[2001:db8::1]:5432");
	EXPECT_EQ(text(endpoint("::1", 1)), "[::1]:1");
}

TEST(EndpointText, ShowsAnIpv4MappedAddressAsIpv4)
{
	EXPECT_EQ(text(endpoint("::ffff:192.0.2.1", 65535)), "192.0.2.1:65535");
}

TEST(EndpointText, NamesAUnixSocketLocal)
{
	EXPECT_EQ(text(Endpoint{}), "[local]");
}

TEST(EndpointText, HasRoomForTheLongestAddress)
{
	EXPECT_EQ(text(endpoint("1111:2222:3333:4444:5555:6666:7777:8888", 65535)),
	          "[1111:2222:3333:4444:5555:6666:7777:8888]:65535");
}

} // namespace
