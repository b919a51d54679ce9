"""Stores or reads ten thousand records over one pipelined connection: ten_thousand.py store|read PORT. Only the standard library."""
import socket
import sys
import time

ROWS = 10_000
mode, port = sys.argv[1], int(sys.argv[2])


def encode(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def value(row):
    return (b"value of record %d " % row).ljust(100, b".")


if mode == "store":
    request = b"".join(encode(b"SET", b"record:%d" % row, value(row)) for row in range(ROWS))
    expected = b"+OK\r\n" * ROWS
else:
    request = b"".join(encode(b"GET", b"record:%d" % row) for row in range(ROWS))
    expected = b"".join(b"$%d\r\n%s\r\n" % (len(value(row)), value(row)) for row in range(ROWS))

connection = socket.create_connection(("127.0.0.1", port))
connection.setblocking(False)
began = time.perf_counter()
sent, reply = 0, bytearray()
while len(reply) < len(expected):
    if sent < len(request):
        try:
            sent += connection.send(request[sent : sent + 262_144])
        except BlockingIOError:
            pass
    try:
        piece = connection.recv(1 << 20)
        assert piece, "the connection was closed"
        reply += piece
    except BlockingIOError:
        pass
elapsed = time.perf_counter() - began
assert bytes(reply) == expected, "a reply is not what it should be"
print(f"{mode}: {ROWS} records in {elapsed * 1000:.1f} ms")
