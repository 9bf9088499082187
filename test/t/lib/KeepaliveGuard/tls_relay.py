"""Holds a TLS connection to PostgreSQL for KeepaliveGuard::TlsSession.

tls_relay.py BYTES COMMANDS ADDRESS PORT RECEIVE_BUFFER

BYTES and COMMANDS are descriptors.  Passes bytes on in both directions.  Writes its port
to COMMANDS, then runs each command that it reads there and answers "done".
"""
import select
import socket
import ssl
import struct
import sys
import time

SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def connect(address, port, receive_buffer):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    plain = socket.socket(family)
    if receive_buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.connect((address, port))
    plain.sendall(SSL_REQUEST)
    assert plain.recv(1) == b"S", "the server has no TLS"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, suppress_ragged_eofs=True)


def pass_on_waiting_bytes(pair, tls):
    pair.setblocking(False)
    try:
        while data := pair.recv(65536):
            tls.sendall(data)
    except BlockingIOError:
        pass
    pair.setblocking(True)


def run_command(command, tls):
    """Runs a command.  Returns True if the connection is closed after it."""
    if command == "half_close":
        socket.socket.shutdown(tls, socket.SHUT_WR)
    elif command == "garble":
        socket.socket.send(tls, b"no TLS record at all")
        # OpenSSL sends its alert before the server says anything.  If the answer to it, a FIN,
        # is faster than that, the client has gone first.
        time.sleep(0.5)
    elif command == "close_notify":
        try:
            tls.setblocking(False)
            tls.unwrap()
        except (ssl.SSLError, OSError):
            pass
    elif command == "reset":
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return command not in ("half_close", "garble")


def relay(pair, commands, tls):
    unread = b""  # not passed on to the client yet; while there is some, nothing is read
    while True:
        readers = [pair, commands] + ([] if unread else [tls])
        ready, writable, _ = select.select(readers, [pair] if unread else [], [])
        if commands in ready:
            command = commands.recv(64).decode().strip()
            if not command:
                return
            pass_on_waiting_bytes(pair, tls)
            closed = run_command(command, tls)
            if closed:
                tls.close()
            commands.sendall(b"done\n")
            if closed:
                return
        elif pair in ready:
            data = pair.recv(65536)
            if not data:
                return
            tls.sendall(data)
        elif tls in ready:
            unread = tls.recv(65536)
            while tls.pending():
                unread += tls.recv(65536)
            if not unread:
                return
        elif writable:
            unread = unread[pair.send(unread, socket.MSG_DONTWAIT):]


def main():
    pair = socket.socket(fileno=int(sys.argv[1]))
    commands = socket.socket(fileno=int(sys.argv[2]))
    tls = connect(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    commands.sendall(b"%d\n" % tls.getsockname()[1])
    try:
        relay(pair, commands, tls)
    except OSError:
        pass  # the connection or the test has ended


main()
