#include "model/client_plan.hpp"

#include <cstring>
#include <iterator>
#include <string>
#include <utility>

namespace guard
{
namespace
{

constexpr Millis second = 1000;

// Where a client has a socket option from.
enum class From : std::uint8_t
{
	settings, // its own settings
	kernel,   // the sysctls of its host
	nodejs    // what Node.js sets, whatever its settings say
};

enum class UserTimeout : std::uint8_t
{
	kernel,
	milliseconds,
	seconds
};

constexpr std::uint8_t does_not_connect = 255;

struct Client
{
	const char *name;
	From idle;
	From interval;
	From count;
	UserTimeout user_timeout;
	std::uint8_t connect_attempts; // with a timeout each; 0: without one of its own
	bool needs_sysctl;             // the row "sysctl"
	bool reconnects;               // a query on a lost connection connects once more
	// With {name} for each value, see settings_text().
	const char *settings;
	const char *limits;
	const char *source;
};

constexpr From own = From::settings;
constexpr From kernel = From::kernel;
constexpr From node = From::nodejs;

constexpr Client libpq_like(const char *name, const char *settings, const char *limits,
                            const char *source)
{
	return {name,  own,      own,    own,   UserTimeout::milliseconds, 1, false,
	        false, settings, limits, source};
}

constexpr char libpq_settings[] = "{libpq} connect_timeout={connect_s}";

// What pgx and lib/pq connect with.  The dialer of Go sets keepalive times of its own,
// after Control, unless KeepAlive is negative.
constexpr char go_dialer[] = R"(net.Dialer{
	Timeout:   {connect_s} * time.Second,
	KeepAlive: -1,
	Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) {
			for _, option := range [][3]int{
				{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, {idle}},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, {interval}},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, {count}},
				{syscall.IPPROTO_TCP, 18 /* TCP_USER_TIMEOUT */, {user_timeout_ms}},
			} {
				if err == nil {
					err = syscall.SetsockoptInt(int(fd), option[0], option[1], option[2])
				}
			}
		})
		return
	},
})";

constexpr char sysctl_limit[] =
	"For sockets with SO_KEEPALIVE on that do not set times of their own, such as those "
	"of libpq, pgJDBC and most proxies.  tcp_retries2 and tcp_syn_retries are in force "
	"for "
	"all sockets.  A program's own timeouts come on top.";

