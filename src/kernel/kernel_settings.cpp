#include "kernel/kernel_settings.hpp"

#include "kernel/proc_net.hpp"

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <system_error>

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

namespace guard
{

namespace
{

constexpr const char *ipv4 = "net/ipv4/";
constexpr const char *core = "net/core/";
constexpr const char *netfilter = "net/netfilter/";

struct Sysctl
{
	const char *directory; // below /proc/sys
	const char *name;
	const char *unit;
	const char *description;
	const char *why_absent; // why a kernel may not have it
};

constexpr const char *old_kernel = "this kernel does not have it";
// The kernel registers some for its first network namespace only (ipv4_table,
// net_core_table), so a container does not see them.
constexpr const char *first_namespace =
	"the kernel does not show it in this network namespace";
constexpr const char *no_conntrack = "connection tracking is not loaded";

constexpr Sysctl sysctls[] = {
	{ipv4, "tcp_keepalive_time", "s",
     "silence before the first keepalive probe, where tcp_keepalives_idle is 0",
     old_kernel},
	{ipv4, "tcp_keepalive_intvl", "s",
     "time between unanswered keepalive probes, where tcp_keepalives_interval is 0",
     old_kernel},
	{ipv4, "tcp_keepalive_probes", "probes",
     "unanswered keepalive probes that end a connection, where tcp_keepalives_count is 0",
     old_kernel},
	{ipv4, "tcp_retries1", "retransmissions",
     "retransmissions of the same data after which the route is looked up again",
     old_kernel},
	{ipv4, "tcp_retries2", "retransmissions",
     "retransmissions of the same data, or unanswered zero-window probes, that end a "
     "connection without tcp_user_timeout",
     old_kernel},
	{ipv4, "tcp_rto_max_ms", "ms", "longest time between two retransmissions",
     "in Linux 6.15 and later; before, it is 120000"},
	{ipv4, "tcp_rto_min_us", "us", "shortest retransmission timeout",
     "in Linux 6.11 and later; before, it is 200000"},
	{ipv4, "tcp_syn_retries", "retransmissions",
     "retransmissions of a SYN that end an attempt to connect", old_kernel},
	{ipv4, "tcp_synack_retries", "retransmissions",
     "retransmissions of a SYN/ACK that end an attempt of a client to connect",
     old_kernel},
	{ipv4, "tcp_fin_timeout", "s",
     "how long a closed connection waits for the peer's FIN (FIN_WAIT2)", old_kernel},
	{ipv4, "tcp_orphan_retries", "retransmissions",
     "retransmissions that end a connection which no process holds any more; 0 means 8",
     old_kernel},
	{ipv4, "tcp_max_orphans", "sockets",
     "connections that no process holds; those beyond are reset", first_namespace},
	{ipv4, "tcp_mem", "pages", "memory of all TCP sockets: low, pressure, limit",
     first_namespace},
	{ipv4, "tcp_rmem", "bytes", "receive buffer of a TCP socket: least, default, most",
     old_kernel},
	{ipv4, "tcp_wmem", "bytes", "send buffer of a TCP socket: least, default, most",
     old_kernel},
	{ipv4, "tcp_ehash_entries", "buckets",
     "size of the table of connections; negative: the table of the first namespace is "
     "used too",
     "in Linux 6.1 and later"},
	{core, "somaxconn", "connections", "limit of every listener's accept queue",
     old_kernel},
	{core, "rmem_max", "bytes", "limit of a receive buffer set by SO_RCVBUF",
     first_namespace},
	{netfilter, "nf_conntrack_tcp_timeout_established", "s",
     "silence after which connection tracking forgets an established connection",
     no_conntrack},
	{netfilter, "nf_conntrack_tcp_timeout_unacknowledged", "s",
     "the same while data is not acknowledged", no_conntrack},
	{netfilter, "nf_conntrack_tcp_timeout_max_retrans", "s",
     "the same after nf_conntrack_tcp_max_retrans retransmissions", no_conntrack},
	{netfilter, "nf_conntrack_tcp_max_retrans", "retransmissions",
     "retransmissions after which nf_conntrack_tcp_timeout_max_retrans counts",
     no_conntrack},
	{netfilter, "nf_conntrack_tcp_timeout_close_wait", "s",
     "silence after which connection tracking forgets a connection that one end closed",
     no_conntrack},
	{netfilter, "nf_conntrack_tcp_timeout_fin_wait", "s",
     "the same while the closing end's FIN is not acknowledged", no_conntrack},
	{netfilter, "nf_conntrack_count", "connections", "connections tracked now",
     no_conntrack},
	{netfilter, "nf_conntrack_max", "connections",
     "limit of tracked connections; packets of new ones beyond are dropped",
     no_conntrack},
};

struct Figure
{
	const char *file; // below /proc/net
	const char *line;
	const char *key;
	const char *name;
	const char *unit;
	const char *description;
};

constexpr Figure figures[] = {
	{"sockstat", "TCP:", "inuse", "sockstat_tcp_inuse", "sockets",
     "TCP over IPv4 sockets in this network namespace, listeners included"},
	{"sockstat", "TCP:", "orphan", "sockstat_tcp_orphan", "sockets",
     "TCP connections of the whole host that no process holds any more"},
	{"sockstat", "TCP:", "tw", "sockstat_tcp_tw", "sockets",
     "TCP connections in TIME_WAIT"},
	{"sockstat", "TCP:", "alloc", "sockstat_tcp_alloc", "sockets",
     "TCP sockets of the whole host"},
	{"sockstat", "TCP:", "mem", "sockstat_tcp_mem", "pages",
     "memory of all TCP sockets of the whole host; see tcp_mem"},
	{"sockstat6", "TCP6:", "inuse", "sockstat_tcp6_inuse", "sockets",
     "TCP over IPv6 sockets in this network namespace, listeners included"},
};

// A small file's text without its final newline, or the errno.
struct Text
{
	int error;
	std::string text;
};

// Not by a stream: the first one in a process sets up the C++ locales.  In a backend that
// is about to end, this would take longer than everything else that keepalive_guard does.
Text read_file(const std::string &path)
{
	const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return {errno, ""};
	std::string content;
	char piece[1024];
	ssize_t got;
	while ((got = read(file, piece, sizeof(piece))) > 0)
		content.append(piece, static_cast<std::size_t>(got));
	const int error = got < 0 ? errno : 0;
	close(file);
	if (error != 0)
		return {error, ""};
	while (!content.empty() && content.back() == '\n')
		content.pop_back();
	// The kernel separates the numbers of tcp_mem, tcp_rmem and tcp_wmem by tabs.
	for (char &c : content)
		if (c == '\t')
			c = ' ';
	return {0, content};
}

std::string not_available(const char *description, int error, const char *why_absent)
{
	const std::string reason =
		error == ENOENT ? why_absent : std::generic_category().message(error);
	return std::string(description) + " (not available: " + reason + ")";
}

KernelSetting sysctl_row(const Sysctl &sysctl, const std::string &root)
{
	KernelSetting row;
	row.name = sysctl.name;
	row.unit = sysctl.unit;
	row.source = std::string("/proc/sys/") + sysctl.directory + sysctl.name;
	row.description = sysctl.description;
	Text read = read_file(root + row.source);
	if (read.error == 0)
		row.setting = std::move(read.text);
	else
		row.description =
			not_available(sysctl.description, read.error, sysctl.why_absent);
	return row;
}

// The word after `key` in the line that begins with `line`.
std::optional<std::string> find_figure(const std::string &text, const Figure &figure)
{
	std::istringstream lines(text);
	std::string line;
	while (std::getline(lines, line))
	{
		std::istringstream words(line);
		std::string key;
		std::string value;
		if (!(words >> key) || key != figure.line)
			continue;
		while (words >> key >> value)
			if (key == figure.key)
				return value;
	}
	return std::nullopt;
}

KernelSetting figure_row(const Figure &figure, const std::string &root)
{
	KernelSetting row;
	row.name = figure.name;
	row.unit = figure.unit;
	row.source = std::string("/proc/net/") + figure.file;
	row.description = figure.description;
	const Text read = read_file(root + proc_net + figure.file);
	row.setting = find_figure(read.text, figure);
	if (!row.setting)
		row.description =
			not_available(figure.description, read.error ? read.error : ENOENT,
		                  "the kernel does not show it");
	return row;
}

KernelSetting release_row()
{
	KernelSetting row;
	row.name = "kernel_release";
	row.source = "uname";
	row.description = "release of the running kernel";
	utsname name;
	if (uname(&name) == 0)
		row.setting = name.release;
	return row;
}

} // namespace

std::vector<KernelSetting> kernel_settings(const std::string &root)
{
	std::vector<KernelSetting> rows;
	rows.push_back(release_row());
	for (const Sysctl &sysctl : sysctls)
		rows.push_back(sysctl_row(sysctl, root));
	for (const Figure &figure : figures)
		rows.push_back(figure_row(figure, root));
	return rows;
}

PlainKernelSetting *plain_kernel_settings(std::size_t *count) noexcept
try
{
	const std::vector<KernelSetting> settings = kernel_settings();
	std::size_t bytes = settings.size() * sizeof(PlainKernelSetting);
	for (const KernelSetting &s : settings)
		bytes += s.name.size() + s.setting.value_or("").size() + s.unit.size() +
		         s.source.size() + s.description.size() + 5;
	auto *rows = static_cast<PlainKernelSetting *>(std::malloc(bytes));
	if (!rows)
		return nullptr;

	char *free = reinterpret_cast<char *>(rows + settings.size());
	const auto copy = [&free](const std::string &text)
	{
		const char *start = free;
		std::memcpy(free, text.c_str(), text.size() + 1);
		free += text.size() + 1;
		return start;
	};
	*count = 0;
	for (const KernelSetting &s : settings)
		rows[(*count)++] = {copy(s.name), s.setting ? copy(*s.setting) : nullptr,
		                    s.unit.empty() ? nullptr : copy(s.unit), copy(s.source),
		                    copy(s.description)};
	return rows;
}
catch (...)
{
	return nullptr;
}

std::optional<std::int64_t> integer_sysctl(const std::string &path,
                                           const std::string &root)
{
	const Text read = read_file(root + "/proc/sys/" + path);
	std::int64_t value;
	const char *const end = read.text.data() + read.text.size();
	const auto [stop, error] = std::from_chars(read.text.data(), end, value);
	if (read.error != 0 || error != std::errc() || stop != end)
		return std::nullopt;
	return value;
}

std::int64_t integer_sysctl_or(const char *path, std::int64_t fallback) noexcept
try
{
	return integer_sysctl(path).value_or(fallback);
}
catch (...)
{
	return fallback;
}

} // namespace guard
