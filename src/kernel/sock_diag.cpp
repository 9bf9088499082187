#include "kernel/sock_diag.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>

namespace guard
{

namespace
{

// A default receive buffer of 212992 bytes holds 166 replies; more are dropped.
constexpr std::size_t batch_size = 128;
// Replies read by one recvmmsg().
constexpr std::size_t replies_at_once = 32;
// A reply to an exact request has some 500 bytes.
constexpr std::size_t reply_bytes = 4096;
// The kernel fills at most 32 KiB of a dump into one read (netlink_dump()).
constexpr std::size_t receive_bytes = replies_at_once * reply_bytes;
static_assert(receive_bytes >= 32768);

constexpr std::size_t request_bytes = NLMSG_ALIGN(NLMSG_LENGTH(sizeof(inet_diag_req_v2)));
constexpr int filter_bytes = 65536; // a netlink attribute's limit
constexpr std::size_t send_bytes =
	std::max(batch_size * request_bytes, request_bytes + filter_bytes);

constexpr int max_attempts = 5;

// nl_connect() and nl_sendto() leave the errno of the system call that failed;
// an error of libnl's own has none.
int errno_after_libnl()
{
	return errno != 0 ? errno : EIO;
}

// Whether another attempt may succeed.
bool is_temporary(int error)
{
	return error == ENOBUFS || error == ENOMEM || error == EAGAIN || error == EINTR ||
	       error == EBUSY;
}

nlmsghdr *put_header(unsigned char *at, std::size_t length, std::uint16_t flags,
                     std::uint32_t sequence)
{
	auto *header = reinterpret_cast<nlmsghdr *>(at);
	header->nlmsg_len = static_cast<std::uint32_t>(length);
	header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	header->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
	header->nlmsg_seq = sequence;
	header->nlmsg_pid = 0;
	return header;
}

// The errno in an NLMSG_ERROR or NLMSG_DONE message, 0 for none.
int error_of(nlmsghdr *header)
{
	int error = 0;
	if (nlmsg_datalen(header) >= static_cast<int>(sizeof(error)))
		std::memcpy(&error, nlmsg_data(header), sizeof(error));
	return -error;
}

} // namespace

bool SockDiagError::is_refused() const noexcept
{
	switch (code().value())
	{
	case EPERM:
	case EACCES:
	case EAFNOSUPPORT:
	case EPROTONOSUPPORT:
	case ESOCKTNOSUPPORT:
	case EOPNOTSUPP:
	case ENOSYS:
	case ENOENT:       // sock_diag or inet_diag has no handler: module missing
	case ECONNREFUSED: // no NETLINK_SOCK_DIAG in the kernel
		return true;
	}
	return false;
}

struct SockDiag::Buffers
{
	alignas(NLMSG_ALIGNTO) unsigned char out[send_bytes];
	alignas(NLMSG_ALIGNTO) unsigned char in[receive_bytes];
	mmsghdr messages[replies_at_once];
	iovec pieces[replies_at_once];
	sockaddr_nl senders[replies_at_once];
};

void SockDiag::Close::operator()(nl_sock *socket) const noexcept
{
	nl_socket_free(socket);
}

SockDiag::SockDiag(int receive_buffer)
	: buffers_(new Buffers{}), receive_buffer_(receive_buffer)
{
	open();
}

SockDiag::~SockDiag() = default;
SockDiag::SockDiag(SockDiag &&) noexcept = default;
SockDiag &SockDiag::operator=(SockDiag &&) noexcept = default;

void SockDiag::open()
{
	socket_.reset(nl_socket_alloc());
	if (!socket_)
		throw std::bad_alloc();
	errno = 0;
	if (nl_connect(socket_.get(), NETLINK_SOCK_DIAG) < 0)
	{
		const int error = errno_after_libnl();
		socket_.reset();
		throw SockDiagError(error, "could not open a NETLINK_SOCK_DIAG socket");
	}
	// nl_connect() lowers both.  If this fails, more requests have to be repeated.
	nl_socket_set_buffer_size(socket_.get(), receive_buffer_, 2 * filter_bytes);
	dumping_ = false;

	// Without the tcp_diag module an exact request is answered by ENOENT, which also
	// means "no such socket".  A dump makes the difference; a dump of no states ends
	// before it walks through the table (inet_diag_dump_icsk()).
	DumpFilter nothing;
	nothing.states = 0;
	start_dump(nothing);
	read_dump(nullptr);
}

// If a dump was not read to its end, the rest of it would be read as the next answer.
void SockDiag::discard_leftovers()
{
	if (dumping_ || !socket_)
		open();
}

void SockDiag::send(std::size_t length)
{
	for (int attempt = 0;; attempt++)
	{
		errno = 0;
		if (nl_sendto(socket_.get(), buffers_->out, length) >= 0)
			return;
		const int error = errno_after_libnl();
		if (!is_temporary(error) || attempt == max_attempts)
			throw SockDiagError(error, "could not ask for sockets over netlink");
	}
}

void SockDiag::query(const SocketId *wanted, std::size_t n, SocketFacts *answers,
                     Details details)
{
	discard_leftovers();
	for (std::size_t done = 0; done < n; done += batch_size)
		query_batch(wanted + done, std::min(batch_size, n - done), answers + done,
		            details);
}

void SockDiag::query_batch(const SocketId *wanted, std::size_t n, SocketFacts *answers,
                           Details details)
{
	bool answered[batch_size] = {};
	for (std::size_t i = 0; i < n; i++)
	{
		answers[i] = SocketFacts{};
		const std::uint8_t family = wanted[i].local.family;
		answered[i] = family != 4 && family != 6;
	}

	// Replies that were dropped are requested again, fewer at a time.
	std::size_t room = batch_size;
	for (int failures = 0; failures < max_attempts;)
	{
		std::uint8_t slots[batch_size]; // request's sequence - first -> its socket
		std::size_t asked = 0;
		const std::uint32_t first = sequence_ + 1;
		unsigned char *at = buffers_->out;
		for (std::size_t i = 0; i < n && asked < room; i++)
		{
			if (answered[i])
				continue;
			const inet_diag_req_v2 request = diag_request(wanted[i], details);
			put_header(at, NLMSG_LENGTH(sizeof(request)), 0,
			           first + static_cast<std::uint32_t>(asked));
			std::memcpy(at + NLMSG_HDRLEN, &request, sizeof(request));
			at += request_bytes;
			slots[asked++] = static_cast<std::uint8_t>(i);
		}
		if (asked == 0)
			return;
		sequence_ += static_cast<std::uint32_t>(asked);
		send(static_cast<std::size_t>(at - buffers_->out));
		read_answers(wanted, answers, first, slots, asked, answered);

		const auto got = static_cast<std::size_t>(std::count_if(
			slots, slots + asked, [&](std::uint8_t i) { return answered[i]; }));
		failures = got > 0 ? 0 : failures + 1;
		if (got < asked)
			room = std::max<std::size_t>(1, room / 2);
	}
	throw SockDiagError(ENOBUFS, "netlink keeps losing answers about sockets");
}

// The kernel answers during sendto(), so a reply that is not in the receive buffer now
// was dropped: nothing here waits.
void SockDiag::read_answers(const SocketId *wanted, SocketFacts *answers,
                            std::uint32_t first, const std::uint8_t *slots, std::size_t n,
                            bool *answered)
{
	Buffers &b = *buffers_;
	int interruptions = 0;
	for (std::size_t read = 0; read < n;)
	{
		for (std::size_t i = 0; i < replies_at_once; i++)
		{
			b.pieces[i] = {b.in + i * reply_bytes, reply_bytes};
			b.messages[i] = mmsghdr{};
			b.messages[i].msg_hdr.msg_iov = &b.pieces[i];
			b.messages[i].msg_hdr.msg_iovlen = 1;
			b.messages[i].msg_hdr.msg_name = &b.senders[i];
			b.messages[i].msg_hdr.msg_namelen = sizeof(b.senders[i]);
		}
		const int got = recvmmsg(nl_socket_get_fd(socket_.get()), b.messages,
		                         replies_at_once, MSG_DONTWAIT, nullptr);
		if (got < 0)
		{
			// ENOBUFS: some replies were dropped.  The others can still be read.
			if ((errno == EINTR || errno == ENOBUFS) && ++interruptions <= max_attempts)
				continue;
			if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR)
				return;
			throw SockDiagError(errno, "could not read sockets over netlink");
		}

		for (int i = 0; i < got; i++)
		{
			if (b.senders[i].nl_pid != 0)
				continue; // not from the kernel
			auto *header = reinterpret_cast<nlmsghdr *>(b.pieces[i].iov_base);
			int left = static_cast<int>(b.messages[i].msg_len);
			for (; left > 0 && nlmsg_ok(header, left); header = nlmsg_next(header, &left))
			{
				// Replies to an earlier batch that was given up are out of range.
				const std::uint32_t which = header->nlmsg_seq - first;
				if (which >= n)
					continue;
				read++;
				const std::uint8_t slot = slots[which];
				if (header->nlmsg_type == NLMSG_ERROR)
				{
					const int error = error_of(header);
					if (is_temporary(error))
						continue;
					// EINVAL: a family that this kernel was built without.
					if (error != ENOENT && error != EINVAL)
						throw SockDiagError(error, "the kernel refused to show sockets");
					answered[slot] = true;
				}
				else if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY)
				{
					answered[slot] = true;
					SocketFacts &facts = answers[slot];
					if (!parse_diag_reply(nlmsg_data(header),
					                      static_cast<std::size_t>(nlmsg_datalen(header)),
					                      layout_, facts) ||
					    !is_wanted(wanted[slot], facts.id))
						facts = SocketFacts{};
				}
			}
		}
	}
}