constexpr Client clients[] = {
	libpq_like(
		"libpq (psql, psycopg, ruby-pg, DBD::Pg, PHP)", libpq_settings,
		"The user timeout also ends the connection to a living server that does not read "
		"for that long (COPY FROM that waits for a lock).  A program that does not use "
		"or "
		"wait for an idle connection sees its end at the next use.  connect_timeout is "
		"for each address.",
		"https://www.postgresql.org/docs/current/"
		"libpq-connect.html#LIBPQ-PARAMKEYWORDS"),
	libpq_like("libpq URI (postgresql://...?)", "{libpq_uri}&connect_timeout={connect_s}",
               "As for libpq.",
               "https://www.postgresql.org/docs/current/"
               "libpq-connect.html#LIBPQ-CONNSTRING-URIS"),
	libpq_like(
		"primary_conninfo", libpq_settings,
		"Append it to the connection string.  A change restarts the WAL receiver.  "
		"wal_receiver_timeout also ends it if the primary sends nothing.",
		"https://www.postgresql.org/docs/current/"
		"runtime-config-replication.html#GUC-PRIMARY-CONNINFO"),
	libpq_like(
		"subscription", libpq_settings,
		"Append it to the connection string: ALTER SUBSCRIPTION ... CONNECTION.  "
		"wal_receiver_timeout also ends the worker if the publisher sends nothing.",
		"https://www.postgresql.org/docs/current/sql-altersubscription.html"),
	{"postgres_fdw", own, own, own, UserTimeout::milliseconds, 1, false, true,
     "OPTIONS ({libpq_options}, connect_timeout '{connect_s}')",
     "For CREATE SERVER, and for ALTER SERVER if the options are not set yet.  "
     "Connections that exist keep theirs.  A query that finds its connection lost "
     "connects "
     "once more, so it can take detects_connecting longer than the kernel needs.",
     "https://www.postgresql.org/docs/current/"
     "postgres-fdw.html#POSTGRES-FDW-OPTIONS-CONNECTION"},
	libpq_like(
		"dblink", libpq_settings,
		"Append it to the connection string; for a foreign server, use the options "
		"of postgres_fdw.",
		"https://www.postgresql.org/docs/current/contrib-dblink-connect.html"),
	{"pgJDBC", kernel, kernel, kernel, UserTimeout::kernel, 1, true, false,
     "tcpKeepAlive=true&connectTimeout={connect_s}&loginTimeout={connect_s}",
     "pgJDBC has no settings for the times of keepalive.  socketTimeout (seconds) would "
     "also end the wait for every answer that takes longer.",
     "https://jdbc.postgresql.org/documentation/use/#connection-parameters"},
	{"Npgsql", own, own, kernel, UserTimeout::kernel, 1, true, false,
     "Tcp Keepalive=true;Tcp Keepalive Time={idle};Tcp Keepalive "
     "Interval={interval};Timeout={connect_s}",
     "Both times are in seconds from Npgsql 5 on, whatever its manual says.  The number "
     "of "
     "probes is that of the system.  Command Timeout (30 s) also ends living queries.",
     "https://www.npgsql.org/doc/connection-string-parameters.html"},
	{"node-postgres", own, node, node, UserTimeout::kernel, 1, true, false,
     "keepAlive: true, keepAliveInitialDelayMillis: {idle}000, connectionTimeoutMillis: "
     "{connect_ms}",
     "Node.js sends 10 probes, one each second.  query_timeout would also end living "
     "queries.",
     "https://node-postgres.com/apis/client"},
	{"pgx", own, own, own, UserTimeout::milliseconds, 1, false, false,
     "config.ConnectTimeout = {connect_s} * time.Second\n"
     "config.DialFunc = (&{go_dialer}).DialContext\n",
     "config is what pgx.ParseConfig() returns, or ConnConfig of pgxpool.ParseConfig().  "
     "Without it, pgx probes every five minutes.  The user timeout also ends the "
     "connection "
     "to a living server that does not read for that long.",
     "https://pkg.go.dev/github.com/jackc/pgx/v5/pgconn#Config"},
	{"lib/pq", own, own, own, UserTimeout::milliseconds, 1, false, false,
     R"(type keepaliveDialer struct{ net.Dialer }

func (d keepaliveDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	d.Timeout = timeout
	return d.Dial(network, address)
}

var dialer = &keepaliveDialer{{go_dialer}}
)",
     "For pq.DialOpen(dialer, ...), or Dialer(dialer) of a connector.  Without it, the "
     "dialer of Go sends probes every 15 s.  The user timeout also ends the connection "
     "to a "
     "living server that does not read for that long.",
     "https://pkg.go.dev/github.com/lib/pq#Dialer"},
	{"asyncpg", own, own, own, UserTimeout::milliseconds, 1, false, false,
     R"(async def keepalive(connection):
    s = connection._transport.get_extra_info("socket")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, {idle})
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, {interval})
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, {count})
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, {user_timeout_ms})

