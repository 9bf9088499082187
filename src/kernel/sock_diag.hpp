// Asks the kernel about TCP sockets of this network namespace, other processes'
// included, over NETLINK_SOCK_DIAG.  No privilege is needed.
#pragma once

#include "kernel/inet_diag.hpp"
#include "kernel/socket.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <system_error>
#include <vector>

struct nl_sock;

namespace guard
{

// code() holds the errno.
class SockDiagError : public std::system_error
{
  public:
	SockDiagError(int error, const char *what)
		: std::system_error(error, std::generic_category(), what)
	{
	}

	// Netlink or inet_diag is forbidden or absent here (a sandbox, seccomp, a kernel
	// without tcp_diag).  It will be refused again, so /proc/net/tcp has to be read.
	bool is_refused() const noexcept;
};

// What a dump is to return.
struct DumpFilter
{
	std::uint8_t family = 4;                // 4 or 6; IPv4-mapped sockets are in 6
	std::vector<std::uint16_t> local_ports; // host order; none: any port
	std::uint32_t states = ~0U;             // state_bit()s
	Details details;
};

// One netlink socket.  Not for two threads at once, nor for use on both sides of a
// fork().  Every function throws SockDiagError, or std::bad_alloc.
class SockDiag
{
  public:
	// Opens the socket and makes sure that inet_diag answers on it.  receive_buffer: in
	// bytes, capped by net.core.rmem_max; a smaller one costs repeated requests.
	explicit SockDiag(int receive_buffer = 1 << 20);
	~SockDiag();
	SockDiag(SockDiag &&) noexcept;
	SockDiag &operator=(SockDiag &&) noexcept;

	// Fills answers[i] for wanted[i], each in [0, n).  answers[i].found is false where
	// the kernel has no such socket, where the answer is about another one (a listener,
	// or a newer socket with the same addresses), and where wanted[i].local has no
	// family. Needs about 2 us for each socket and does not allocate.  If it throws, the
	// answers that were read before stay as they are.
	void query(const SocketId *wanted, std::size_t n, SocketFacts *answers,
	           Details details);

	// All sockets that pass the filter, which the kernel applies.  For a dump the kernel
	// walks through its hash table.  Throws std::length_error as local_port_filter()
	// does.
	std::vector<SocketFacts> dump(const DumpFilter &filter);

  private:
	struct Buffers;

	void open();
	void discard_leftovers();
	void send(std::size_t length);
	void query_batch(const SocketId *wanted, std::size_t n, SocketFacts *answers,
	                 Details details);
	void read_answers(const SocketId *wanted, SocketFacts *answers, std::uint32_t first,
	                  const std::uint8_t *slots, std::size_t n, bool *answered);
	void start_dump(const DumpFilter &filter);
	bool read_dump(std::vector<SocketFacts> *out);

	struct Close
	{
		void operator()(nl_sock *socket) const noexcept;
	};

	std::unique_ptr<nl_sock, Close> socket_;
	std::unique_ptr<Buffers> buffers_;
	TcpInfoLayout layout_ = running_tcp_info_layout();
	int receive_buffer_;
	std::uint32_t sequence_ = 0;
	bool dumping_ = false; // a dump was started and its end was not read yet
};

} // namespace guard
