"""A server that breaks the protocol, by seed: `Conversation` says how, `serve` does it, `converse` is the client.

`python -m tests.hostile` has so many conversations and prints figures. The server is a process of its own and speaks real TLS.
It knows PostgreSQL's messages and answers honestly but for one answer of each conversation, which is changed, cut, flooded or
random.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import trustme
from tests.promises import ended_when_hung, limited, shows_token, silence_logs

import dsql_lambda
from dsql_lambda import ConnectError, ConnectOptions, DatabaseError, DsqlError, connect, run_transaction

ROOT = Path(__file__).parents[1]
ENDPOINT = "hostile" + "0" * 19 + ".dsql.us-east-1.on.aws"
GIBIBYTE = 1 << 30
PATIENCE_SECONDS = 0.25
"""`connect_timeout`, and the deadline of a transaction."""
GRACE_SECONDS = 1.0
"""How much later than that a conversation may end on a busy machine."""

Code = bytes


@dataclass
class Message:
    """One message of the server; `length` is what it announces, where that is not the truth."""

    code: Code
    body: bytes = b""
    length: int | None = None

    def __bytes__(self) -> bytes:
        return (
            self.code + struct.pack("!I", (len(self.body) + 4 if self.length is None else self.length) & 0xFFFFFFFF) + self.body
        )


def auth(kind: int, more: bytes = b"") -> Message:
    """An authentication request."""
    return Message(b"R", struct.pack("!i", kind) + more)


def parameter(name: str, value: str) -> Message:
    """A ParameterStatus."""
    return Message(b"S", f"{name}\0{value}\0".encode())


def described(*columns: tuple[str, int]) -> Message:
    """A RowDescription of columns by name and type."""
    body = b"".join(name.encode() + b"\0" + struct.pack("!ihihih", 0, 0, oid, -1, -1, 0) for name, oid in columns)
    return Message(b"T", struct.pack("!h", len(columns)) + body)


def row(*values: str | None) -> Message:
    """A DataRow."""
    body = b"".join(struct.pack("!i", -1) if each is None else struct.pack("!i", len(each)) + each.encode() for each in values)
    return Message(b"D", struct.pack("!h", len(values)) + body)


def complete(tag: str) -> Message:
    """A CommandComplete."""
    return Message(b"C", tag.encode() + b"\0")


def failed(severity: str, sqlstate: str, message: str) -> Message:
    """An ErrorResponse."""
    return Message(b"E", f"S{severity}\0V{severity}\0C{sqlstate}\0M{message}\0\0".encode())


def ready(status: bytes = b"I") -> Message:
    """A ReadyForQuery."""
    return Message(b"Z", status)


GREETING = [
    auth(0),
    parameter("server_version", "16.15"),
    parameter("client_encoding", "UTF8"),
    parameter("DateStyle", "ISO, MDY"),
    Message(b"K", struct.pack("!ii", 4711, 42)),
    ready(),
]

STRAY = [
    auth(0),
    auth(3),
    auth(5, b"salt"),
    auth(7),
    auth(8, b"gss"),
    auth(9),
    auth(10, b"SCRAM-SHA-256\0\0"),
    auth(11, b"r=fyko,s=QSXCR+Q6sek8bf92,i=4096"),
    auth(12, b"v=x"),
    auth(2),
    auth(6),
    auth(99),
    parameter("client_encoding", "KLINGON"),
    parameter("client_encoding", "SQL_ASCII"),
    parameter("TimeZone", "Asia/Tokyo"),
    Message(b"N", b"SNOTICE\0C00000\0Mheed me\0\0"),
    Message(b"A", struct.pack("!i", 1) + b"channel\0payload\0"),
    Message(b"G", b"\0\0\0"),
    Message(b"H", b"\0\0\0"),
    Message(b"W", b"\0\0\0"),
    Message(b"V", struct.pack("!i", -1)),
    Message(b"v", struct.pack("!ii", 3, 0)),
    Message(b"s"),
    Message(b"I"),
    Message(b"n"),
    Message(b"t", struct.pack("!hi", 1, 23)),
    Message(b"d", b"1\t2\n"),
    Message(b"c"),
    Message(b"1"),
    Message(b"2"),
    Message(b"3"),
    Message(b"K", struct.pack("!ii", 1, 2)),
    ready(b"I"),
    ready(b"T"),
    ready(b"E"),
    ready(b"?"),
    complete("COMMIT"),
    complete("ROLLBACK"),
    complete("INSERT 0 1"),
    row("7", "seven"),
    row(),
    described(("a", 23)),
    failed("ERROR", "22012", "division by zero"),
    failed("ERROR", "40001", "change conflicts with another transaction, please retry: (OC000)"),
    failed("FATAL", "57P01", "terminating connection due to administrator command"),
    Message(b"E", b"\0"),
    Message(b"E", b"M"),
    Message(b"E", b"\xff\xfe\xfd"),
    Message(b"~", b"x"),
    Message(b"\0"),
]

LENGTHS = (0, 1, 2, 3, -1, -GIBIBYTE, 0x7FFFFFFF, 0x80000000, GIBIBYTE + 1, GIBIBYTE, 100_000_000, 70_000, 5)

FLOODS = [
    Message(b"N", b"SNOTICE\0C00000\0Mheed me\0\0"),
    parameter("TimeZone", "Asia/Tokyo"),
    parameter("x" * 60, "y" * 60),
    Message(b"A", struct.pack("!i", 1) + b"channel\0payload\0"),
    row("7", "seven"),
    Message(b"1"),
    described(("a", 23), ("b", 25)),
]


class Conversation:
    """How one conversation goes wrong: everything follows from its number."""

    HOW = (
        "length",
        "cut",
        "unknown type",
        "dropped",
        "doubled",
        "swapped",
        "stray",
        "body short",
        "body long",
        "body bytes",
        "flood",
        "random",
        "replaced",
        "appended",
        "count",
        "field length",
        "split",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        chances = random.Random(number)
        self.how = chances.choice(self.HOW)
        self.work = chances.choice(list(WORK))
        self.at = chances.randint(-1, FLIGHTS[self.work] - 1)
        """Which answer: -1 is what comes after the startup packet, then the flights."""
        self.end = chances.choices(("fin", "rst", "silence"), (10, 10, 1))[0]
        """What comes after an answer that was cut, or where the client waits for more."""
        self._chances = chances

    def spoilt(self, answer: list[Message]) -> Iterator[bytes]:
        """What is sent instead of the answer. Endless, if it is a flood."""
        chances = self._chances
        found = [Message(each.code, each.body) for each in answer]
        index = chances.randrange(len(found))
        one = found[index]
        match self.how:
            case "length":
                one.length = chances.choice(LENGTHS)
            case "cut":
                sent = b"".join(map(bytes, found))
                found = [Message(b"")]
                yield sent[: chances.randrange(len(sent))]
                return
            case "unknown type":
                one.code = bytes([chances.choice([0, 1, 33, 126, 127, 128, 255, *b"QXPBxyz"])])
            case "dropped":
                del found[index]
            case "doubled":
                found.insert(index, one)
            case "swapped":
                chances.shuffle(found)
            case "stray":
                found.insert(index, chances.choice(STRAY))
            case "body short":
                one.body = one.body[: chances.randrange(len(one.body) or 1)]
            case "body long":
                one.body += chances.randbytes(chances.choice((1, 4, 1000)))
            case "body bytes":
                body = bytearray(one.body)
                for _ in range(chances.randint(1, 8)):
                    if body:
                        body[chances.randrange(len(body))] = chances.randrange(256)
                one.body = bytes(body)
            case "flood":
                yield b"".join(map(bytes, found[:index]))
                piece = bytes(chances.choice(FLOODS)) * chances.choice((1, 100, 2000))
                while True:
                    yield piece
            case "random":
                found = [Message(chances.randbytes(1), chances.randbytes(chances.randrange(200))) for _ in range(3)]
            case "replaced":
                found[index] = chances.choice(STRAY)
            case "appended":  # answers of statements that were never sent
                found += [chances.choice(STRAY) for _ in range(chances.randint(1, 3))]
                if chances.random() < 0.5:
                    found += [Message(b"1"), Message(b"2"), described(("a", 23)), row("666"), complete("SELECT 1"), ready(b"I")]
            case "count":
                rows = [each for each in found if each.code in {b"T", b"D", b"t"}] or [one]
                spoilt = chances.choice(rows)
                spoilt.body = struct.pack("!h", chances.choice((-1, 0, 1, 3, 100, 32767))) + spoilt.body[2:]
            case "field length":
                rows = [each for each in found if each.code == b"D" and each.body[2:]] or [one]
                spoilt = chances.choice(rows)
                spoilt.body = spoilt.body[:2] + struct.pack("!i", chances.choice((-2, -100, 5, 1000, GIBIBYTE))) + spoilt.body[6:]
            case "split":  # nothing is wrong, but it comes byte by byte
                for each in b"".join(map(bytes, found)):
                    yield bytes([each])
                return
        yield b"".join(map(bytes, found))


# The server.


def answers(messages: list[tuple[Code, bytes]], status: bytes) -> tuple[list[Message], bytes]:
    """What an honest server answers to a flight, and its transaction status then."""
    found: list[Message] = []
    sql, values = "", []
    for code, body in messages:
        match code:
            case b"P":
                sql = body.split(b"\0")[1].decode()
                found.append(Message(b"1"))
            case b"B":
                values = bound(body)
                found.append(Message(b"2"))
            case b"D":
                found.append(described(("a", 23), ("b", 25)) if sql.startswith("SELECT") else Message(b"n"))
            case b"E" | b"Q":
                if code == b"Q":
                    sql = body[:-1].decode()
                word = sql.split()[0].upper() if sql.split() else ""
                if word == "SELECT":
                    found += [row(values[0] if values else "1", "one"), row("2", None), complete("SELECT 2")]
                elif word == "INSERT":
                    found.append(complete("INSERT 0 1"))
                else:
                    found.append(complete(word))
                status = {"BEGIN": b"T", "COMMIT": b"I", "ROLLBACK": b"I"}.get(word, status)
                if code == b"Q":
                    found.append(ready(status))
            case b"S":
                found.append(ready(status))
    return found, status


def bound(body: bytes) -> list[str]:
    """The values of a Bind message."""
    position = body.index(b"\0", body.index(b"\0") + 1) + 1
    (formats,) = struct.unpack_from("!h", body, position)
    position += 2 + 2 * formats
    (number,) = struct.unpack_from("!h", body, position)
    position += 2
    values = []
    for _ in range(number):
        (length,) = struct.unpack_from("!i", body, position)
        position += 4
        values.append(body[position : position + max(length, 0)].decode())
        position += max(length, 0)
    return values


class Session:
    """One connection of a client."""

    def __init__(self, sock: ssl.SSLSocket, committed: set[int]) -> None:
        self._sock = sock
        self._committed = committed
        self._number = 0
        self._tail = b""
        self._arrived = b""

    def hold(self) -> None:
        """The conversation, until one side has enough of it."""
        (length,) = struct.unpack("!i", self._read(4))
        parameters = self._read(length - 4)[4:].split(b"\0")
        name = dict(zip(parameters[::2], parameters[1::2], strict=False))[b"application_name"].decode()
        self._number = int(name)
        conversation = Conversation(self._number)
        if conversation.at == -1:
            first = [auth(3)]
            is_late = conversation.number % 2  # before the password, or after it
            if not is_late:
                self._spoil(conversation, [*first, *GREETING[:2]])
            else:
                self._send(first)
                self._messages(until=b"p")
                self._spoil(conversation, GREETING)
        else:
            self._send([auth(3)])
            self._messages(until=b"p")
            self._send(GREETING)
        status = b"I"
        for flight in itertools.count():
            found, status = answers(self._messages(until=b"SQ"), status)
            if flight == conversation.at:
                self._spoil(conversation, found)
            else:
                self._send(found)

    def _spoil(self, conversation: Conversation, answer: list[Message]) -> None:
        for piece in conversation.spoilt(answer):
            self._put(piece)
        if conversation.how == "cut":
            self._end(conversation.end)
        elif conversation.how != "split" and not select.select([self._sock], [], [], 0.01)[0]:
            self._end(conversation.end)  # the client waits for more, or for nothing any more

    def _end(self, how: str) -> None:
        if how == "silence":
            self._sock.settimeout(3 * PATIENCE_SECONDS)
            with suppress(TimeoutError):
                while self._sock.recv(65_536):
                    pass
        elif how == "rst":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionAbortedError

    def _send(self, found: list[Message]) -> None:
        self._put(b"".join(map(bytes, found)))

    def _put(self, data: bytes) -> None:
        self._tail = self._tail[-16:] + data
        if b"COMMIT\0" in self._tail:
            self._committed.add(self._number)
        self._sock.sendall(data)

    def _messages(self, until: bytes) -> list[tuple[Code, bytes]]:
        found: list[tuple[Code, bytes]] = []
        while not found or found[-1][0] not in until:
            code = self._read(1)
            (length,) = struct.unpack("!i", self._read(4))
            found.append((code, self._read(length - 4)))
        return found

    def _read(self, size: int) -> bytes:
        while len(self._arrived) < size:
            data = self._sock.recv(65_536)
            if not data:
                raise ConnectionAbortedError
            self._arrived += data
        found, self._arrived = self._arrived[:size], self._arrived[size:]
        return found


NOISE = (
    b"S",
    b"N",
    b"E",
    b"",
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    bytes(failed("FATAL", "08P01", "SSL is mandatory")),
    b"\x15\x03\x03\x00\x02\x02\x28",  # a TLS alert: handshake failure
    b"\x16\x03\x03\xff\xff\x02",  # a handshake record longer than one may be
    b"\x16\x03\x03\x00\x04\x02\xff\xff\xff",  # a ServerHello of 16 MiB
    b"\x17\x03\x03\x00\x10" + bytes(16),
)


def make_noise(sock: socket.socket, chances: random.Random) -> None:
    """Speak no TLS, or the wrong one, to whoever comes."""
    sock.settimeout(3 * PATIENCE_SECONDS)
    sock.recv(65_536)
    sock.sendall(chances.choice(NOISE) + chances.randbytes(chances.choice((0, 0, 5, 100, 5000))))
    match chances.choice(("fin", "rst", "silence")):
        case "rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        case "silence" if chances.random() < 0.2:
            while sock.recv(65_536):
                pass


def serve() -> None:
    """Print two ports and the certificate, and serve one client after the other, until standard input ends. One speaks no TLS.

    Then print in which conversations it said that it had committed.
    """
    committed: set[int] = set()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["postgresql"])
    authority.issue_cert(ENDPOINT).configure_cert(context)
    honest, noisy = (socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(2))
    print(json.dumps([honest.getsockname()[1], noisy.getsockname()[1], authority.cert_pem.bytes().decode()]), flush=True)
    chances = random.Random(0)
    while sys.stdin not in (found := select.select([honest, noisy, sys.stdin], [], [])[0]):
        listener = honest if honest in found else noisy
        accepted, _ = listener.accept()
        with accepted, suppress(OSError, ValueError):
            if listener is noisy:
                make_noise(accepted, chances)
                continue
            accepted.settimeout(10)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(accepted, server_side=True) as secured:
                Session(secured, committed).hold()
    print(json.dumps(sorted(committed)), flush=True)


class Hostile:
    """The server in a process of its own, from `__enter__` to `__exit__`; `committed` afterwards: where it said so."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.hostile", "serve"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        port, self.noise_port, pem = json.loads(self._process.stdout.readline() if self._process.stdout else b"")
        self.options = ConnectOptions(
            host=ENDPOINT,
            hostaddr="127.0.0.1",
            port=port,
            sslrootcert=pem,
            connect_timeout=PATIENCE_SECONDS,
            credentials=Keys(),
        )
        self.committed: set[int] = set()
        return self

    def __exit__(self, *_: object) -> None:
        self.committed = set(json.loads(self._process.communicate()[0]))