options = dict(init=keepalive, timeout={connect_s}))",
     "For asyncpg.create_pool(..., **options).  asyncpg has no setting for keepalive; "
     "_transport is not part of its documented interface.  command_timeout would also "
     "end "
     "living queries.",
     "https://magicstack.github.io/asyncpg/current/api/index.html"},
	{"tokio-postgres", own, own, own, UserTimeout::seconds, 1, false, false,
     "keepalives=1 keepalives_idle={idle} keepalives_interval={interval} "
     "keepalives_retries={count} tcp_user_timeout={user_timeout_s} "
     "connect_timeout={connect_s}",
     "Unlike libpq: keepalives_retries, and tcp_user_timeout in seconds.  From version "
     "0.7.9 on.  connect_timeout ends with the TCP connection.",
     "https://docs.rs/tokio-postgres/latest/tokio_postgres/config/struct.Config.html"},
	{"PgBouncer", own, own, own, UserTimeout::milliseconds, 1, false, false,
     "tcp_keepalive = 1\ntcp_keepidle = {idle}\ntcp_keepintvl = {interval}\n"
     "tcp_keepcnt = {count}\ntcp_user_timeout = {user_timeout_ms}\n"
     "server_connect_timeout = {connect_s}\nquery_wait_timeout = {wait_s}\n",
     "In section [pgbouncer], for its connections to servers and to clients.  "
     "query_wait_timeout also ends clients that wait this long for a busy server.  "
     "tcp_user_timeout also ends living clients that read slowly.",
     "https://www.pgbouncer.org/config.html"},
	{"Odyssey", own, own, own, UserTimeout::milliseconds, 1, false, false,
     "keepalive {idle}\nkeepalive_keep_interval {interval}\nkeepalive_probes {count}\n"
     "keepalive_usr_timeout {user_timeout_ms}\nbackend_connect_timeout_ms {connect_ms}\n",
     "Global settings, for its connections to servers and to clients.",
     "https://github.com/yandex/odyssey/blob/master/docs/configuration/global.md"},
	{"PgCat", own, own, own, UserTimeout::kernel, 1, true, false,
     "tcp_keepalives_idle = {idle}\ntcp_keepalives_interval = {interval}\n"
     "tcp_keepalives_count = {count}\nconnect_timeout = {connect_ms}\n",
     "In section [general].", "https://github.com/postgresml/pgcat/blob/main/CONFIG.md"},
	{"HAProxy, to servers", own, own, own, UserTimeout::milliseconds, 4, false, false,
     "option srvtcpka\nsrvtcpka-idle {idle}s\nsrvtcpka-intvl {interval}s\n"
     "srvtcpka-cnt {count}\ntimeout connect {attempt_ms}ms\nretries 3\n"
     "# append to each server line: tcp-ut {user_timeout_ms}ms\n",
     "In section backend, listen or defaults.  HAProxy 2.6 ignores tcp-ut in "
     "default-server.  HAProxy tries four times to connect.  timeout server ends every "
     "connection that is idle for that long, of living servers, too: make it longer than "
     "all pauses and queries.",
     "https://docs.haproxy.org/2.6/configuration.html#4.2-srvtcpka-idle"},
	{"HAProxy, to clients", own, own, own, UserTimeout::kernel, does_not_connect, true,
     false,
     "option clitcpka\nclitcpka-idle {idle}s\nclitcpka-intvl {interval}s\n"
     "clitcpka-cnt {count}\n",
     "In section frontend, listen or defaults.  On each bind line, tcp-ut "
     "sets a user timeout.  timeout client ends every connection that is idle for that "
     "long, of living clients, too.",
     "https://docs.haproxy.org/2.6/configuration.html#4.2-clitcpka-idle"},
	{"nginx stream, to servers", kernel, kernel, kernel, UserTimeout::kernel, 1, true,
     false, "proxy_socket_keepalive on;\nproxy_connect_timeout {connect_s}s;\n",
     "In section stream or server.  proxy_timeout (10 min) ends every connection that is "
     "idle for that long.",
     "https://nginx.org/en/docs/stream/"
     "ngx_stream_proxy_module.html#proxy_socket_keepalive"},
	{"nginx stream, to clients", own, own, own, UserTimeout::kernel, does_not_connect,
     true, false, "so_keepalive={idle}s:{interval}s:{count}",
     "Append it to the directive listen.",
     "https://nginx.org/en/docs/stream/ngx_stream_core_module.html#listen"},
	{"Envoy, to servers", own, own, own, UserTimeout::milliseconds, 1, false, false,
     R"(connect_timeout: {connect_s}s
upstream_connection_options:
  tcp_keepalive:
    keepalive_time: {idle}
    keepalive_interval: {interval}
    keepalive_probes: {count}
upstream_bind_config:
  source_address: {address: 0.0.0.0, port_value: 0}
  socket_options:
  - {level: 6, name: 18, int_value: {user_timeout_ms}, state: STATE_PREBIND}
)",
     "In a cluster.  Level 6, name 18 is TCP_USER_TIMEOUT.  idle_timeout of the TCP "
     "proxy "
     "(1 h) ends every connection that is idle for that long.",
     "https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/"
     "cluster.proto#envoy-v3-api-msg-config-cluster-v3-upstreamconnectionoptions"},
	{"Docker", own, own, own, UserTimeout::kernel, 0, true, false,
     "--sysctl net.ipv4.tcp_keepalive_time={idle} --sysctl "
     "net.ipv4.tcp_keepalive_intvl={interval} --sysctl "
     "net.ipv4.tcp_keepalive_probes={count} --sysctl net.ipv4.tcp_retries2={retries2} "
     "--sysctl net.ipv4.tcp_syn_retries={syn_retries}",
     sysctl_limit, "https://docs.docker.com/reference/cli/docker/container/run/#sysctl"},
	{"Kubernetes pod", own, own, own, UserTimeout::kernel, 0, false, false,
     R"(spec:
  securityContext:
    sysctls:
    - {name: net.ipv4.tcp_keepalive_time, value: "{idle}"}
    - {name: net.ipv4.tcp_keepalive_intvl, value: "{interval}"}
    - {name: net.ipv4.tcp_keepalive_probes, value: "{count}"}
)",
     "From Kubernetes 1.29 on; before, and for tcp_retries2 and tcp_syn_retries, the "
     "kubelet must allow them (allowedUnsafeSysctls).  For sockets with SO_KEEPALIVE on "
     "that do not set times of their own.  While data is in flight, only a user timeout "
     "of "
     "the client's own is in time.",
     "https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/"},
	{"systemd socket", own, own, own, UserTimeout::kernel, does_not_connect, true, false,
     "[Socket]\nKeepAlive=yes\nKeepAliveTimeSec={idle}\n"
     "KeepAliveIntervalSec={interval}\nKeepAliveProbes={count}\n",
     "For connections that are accepted from this socket unit.",
     "https://www.freedesktop.org/software/systemd/man/latest/systemd.socket.html"},
	{"sysctl", own, own, own, UserTimeout::kernel, 0, true, false, "{sysctl}",
     sysctl_limit, "https://docs.kernel.org/networking/ip-sysctl.html"},
};

