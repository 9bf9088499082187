#include "model/cover.hpp"

#include <algorithm>
#include <cstring>

namespace guard
{

bool covers(const Network &outer, const Network &inner) noexcept
{
	if (outer.family == 0)
		return true;
	if (outer.family != inner.family || outer.bits > inner.bits)
		return false;
	const unsigned bits = std::min<unsigned>(outer.bits, 128);
	const unsigned bytes = bits / 8;
	const unsigned rest = bits % 8;
	return std::memcmp(outer.address.data(), inner.address.data(), bytes) == 0 &&
	       (rest == 0 ||
	        (outer.address[bytes] ^ inner.address[bytes]) >> (8 - rest) == 0);
}

bool covers(BackendKind outer, BackendKind inner) noexcept
{
	return outer == BackendKind::any || outer == inner;
}

} // namespace guard