void SockDiag::start_dump(const DumpFilter &filter)
{
	const std::vector<inet_diag_bc_op> program = local_port_filter(filter.local_ports);
	const inet_diag_req_v2 request =
		diag_request(filter.family, filter.states, filter.details);
	unsigned char *out = buffers_->out;
	std::size_t length = request_bytes;

	std::memcpy(out + NLMSG_HDRLEN, &request, sizeof(request));
	if (!program.empty())
	{
		const std::size_t bytes = program.size() * sizeof(program[0]);
		nlattr attribute{};
		attribute.nla_type = INET_DIAG_REQ_BYTECODE;
		attribute.nla_len = static_cast<std::uint16_t>(NLA_HDRLEN + bytes);
		std::memcpy(out + length, &attribute, sizeof(attribute));
		std::memcpy(out + length + NLA_HDRLEN, program.data(), bytes);
		length += NLA_HDRLEN + bytes;
	}
	put_header(out, length, NLM_F_DUMP, ++sequence_);
	dumping_ = true;
	send(length);
}

std::vector<SocketFacts> SockDiag::dump(const DumpFilter &filter)
{
	std::vector<SocketFacts> found;
	// An interrupted dump may lack sockets or have some twice, so it is repeated.  The
	// last attempt is used even if it was interrupted.
	for (int attempt = 1;; attempt++)
	{
		const bool last = attempt == max_attempts;
		try
		{
			discard_leftovers();
			found.clear();
			start_dump(filter);
			if (read_dump(&found) || last)
				return found;
		}
		catch (const SockDiagError &error)
		{
			if (last || !is_temporary(error.code().value()))
				throw;
		}
	}
}

