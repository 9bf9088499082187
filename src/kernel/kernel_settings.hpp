// The kernel's defaults and limits that decide when the connection of a silent peer is
// ended, and how many connections there can be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace guard
{

struct KernelSetting
{
	std::string name;                   // the kernel's name for it
	std::optional<std::string> setting; // as the kernel prints it; none: not available
	std::string unit;                   // "" for a plain count or a text
	std::string source;                 // the path it was read from, without root
	std::string description;            // ends with the reason where there is no setting
};

// All of them, always in the same order.  root: put before each path ("": the system's;
// the kernel's release is always the running one's).  Throws std::bad_alloc only.
std::vector<KernelSetting> kernel_settings(const std::string &root = "");

// The same for callers that must not get an exception, in one piece of memory that the
// caller has to free(); nullptr if there is not enough memory.  setting and unit: nullptr
// for none.
struct PlainKernelSetting
{
	const char *name;
	const char *setting;
	const char *unit;
	const char *source;
	const char *description;
};
PlainKernelSetting *plain_kernel_settings(std::size_t *count) noexcept;

// A sysctl of one whole number, by its path below /proc/sys ("net/ipv4/tcp_retries2");
// nothing where the kernel does not have it or it may not be read.
std::optional<std::int64_t> integer_sysctl(const std::string &path,
                                           const std::string &root = "");

// The same, or `fallback`; for callers that must not get an exception.
std::int64_t integer_sysctl_or(const char *path, std::int64_t fallback) noexcept;

} // namespace guard
