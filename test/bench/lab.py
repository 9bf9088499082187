# Helpers of the benchmarks: clusters, clients, unrelated sockets, and kernel figures.
import ctypes
import os
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

import psycopg2

BINDIR = os.environ["PG_BINDIR"]
BUILD = "/tmp/bench"


def run(*command, **options):
    """Runs a program and returns its output."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def median(values):
    return statistics.median(values)


class Cluster:
    """A throwaway server on 127.0.0.1, with or without the guard."""

    def __init__(self, name, port, preload, conf=""):
        self.name, self.port = name, port
        self.data = f"{BUILD}/{name}"
        run("initdb", "--auth=trust", "--no-sync", "--username=postgres", self.data)
        with open(f"{self.data}/postgresql.conf", "a") as file:
            file.write(
                f"port = {port}\nlisten_addresses = '127.0.0.1'\n"
                f"unix_socket_directories = '{BUILD}'\nshared_preload_libraries = '{preload}'\n"
                "max_connections = 2100\nfsync = off\nautovacuum = off\n"
                "shared_buffers = 256MB\nlog_min_messages = warning\n" + conf)
        self.start()
        if preload:
            self.sql("CREATE EXTENSION keepalive_guard")

    def start(self):
        run("pg_ctl", "start", "--wait", f"--pgdata={self.data}", f"--log={self.data}.log")

    def stop(self):
        run("pg_ctl", "stop", "--mode=immediate", f"--pgdata={self.data}")

    def connect(self, **options):
        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres",
                                      dbname="postgres", **options)
        connection.autocommit = True
        return connection

    def sql(self, statement):
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else None
        connection.close()
        return rows

    def environment(self):
        return dict(os.environ, PGHOST="127.0.0.1", PGPORT=str(self.port), PGUSER="postgres",
                    PGDATABASE="postgres")

    def worker(self):
        return self.sql("SELECT pid FROM pg_stat_activity"
                        " WHERE backend_type = 'keepalive_guard worker'")[0][0]

    def psql_times(self, statements, rounds):
        """Milliseconds measured by psql: a list for each statement, run in turns."""
        script = "\\timing on\n\\o /dev/null\n" + "\n".join(statements * rounds) + "\n"
        output = run("psql", "-Xq", input=script, env=self.environment())
        times = [float(line.split()[1]) for line in output.splitlines()
                 if line.startswith("Time:")]
        return [times[i::len(statements)] for i in range(len(statements))]

    def execution_times(self, query, rounds):
        """Milliseconds of execution in the server, by EXPLAIN ANALYZE."""
        script = f"EXPLAIN (ANALYZE, TIMING OFF) {query};\n" * rounds
        output = run("psql", "-XqAt", input=script, env=self.environment())
        return [float(line.split()[2]) for line in output.splitlines()
                if line.startswith("Execution Time")]

    def pgbench(self, *arguments):
        """Transactions per second."""
        output = run("pgbench", "-n", *arguments, env=self.environment())
        return [float(line.split("=")[1].split()[0]) for line in output.splitlines()
                if line.startswith("tps")][0]


class Clients:
    """Idle sessions."""

    def __init__(self, cluster, **options):
        self.cluster, self.options, self.connections = cluster, options, []

    def grow_to(self, count):
        while len(self.connections) < count:
            self.connections.append(self.cluster.connect(**self.options))

    def pids(self):
        return [connection.info.backend_pid for connection in self.connections]

    def server_ends(self):
        """Lines for bare_sock_diag."""
        lines = []
        for connection in self.connections:
            end = socket.socket(fileno=os.dup(connection.fileno()))
            (client, client_port), (server, server_port) = end.getsockname(), end.getpeername()
            end.close()
            lines.append(f"{server} {server_port} {client} {client_port}\n")
        return "".join(lines)

    def close(self):
        for connection in self.connections:
            connection.close()
        self.connections = []


def unrelated_sockets(count):
    """Starts processes that hold this many sockets, connected with each other."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    processes, each = [], min(hard, 12000) - 1000
    while count > 0:
        pairs = min(count, each) // 2
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            listener = socket.create_server((f"127.0.1.{len(processes) + 1}", 0), backlog=128)
            held = []
            for _ in range(pairs):
                held.append(socket.create_connection(listener.getsockname()))
                held.append(listener.accept()[0])
            os.write(writer, b"x")
            signal.pause()
        os.read(reader, 1)
        processes.append(pid)
        count -= 2 * pairs
    return processes


def kill(processes):
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


libc = ctypes.CDLL(None, use_errno=True)
PIDFD_GETFD = 438


def backend_socket(pid):
    """A duplicate of the backend's socket to its client."""
    descriptor = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                continue
            copy = libc.syscall(PIDFD_GETFD, descriptor, int(name), 0)
            if copy < 0:
                raise OSError(ctypes.get_errno(), "pidfd_getfd")
            end = socket.socket(fileno=copy)
            try:
                if end.family == socket.AF_INET and end.getpeername():
                    return end
            except OSError:
                pass
            end.close()
    finally:
        os.close(descriptor)
    raise RuntimeError(f"backend {pid} has no client")


def idle_of(end):
    return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)


def cpu_ns(pid):
    """CPU time of the process in nanoseconds (schedstat)."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0])


def switches(pid):
    """The number of times that the process went to sleep."""
    with open(f"/proc/{pid}/status") as file:
        return [int(line.split()[1]) for line in file if line.startswith("voluntary")][0]


def hook_times(path, skip):
    """Microseconds and page faults that hook_timer wrote, without the first ones."""
    with open(path, "rb") as file:
        return [(ns / 1000, faults) for ns, faults in struct.iter_unpack("qq", file.read())][skip:]