// The settings of the client's socket.
DetectionSettings socket_of(const Client &client, const Plan &plan)
{
	constexpr DetectionSettings kernel_default = {true, 7200, 75, 9, 0, 0, 0, 0, 0};
	constexpr DetectionSettings nodejs = {true, 0, 1, 10, 0, 0, 0, 0, 0};
	const DetectionSettings &planned = plan.settings;
	const DetectionSettings &system = client.needs_sysctl ? planned : kernel_default;
	const auto from = [&](From where)
	{
		return where == own ? planned : where == node ? nodejs : system;
	};
	DetectionSettings socket{};
	socket.keepalive = true;
	socket.idle_s = from(client.idle).idle_s;
	socket.interval_s = from(client.interval).interval_s;
	socket.count = from(client.count).count;
	if (client.user_timeout == UserTimeout::milliseconds)
		socket.user_timeout_ms = plan.client_user_timeout_ms;
	else if (client.user_timeout == UserTimeout::seconds)
		socket.user_timeout_ms = std::max<std::int32_t>(
			plan.client_user_timeout_ms - plan.client_user_timeout_ms % 1000, 1000);

	// Probes that take longer than those of the plan have to begin sooner.
	while (client.idle == own && socket.idle_s > 1 &&
	       *detection(socket, KernelLimits()).idle.latest > plan.promise)
		--socket.idle_s;
	return socket;
}

std::string replaced(std::string text, const std::string &from, const std::string &to)
{
	for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos;
	     at += to.size())
		text.replace(at, from.size(), to);
	return text;
}