class Keys:
    """Credentials, as botocore's class carries them."""

    access_key, secret_key, token = "AKIDEXAMPLE", "hostile-secret", None


# The client.


class Refused(Exception):
    """The function's own error."""


def _read_and_write(tx: Any) -> int:
    tx.value("SELECT 1")
    tx.defer("INSERT INTO t VALUES (:a, :b)", a=1, b="x")
    return 1


def _write(tx: Any) -> int:
    tx.defer("INSERT INTO t VALUES (1)")
    return 1


def _rows(tx: Any) -> int:
    tx.rows("SELECT a, b FROM t")
    tx.run("INSERT INTO t VALUES (1)")
    return 1


def _stream(tx: Any) -> int:
    stream = tx.stream("SELECT a, b FROM t")
    next(stream, None)
    stream.close()
    tx.run("INSERT INTO t VALUES (1)")
    return 1


def _refuse(tx: Any) -> int:
    tx.run("INSERT INTO t VALUES (1)")
    raise Refused


WORK: dict[str, Callable[[Any], int]] = {
    "read and write": _read_and_write,
    "write": _write,
    "rows": _rows,
    "stream": _stream,
    "refuse": _refuse,
}


FLIGHTS = {"read and write": 2, "write": 1, "rows": 3, "stream": 4, "refuse": 2}
"""What leaves in one go: BEGIN with the first statement (a stream's goes ahead), the last writes with COMMIT, ROLLBACK alone."""


