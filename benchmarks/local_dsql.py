"""What the local DSQL costs: its start, a round trip beside PostgreSQL's own, 64 sessions at once, memory over many transactions.

    python benchmarks/local_dsql.py [--transactions 100000]

One run prints all. It speaks the protocol itself, by blocking sockets, so that no driver's time is in it; the server is a process
of its own, as `serve` starts it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dsql_local import LocalDsql
from dsql_local.postgres.server import Postgres
from dsql_local.protocol.messages import SSL_REQUEST, Message, query, startup


def starts() -> None:
    """How long a start takes, the template being there."""
    found = []
    for _ in range(7):
        began = time.perf_counter()
        with LocalDsql():
            found.append(time.perf_counter() - began)
    print(f"start, template there       {statistics.median(found[1:]) * 1000:8.0f} ms (median of 6)")


class Line:
    """A connection that sends one Query and waits for its ReadyForQuery."""

    def __init__(self, link: socket.socket, parameters: dict[str, str], password: str | None = None) -> None:
        self.link = link
        link.sendall(startup(parameters))
        if password is not None:
            link.recv(65536)
            link.sendall(Message(b"p", password.encode() + b"\0").data)
        self.wait()

    def wait(self) -> bytes:
        data = b""
        while data[-6:-1] != b"Z\0\0\0\5":
            more = self.link.recv(65536)
            if not more:
                raise ConnectionError(data)
            data += more
        return data

    def run(self, sql: str) -> bytes:
        self.link.sendall(query(sql).data)
        return self.wait()


def through_the_front(libpq: dict[str, str]) -> Line:
    link = socket.create_connection((libpq["hostaddr"], int(libpq["port"])))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.sendall(struct.pack("!ii", 8, SSL_REQUEST))
    link.recv(1)
    context = ssl.create_default_context(cafile=libpq["sslrootcert"])
    secured = context.wrap_socket(link, server_hostname=libpq["host"])
    return Line(secured, {"user": libpq["user"], "database": "postgres"}, libpq["password"])


WORKS = {
    "SELECT 1": ("SELECT 1",),
    "100 rows": ("SELECT g FROM generate_series(1, 100) g",),
    "UPDATE": ("UPDATE account SET n = n + 1 WHERE id = 1",),
    "transaction": ("BEGIN", "UPDATE account SET n = n + 1 WHERE id = 1", "INSERT INTO entry VALUES (1)", "COMMIT"),
}


def round_trips(libpq: dict[str, str], rounds: int = 20, each: int = 50) -> None:
    """Every statement of each work, a flight of its own, through all of it and past it by turns: medians."""
    postgres = Postgres()
    postgres.start()
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(postgres.socket))
            lines = (Line(link, {"user": "admin", "database": "postgres"}), through_the_front(libpq))
            for line in lines:
                for sql in ("account (id int PRIMARY KEY, n int)", "entry (n int)"):
                    line.run(f"CREATE TABLE {sql}")
                line.run("INSERT INTO account VALUES (1, 0)")
            found: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
            for _ in range(rounds):
                for (work, statements), which in itertools.product(WORKS.items(), (0, 1)):
                    for sql in statements * each:
                        began = time.perf_counter()
                        lines[which].run(sql)
                        found.setdefault((work, sql), ([], []))[which].append(time.perf_counter() - began)
            for (work, sql), times in found.items():
                alone, through = (statistics.median(seconds) * 1e6 for seconds in times)
                print(
                    f"round trip                  {through:8.0f} us, PostgreSQL's unix socket {alone:.0f} us: "
                    f"{through / alone:.1f} times, {(through - alone) / 1000:+.3f} ms   {work}: {sql}"
                )
    finally:
        postgres.stop()


def sessions(libpq: dict[str, str], count: int, seconds: float) -> None:
    """So many sessions that write rows of their own, at once."""
    lines = [through_the_front(libpq) for _ in range(count)]
    lines[0].run("CREATE TABLE many (id int PRIMARY KEY, n int)")
    lines[0].run(f"INSERT INTO many SELECT g, 0 FROM generate_series(1, {count}) g")
    committed = [0] * count

    def work(number: int) -> None:
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            lines[number].run("BEGIN")
            lines[number].run(f"UPDATE many SET n = n + 1 WHERE id = {number + 1}")
            committed[number] += b"COMMIT\0" in lines[number].run("COMMIT")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(
        f"{count} sessions at once         {sum(committed) / seconds:8.0f} transactions a second, the least busy {min(committed)}"
    )


def memory(libpq: dict[str, str], pid: int, transactions: int) -> None:
    """The server's resident memory while transactions come one after the other."""
    line = through_the_front(libpq)
    line.run("CREATE TABLE one (id int PRIMARY KEY, n int)")
    line.run("INSERT INTO one VALUES (1, 0)")
    seen = []
    for done in range(transactions + 1):
        if done % max(transactions // 5, 1) == 0:
            seen.append(f"{_resident(pid):.1f}")
        line.run("BEGIN")
        line.run(f"UPDATE one SET n = {done} WHERE id = 1")  # each text is another one: no cache may grow with them
        line.run("COMMIT")
    print(f"resident memory             {', '.join(seen)} MiB, every {transactions // 5:,} of {transactions:,} transactions")


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@contextmanager
def served() -> Iterator[tuple[Callable[[], dict[str, str]], int]]:
    """A server in a process of its own: what connects to it, and its process id."""
    from dsql_local.cli.control import request  # noqa: PLC0415 - knows this process's own folder for sockets

    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        command = [sys.executable, "-m", "dsql_local", "serve"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while process.stderr is not None and "Stop it" not in (process.stderr.readline() or "Stop it"):
                pass
            try:
                yield lambda: request(None, "libpq", user="admin"), process.pid
            finally:
                process.terminate()


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--transactions", type=int, default=100_000, help="for the memory (default: %(default)s)")
    options = parser.parse_args()
    starts()
    with served() as (libpq, pid):
        round_trips(libpq())
        sessions(libpq(), 64, 5.0)
        memory(libpq(), pid, options.transactions)


if __name__ == "__main__":
    main()
