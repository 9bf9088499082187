#include "pg/postgres.hpp"

#include "pg/endpoint.hpp"

#include <netinet/in.h>

namespace guard::pg
{

Endpoint endpoint_of(const SockAddr &address)
{
	Endpoint endpoint = {};
	if (address.addr.ss_family == AF_INET)
	{
		const auto &v4 = reinterpret_cast<const sockaddr_in &>(address.addr);
		endpoint.family = 4;
		endpoint.port = ntohs(v4.sin_port);
		memcpy(endpoint.address.data(), &v4.sin_addr, sizeof(v4.sin_addr));
	}
	else if (address.addr.ss_family == AF_INET6)
	{
		const auto &v6 = reinterpret_cast<const sockaddr_in6 &>(address.addr);
		endpoint.family = 6;
		endpoint.port = ntohs(v6.sin6_port);
		memcpy(endpoint.address.data(), &v6.sin6_addr, sizeof(v6.sin6_addr));
	}
	return endpoint;
}

} // namespace guard::pg