@dataclass
class Figures:
    """What became of the conversations."""

    conversations: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    longest_seconds: float = 0.0
    more_memory_mib: float = 0.0
    succeeded: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def allowed() -> tuple[type[BaseException], ...]:
    """The package's own errors: nothing else may come out of it, but the function's own."""
    return DsqlError, DatabaseError, dsql_lambda.ProtocolError, Refused


def converse(options: ConnectOptions, number: int, figures: Figures) -> None:
    """One conversation, and what is wrong with its end."""
    conversation = Conversation(number)
    name = f"{number} ({conversation.how} at {conversation.at}, {conversation.work}, then {conversation.end})"
    figures.conversations += 1
    begun = time.monotonic()
    limit = PATIENCE_SECONDS
    connection = None
    try:
        with limited(PATIENCE_SECONDS + 2 * GRACE_SECONDS):
            connection = connect(options, application_name=str(number))
            limit = PATIENCE_SECONDS + (time.monotonic() - begun)
            value = run_transaction(WORK[conversation.work], source=connection, timeout=PATIENCE_SECONDS)
        figures.endings["value"] += 1
        figures.succeeded.append(value and number)
    except BaseException as error:
        figures.endings[type(error).__name__] += 1
        if not isinstance(error, allowed()):
            figures.faults.append(f"foreign error: {name}: {error!r}")
        if shows_token(error):
            figures.faults.append(f"token shown: {name}: {type(error).__name__}")
        del error
    seconds = time.monotonic() - begun
    figures.longest_seconds = max(figures.longest_seconds, seconds - limit)
    if seconds > limit + GRACE_SECONDS:
        figures.faults.append(f"too long: {name}: {seconds:.2f} s")
    if connection is None:
        return
    # Whatever it was told before, the next statement has its own answer, or none.
    try:
        with suppress(*allowed()), limited(PATIENCE_SECONDS + 2 * GRACE_SECONDS):
            found = run_transaction(
                lambda tx: tx.value("SELECT CAST(:v AS int)", v=number), source=connection, timeout=PATIENCE_SECONDS
            )
            if found != number and conversation.at < 1:
                figures.faults.append(f"another answer: {name}: {found}")
    except BaseException as error:
        figures.faults.append(f"foreign error next: {name}: {error!r}")
    with suppress(*allowed(), Exception):
        connection.close()


