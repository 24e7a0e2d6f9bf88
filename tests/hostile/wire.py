"""Raw sockets to a server, for what no HTTP library would send."""

import socket
import struct
import time
from contextlib import suppress
from urllib.parse import urlsplit


def connect(url, timeout=20.0, receive_buffer=None):
    """Open a connection to a URL, or to an address with a port."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(timeout)
    sock.connect((parts.hostname, parts.port))
    return sock


def head(line, *headers, host="127.0.0.1"):
    """Write the head of a request."""
    names = [f"Host: {host}"] if host is not None else []
    return ("\r\n".join([line, *names, *headers]) + "\r\n\r\n").encode("latin1")


def until_closed(sock):
    """Read until the server closes or resets the connection."""
    found = bytearray()
    with suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            found += data
    return bytes(found)


def exchange(url, data, timeout=20.0):
    """Send bytes, as many as the server takes, and read until it closes the connection."""
    with connect(url, timeout) as sock:
        with suppress(ConnectionError):
            sock.sendall(data)
        return until_closed(sock)


def status(answer):
    """Return the status of an answer; 0: there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def is_closed(sock, within):
    """Tell whether the server closes a connection within so many seconds."""
    sock.settimeout(within)
    deadline = time.monotonic() + within
    try:
        while time.monotonic() < deadline:
            if not sock.recv(1 << 16):
                return True
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return False


def _frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def open_http2(address):
    """Open a connection that speaks HTTP/2, and that never widens its windows."""
    sock = connect(address)
    sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
    return sock


def call_frames(stream, path, message=b"", announced=None, ends=False, headers=()):
    """Write the frames that begin a call of gRPC, with a message, or the beginning of a longer one."""
    fields = b"\x83\x86" + _literal(b":path", path.encode()) + _literal(b":authority", b"a")
    fields += _literal(b"content-type", b"application/grpc") + _literal(b"te", b"trailers")
    fields += b"".join(_literal(*each) for each in headers)
    data = b"\0" + struct.pack(">I", len(message) if announced is None else announced) + message
    return _frame(1, 4, stream, fields) + _frame(0, int(ends), stream, data)


def reset_frame(stream):
    """Write the frame that cancels a call."""
    return _frame(3, 0, stream, struct.pack(">I", 8))


def ping_frame():
    """Write a ping."""
    return _frame(6, 0, 0, b"12345678")


def open_calls(address, count, announced, seconds):
    """Begin calls with a thousand bytes of messages of which nothing more comes, and wait for so long."""
    with open_http2(address) as sock:
        for i in range(count):
            sock.sendall(call_frames(1 + 2 * i, "/puna.v1.ChatService/Chat", b"x" * 1000, announced))
        sock.settimeout(seconds)
        with suppress(TimeoutError, ConnectionError):
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and sock.recv(1 << 16):
                pass
