/*
 * Measures the kernel alone: requests the sockets given on standard input, one line each
 * with local address and port, remote address and port (IPv4), by exact sock_diag
 * requests in batches of 128, and discards the answers.  Prints the microseconds of each
 * of ROUNDS rounds.
 */
#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum
{
	BATCH = 128,
	MOST = 10000
};

struct request
{
	struct nlmsghdr header;
	struct inet_diag_req_v2 body;
};

static struct request requests[MOST];

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int read_requests(void)
{
	char local[64], remote[64];
	unsigned local_port, remote_port;
	int n = 0;

	while (n < MOST &&
	       scanf("%63s %u %63s %u", local, &local_port, remote, &remote_port) == 4)
	{
		struct request *r = &requests[n++];
		r->header.nlmsg_len = sizeof(*r);
		r->header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
		r->header.nlmsg_flags = NLM_F_REQUEST;
		r->body.sdiag_family = AF_INET;
		r->body.sdiag_protocol = IPPROTO_TCP;
		r->body.idiag_ext = 1 << (INET_DIAG_INFO - 1);
		r->body.idiag_states = -1;
		r->body.id.idiag_sport = htons(local_port);
		r->body.id.idiag_dport = htons(remote_port);
		inet_pton(AF_INET, local, r->body.id.idiag_src);
		inet_pton(AF_INET, remote, r->body.id.idiag_dst);
		r->body.id.idiag_cookie[0] = r->body.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	}
	return n;
}

static void ask(int fd, int first, int count)
{
	static char buffer[1 << 16];
	int answered = 0;

	if (send(fd, &requests[first], count * sizeof(struct request), 0) < 0)
	{
		perror("send");
		exit(1);
	}
	while (answered < count)
	{
		ssize_t length = recv(fd, buffer, sizeof(buffer), 0);
		struct nlmsghdr *message = (struct nlmsghdr *)buffer;

		if (length < 0)
		{
			perror("recv");
			exit(1);
		}
		for (; NLMSG_OK(message, length); message = NLMSG_NEXT(message, length))
		{
			if (message->nlmsg_type == NLMSG_ERROR)
			{
				fprintf(stderr, "a socket was not found\n");
				exit(1);
			}
			answered++;
		}
	}
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 50;
	int n = read_requests();
	int size = 1 << 20;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd < 0 || n == 0)
	{
		fprintf(stderr, "no netlink socket, or no socket to request\n");
		return 1;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	for (int round = 0; round < rounds; round++)
	{
		double start = now_us();
		for (int first = 0; first < n; first += BATCH)
			ask(fd, first, n - first < BATCH ? n - first : BATCH);
		printf("%.1f\n", now_us() - start);
	}
	return 0;
}