def hear_noise(options: ConnectOptions, number: int, figures: Figures) -> None:
    """A try to connect to what speaks no TLS, or not ours."""
    figures.conversations += 1
    begun = time.monotonic()
    try:
        with limited(PATIENCE_SECONDS + 2 * GRACE_SECONDS):
            connect(options).close()
        figures.faults.append(f"connected to noise: {number}")
    except BaseException as error:
        figures.endings["no TLS"] += 1
        if not isinstance(error, ConnectError):
            figures.faults.append(f"foreign error: noise {number}: {error!r}")
        if shows_token(error):
            figures.faults.append(f"token shown: noise {number}: {type(error).__name__}")
        del error
    if time.monotonic() - begun > PATIENCE_SECONDS + GRACE_SECONDS:
        figures.faults.append(f"too long: noise {number}: {time.monotonic() - begun:.2f} s")


def talk(count: int, seed: int, say: Callable[[str], None] = lambda line: None) -> Figures:
    """So many conversations, one after the other."""
    figures = Figures()
    with ended_when_hung(), Hostile() as server:
        for number in range(40):  # what is imported once is not the hostile server's
            converse(server.options, number, Figures())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(seed * 1_000_000, seed * 1_000_000 + count):
            if number % 20:
                converse(server.options, number, figures)
            else:
                hear_noise(server.options.replace(port=server.noise_port), number, figures)
            if figures.conversations % 500 == 0:
                say(f"{figures.conversations} conversations, {len(figures.faults)} faults")
        figures.more_memory_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    figures.faults += [f"false success: {number}" for number in figures.succeeded if number not in server.committed]
    return figures


def main() -> int:
    """Figures as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description="Converse with a hostile server.")
    parser.add_argument("serve", nargs="?", choices=["serve"], help="be the server")
    parser.add_argument("--count", type=int, default=5_000, help="how many conversations (default: 5,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="one conversation, by its number")
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    for name in [name for name in os.environ if name.startswith(("AWS_LAMBDA_", "DSQL_"))]:
        del os.environ[name]
    silence_logs()
    if arguments.only is not None:
        figures = Figures()
        with ended_when_hung(), Hostile() as server:
            converse(server.options, arguments.only, figures)
    else:
        begun = time.monotonic()
        figures = talk(
            arguments.count,
            arguments.seed,
            lambda line: print(f"[{time.monotonic() - begun:6.0f} s] {line}", file=sys.stderr, flush=True),
        )
    print(json.dumps({**figures.__dict__, "succeeded": len(figures.succeeded)}), flush=True)
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