// "keepalives=1 ..." as OPTIONS has it: "keepalives '1', ...".
std::string as_options(const std::string &libpq)
{
	return replaced(replaced(libpq, " ", "', "), "=", " '") + "'";
}

std::string settings_text(const Client &client, const Plan &plan,
                          const DetectionSettings &socket)
{
	const std::string libpq = libpq_options(plan);
	const Millis connect_ms = Millis{plan.client_connect_timeout_s} * second;
	const std::pair<const char *, std::string> values[] = {
		{"{libpq}", libpq},
		{"{libpq_uri}", replaced(libpq, " ", "&")},
		{"{libpq_options}", as_options(libpq)},
		{"{sysctl}", sysctl_lines(plan)},
		{"{go_dialer}", go_dialer},
		{"{idle}", std::to_string(socket.idle_s)},
		{"{interval}", std::to_string(socket.interval_s)},
		{"{count}", std::to_string(socket.count)},
		{"{user_timeout_ms}", std::to_string(socket.user_timeout_ms)},
		{"{user_timeout_s}", std::to_string(socket.user_timeout_ms / second)},
		{"{connect_s}", std::to_string(plan.client_connect_timeout_s)},
		// PgBouncer looks at its timers three times a second only.
		{"{wait_s}", std::to_string(std::max(plan.client_connect_timeout_s - 1, 1))},
		{"{connect_ms}", std::to_string(connect_ms)},
		{"{attempt_ms}",
	     std::to_string(connect_ms / std::max<Millis>(client.connect_attempts, 1))},
		{"{retries2}", std::to_string(plan.tcp_retries2)},
		{"{syn_retries}", std::to_string(plan.tcp_syn_retries)},
	};
	std::string text = client.settings;
	for (const auto &[name, value] : values)
		text = replaced(text, name, value);
	return text;
}

Duration connecting(const Client &client, const Plan &plan, const Detection &socket,
                    bool user_timeout)
{
	if (client.connect_attempts == does_not_connect)
		return std::nullopt;
	// TCP_USER_TIMEOUT replaces tcp_syn_retries.  After the handshake, data is in flight.
	Duration kernel_gives_up = socket.in_flight.latest;
	if (!user_timeout)
		kernel_gives_up = later(
			kernel_gives_up,
			connect_gives_up(client.needs_sysctl ? plan.tcp_syn_retries : 6).latest);
	if (client.connect_attempts == 0)
		return kernel_gives_up;
	const Millis own_timeout =
		with_margin(Millis{plan.client_connect_timeout_s} * second);
	// Several attempts may each take as long as the kernel lets them.
	return client.connect_attempts == 1 ? sooner(kernel_gives_up, own_timeout)
	                                    : Duration(own_timeout);
}

} // namespace

std::size_t client_plan_count() noexcept
{
	return std::size(clients);
}

bool client_plan(const Plan &plan, std::size_t i, ClientPlan *result) noexcept
try
{
	const Client &client = clients[i];
	const DetectionSettings socket = socket_of(client, plan);
	KernelLimits limits;
	if (client.needs_sysctl)
		limits.tcp_retries2 = plan.tcp_retries2;
	const Detection found = detection(socket, limits);

	const std::string text = settings_text(client, plan, socket);
	if (text.size() >= sizeof(result->settings))
		return false;
	std::memcpy(result->settings, text.c_str(), text.size() + 1);
	result->client = client.name;
	// The containers' rows have it in their own text.
	result->needs = client.needs_sysctl && text.find("tcp_retries2") == std::string::npos
	                    ? "sysctl"
	                    : nullptr;
	result->idle = found.idle.latest;
	result->connecting = connecting(client, plan, found, socket.user_timeout_ms != 0);
	result->busy =
		later(found.idle.latest, client.reconnects
	                                 ? sum(found.in_flight.latest, result->connecting)
	                                 : found.in_flight.latest);
	result->limits = client.limits;
	result->source = client.source;
	return true;
}
catch (...)
{
	return false;
}

} // namespace guard
