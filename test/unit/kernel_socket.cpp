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

TEST(SameEndpoint, ComparesFamilyAddressAndPort)
{
	const auto same = [](const char *a, const char *b)
	{
		return same_endpoint(endpoint(a, 5432), endpoint(b, 5432));
	};
	EXPECT_TRUE(same("192.0.2.1", "192.0.2.1"));
	EXPECT_FALSE(same("192.0.2.1", "192.0.2.2"));
	EXPECT_TRUE(same("192.0.2.1", "::ffff:192.0.2.1"));
	EXPECT_TRUE(same("2001:db8::1", "2001:db8::1"));
	EXPECT_FALSE(same("2001:db8::1", "2001:db8::2"));
	EXPECT_FALSE(same("2001:db8:1::1", "2001:db8::1"));
	EXPECT_FALSE(same("0.0.0.0", "::"));
	EXPECT_FALSE(same_endpoint(endpoint("192.0.2.1", 1), endpoint("192.0.2.1", 2)));

	// What follows an IPv4 address is not a part of it.
	Endpoint other = endpoint("192.0.2.1", 5432);
	other.address[4] = 1;
	EXPECT_TRUE(same_endpoint(endpoint("192.0.2.1", 5432), other));
}

} // namespace
