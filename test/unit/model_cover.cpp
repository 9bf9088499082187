#include "model/cover.hpp"

#include <gtest/gtest.h>

using namespace guard;

namespace
{

constexpr Network everybody{};

Network ipv4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d, int bits)
{
	Network network{};
	network.family = 4;
	network.bits = static_cast<std::uint8_t>(bits);
	network.address[0] = a;
	network.address[1] = b;
	network.address[2] = c;
	network.address[3] = d;
	return network;
}

Network ipv6(std::uint8_t first, std::uint8_t last, int bits)
{
	Network network{};
	network.family = 6;
	network.bits = static_cast<std::uint8_t>(bits);
	network.address[0] = first;
	network.address[15] = last;
	return network;
}

TEST(Cover, WithoutANetworkCoversEverything)
{
	EXPECT_TRUE(covers(everybody, everybody));
	EXPECT_TRUE(covers(everybody, ipv4(0, 0, 0, 0, 0)));
	EXPECT_TRUE(covers(everybody, ipv6(0, 0, 0)));
}

// It does not cover Unix sockets.
TEST(Cover, OfANetworkDoesNotCoverAPolicyWithoutOne)
{
	EXPECT_FALSE(covers(ipv4(0, 0, 0, 0, 0), everybody));
	EXPECT_FALSE(covers(ipv6(0, 0, 0), everybody));
}

TEST(Cover, OfAFamilyCoversThatFamilyOnly)
{
	EXPECT_TRUE(covers(ipv4(0, 0, 0, 0, 0), ipv4(10, 0, 0, 0, 8)));
	EXPECT_TRUE(covers(ipv6(0, 0, 0), ipv6(0xfd, 1, 128)));
	EXPECT_FALSE(covers(ipv4(0, 0, 0, 0, 0), ipv6(0, 0, 0)));
	EXPECT_FALSE(covers(ipv6(0, 0, 0), ipv4(10, 0, 0, 0, 8)));
}

TEST(Cover, OfAPrefixCoversLongerPrefixes)
{
	EXPECT_TRUE(covers(ipv4(10, 1, 2, 3, 32), ipv4(10, 1, 2, 3, 32)));
	EXPECT_FALSE(covers(ipv4(10, 1, 2, 3, 32), ipv4(10, 1, 2, 2, 32)));
	EXPECT_FALSE(covers(ipv4(10, 1, 2, 0, 24), ipv4(10, 1, 0, 0, 16)));
	EXPECT_TRUE(covers(ipv4(10, 1, 0, 0, 16), ipv4(10, 1, 2, 0, 24)));
	EXPECT_FALSE(covers(ipv4(10, 1, 0, 0, 16), ipv4(10, 2, 2, 0, 24)));
	EXPECT_TRUE(covers(ipv4(10, 0, 0, 0, 13), ipv4(10, 7, 0, 0, 16)));
	EXPECT_FALSE(covers(ipv4(10, 0, 0, 0, 13), ipv4(10, 8, 0, 0, 16)));
	EXPECT_TRUE(covers(ipv4(10, 0, 0, 0, 9), ipv4(10, 127, 0, 0, 16)));
	EXPECT_FALSE(covers(ipv4(10, 0, 0, 0, 9), ipv4(10, 128, 0, 0, 16)));
	EXPECT_FALSE(covers(ipv6(0xfd, 2, 128), ipv6(0xfd, 3, 128)));
	EXPECT_TRUE(covers(ipv6(0xfd, 2, 127), ipv6(0xfd, 3, 128)));
}

// Networks of damaged shared memory.
TEST(Cover, OfAPrefixThatIsTooLongReadsNoFurtherThanTheAddress)
{
	EXPECT_TRUE(covers(ipv6(0xfd, 2, 150), ipv6(0xfd, 2, 150)));
	EXPECT_TRUE(covers(ipv6(0xfd, 2, 255), ipv6(0xfd, 2, 255)));
	EXPECT_FALSE(covers(ipv6(0xfd, 2, 255), ipv6(0xfd, 3, 255)));
}

TEST(Cover, DependsOnTheBackendKind)
{
	EXPECT_TRUE(covers(BackendKind::any, BackendKind::any));
	EXPECT_TRUE(covers(BackendKind::any, BackendKind::replication));
	EXPECT_TRUE(covers(BackendKind::client, BackendKind::client));
	EXPECT_FALSE(covers(BackendKind::client, BackendKind::any));
	EXPECT_FALSE(covers(BackendKind::client, BackendKind::replication));
}

} // namespace
