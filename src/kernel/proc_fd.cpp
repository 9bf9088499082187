#include "kernel/proc_fd.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <memory>
#include <optional>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

namespace guard
{

namespace
{

struct CloseDirectory
{
	void operator()(DIR *directory) const noexcept { closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

template <typename T> std::optional<T> decimal(std::string_view text) noexcept
{
	T value;
	const auto [end, error] =
		std::from_chars(text.data(), text.data() + text.size(), value);
	if (error != std::errc() || end != text.data() + text.size())
		return std::nullopt;
	return value;
}

// The inode of "socket:[123]" (the kernel's sockfs_dname()).
std::optional<std::uint32_t> socket_inode(std::string_view link) noexcept
{
	constexpr std::string_view prefix = "socket:[";
	if (link.substr(0, prefix.size()) != prefix || link.back() != ']')
		return std::nullopt;
	link.remove_prefix(prefix.size());
	link.remove_suffix(1);
	const auto inode = decimal<std::uint64_t>(link);
	return inode ? std::optional(static_cast<std::uint32_t>(*inode)) : std::nullopt;
}

// The names in a directory that are numbers; none if it cannot be read.
std::vector<pid_t> numbers_in(const std::string &path)
{
	std::vector<pid_t> numbers;
	const Directory directory(opendir(path.c_str()));
	if (directory)
		while (const dirent *entry = readdir(directory.get()))
			if (const auto number = decimal<pid_t>(entry->d_name))
				numbers.push_back(*number);
	return numbers;
}

// The fourth field of /proc/<pid>/stat.  The second, the command's name in parentheses,
// may hold anything, parentheses and spaces included.
std::optional<pid_t> parent_of(const std::string &stat_path)
{
	std::ifstream file(stat_path);
	std::string line;
	if (!std::getline(file, line, '\0'))
		return std::nullopt;
	const std::size_t name_end = line.rfind(')');
	// ") S 123 "
	if (name_end == std::string::npos || name_end + 4 > line.size())
		return std::nullopt;
	const std::size_t start = name_end + 4;
	const std::size_t end = line.find(' ', start);
	return decimal<pid_t>(std::string_view(line).substr(start, end - start));
}

// The inode of the socket to which that link leads.
std::optional<std::uint32_t> socket_at(int directory, const char *path) noexcept
{
	char link[64]; // longer ones are files
	const ssize_t length = readlinkat(directory, path, link, sizeof(link));
	if (length <= 0)
		return std::nullopt;
	return socket_inode({link, static_cast<std::size_t>(length)});
}

std::string descriptors_path(pid_t pid, const std::string &root)
{
	return root + "/proc/" + std::to_string(pid) + "/fd";
}

Directory open_descriptors(pid_t pid, const std::string &root)
{
	return Directory(opendir(descriptors_path(pid, root).c_str()));
}

// Calls visit(descriptor, inode) for the sockets of a process until that returns false;
// false if it did.
template <typename Visit>
bool for_each_socket(pid_t pid, const std::string &root, Visit visit)
{
	const Directory directory = open_descriptors(pid, root);
	if (!directory)
		return true;
	while (const dirent *entry = readdir(directory.get()))
	{
		const auto inode = socket_at(dirfd(directory.get()), entry->d_name);
		if (inode && !visit(entry->d_name, *inode))
			return false;
	}
	return true;
}

// From the kernel's own list (CONFIG_PROC_CHILDREN); nothing if there is none.
std::optional<std::vector<pid_t>> listed_children(pid_t pid, const std::string &root)
{
	const std::string tasks = root + "/proc/" + std::to_string(pid) + "/task/";
	std::vector<pid_t> children;
	// A child belongs to the thread that forked it.
	for (const pid_t thread : numbers_in(tasks))
	{
		std::ifstream file(tasks + std::to_string(thread) + "/children");
		if (!file)
			return std::nullopt;
		pid_t child;
		while (file >> child)
			children.push_back(child);
	}
	return children;
}

} // namespace

std::vector<ProcessSocket> process_sockets(const std::vector<pid_t> &pids,
                                           const std::string &root)
{
	std::vector<ProcessSocket> found;
	for (const pid_t pid : pids)
		for_each_socket(pid, root,
		                [&](const char *, std::uint32_t inode)
		                {
							found.push_back({pid, inode});
							return true;
						});
	return found;
}

bool holds_socket(pid_t pid, std::uint32_t inode, std::string &likely,
                  const std::string &root)
{
	if (inode == 0)
		return false;
	if (!likely.empty() &&
	    socket_at(AT_FDCWD, (descriptors_path(pid, root) + '/' + likely).c_str()) ==
	        inode)
		return true;
	return !for_each_socket(pid, root,
	                        [&](const char *descriptor, std::uint32_t held)
	                        {
								if (held != inode)
									return true;
								likely = descriptor;
								return false;
							});
}

std::vector<pid_t> children_of(pid_t pid, const std::string &root)
{
	std::vector<pid_t> children;
	if (auto listed = listed_children(pid, root))
		children = std::move(*listed);
	else
	{
		const std::string proc = root + "/proc";
		for (const pid_t candidate : numbers_in(proc))
			if (parent_of(proc + "/" + std::to_string(candidate) + "/stat") == pid)
				children.push_back(candidate);
	}
	std::sort(children.begin(), children.end());
	return children;
}

bool shows_sockets(pid_t pid, const std::string &root)
{
	return open_descriptors(pid, root) != nullptr;
}

bool is_child_of(pid_t pid, pid_t parent, const std::string &root)
{
	return parent_of(root + "/proc/" + std::to_string(pid) + "/stat") == parent;
}

} // namespace guard
