// Takes values from the bytes of a fuzzer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace guard::fuzz
{

class Input
{
  public:
	Input(const std::uint8_t *data, std::size_t size)
		: all_(data), size_(size), data_(data), left_(size)
	{
	}

	// A value of any bytes; zeros at the end of the input.  Not for a bool or an enum.
	template <typename T> T any()
	{
		static_assert(std::is_trivially_copyable_v<T> && !std::is_same_v<T, bool> &&
		              !std::is_enum_v<T>);
		T value{};
		const std::size_t n = left_ < sizeof(T) ? left_ : sizeof(T);
		std::memcpy(static_cast<void *>(&value), data_, n);
		data_ += n;
		left_ -= n;
		return value;
	}

	// At least `least`, at most `most`.
	template <typename T> T between(T least, T most)
	{
		const auto range = static_cast<std::uint64_t>(most - least) + 1;
		const auto value = any<std::uint64_t>();
		return static_cast<T>(least + static_cast<T>(range == 0 ? value : value % range));
	}

	bool flag() { return (any<std::uint8_t>() & 1) != 0; }

	// Bytes before the next NUL, at most `most` of them.
	std::string text(std::size_t most)
	{
		std::string result;
		while (left_ > 0 && result.size() < most)
		{
			const auto byte = any<char>();
			if (byte == '\0')
				break;
			result += byte;
		}
		return result;
	}

	// All that is left, in a block of exactly this size, so that the sanitizers see
	// whatever reads beyond it.
	std::vector<std::uint8_t> rest()
	{
		std::vector<std::uint8_t> bytes(data_, data_ + left_);
		data_ += left_;
		left_ = 0;
		return bytes;
	}

	bool empty() const { return left_ == 0; }

	// True for one in 1024 inputs.  What takes long may depend on it: libFuzzer cannot
	// have more of such inputs, because no part of an input decides it.
	bool rarely() const
	{
		std::uint64_t digest = 14695981039346656037U; // FNV-1a
		for (std::size_t i = 0; i < size_; ++i)
			digest = (digest ^ all_[i]) * 1099511628211U;
		return digest >> 54 == 0;
	}

  private:
	const std::uint8_t *all_;
	std::size_t size_;
	const std::uint8_t *data_;
	std::size_t left_;
};

// Ends the fuzzer, which then writes the input to a file.
inline void require(bool condition, const char *file = __builtin_FILE(),
                    int line = __builtin_LINE())
{
	if (condition)
		return;
	std::fprintf(stderr, "%s:%d: not as required\n", file, line);
	std::abort();
}

} // namespace guard::fuzz