// Reads the dump that was started last to its end.  Returns false if the kernel says that
// it was interrupted.
bool SockDiag::read_dump(std::vector<SocketFacts> *out)
{
	bool whole = true;
	int interruptions = 0;
	for (;;)
	{
		sockaddr_nl sender{};
		iovec piece = {buffers_->in, receive_bytes};
		msghdr message{};
		message.msg_iov = &piece;
		message.msg_iovlen = 1;
		message.msg_name = &sender;
		message.msg_namelen = sizeof(sender);
		const ssize_t got =
			recvmsg(nl_socket_get_fd(socket_.get()), &message, MSG_DONTWAIT);
		if (got < 0)
		{
			if (errno == EINTR && ++interruptions <= max_attempts)
				continue;
			throw SockDiagError(errno, "could not read a dump of sockets over netlink");
		}
		if (sender.nl_pid != 0)
			continue;

		auto *header = reinterpret_cast<nlmsghdr *>(buffers_->in);
		int left = static_cast<int>(got);
		for (; left > 0 && nlmsg_ok(header, left); header = nlmsg_next(header, &left))
		{
			if (header->nlmsg_seq != sequence_)
				continue;
			if (header->nlmsg_flags & NLM_F_DUMP_INTR)
				whole = false;
			if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
			{
				dumping_ = false;
				const int error = error_of(header);
				if (error != 0)
					throw SockDiagError(error, "the kernel refused to list sockets");
				return whole;
			}
			SocketFacts facts;
			if (out && header->nlmsg_type == SOCK_DIAG_BY_FAMILY &&
			    parse_diag_reply(nlmsg_data(header),
			                     static_cast<std::size_t>(nlmsg_datalen(header)), layout_,
			                     facts))
				out->push_back(facts);
		}
	}
}

} // namespace guard
