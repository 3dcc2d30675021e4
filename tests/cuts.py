"""Links that end at any byte of any phase, and processes that freeze, under deadlines short and long. `python -m tests.cuts`.

`Relay` stands between a client and the local DSQL and cuts, by FIN, RST or silence, when so many bytes have passed it in one
direction: on their way out, so that the server has not seen them, or on their way back, so that it has. `Cutter` does that to
one call, or stops the server's process or the client's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from tests.apart import Apart
from tests.promises import INSERT, Figures, Path, Refused, campaign, judged, quiet, report

from dsql_lambda import ConnectError, DatabaseError, DsqlError, OCCRetryConfig, cached_connection, with_dsql_transaction

OUT, BACK = "out", "back"
FIN, RST, SILENCE, FROZEN, STOPPED = "fin", "rst", "silence", "frozen", "stopped"
PHASES = ("connect", "begin", "statement", "stream", "commit", "rollback")
DEADLINES_MS = (0, 1, 5, 50, 2_000)
STOPPED_SECONDS = 0.1
LATE_SECONDS = 0.5
"""How much later than its deadline a call may end on a busy machine."""


class Relay:
    """Between the clients and the server. Bytes are TLS's; it opens none of them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._awake, self._waker = socket.socketpair()
        self._selector.register(self._awake, selectors.EVENT_READ)
        self._peer: dict[socket.socket, socket.socket] = {}
        self._direction: dict[socket.socket, str] = {}
        self._deaf: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._cut: tuple[str, int, str] | None = None
        self.passed = {OUT: 0, BACK: 0}
        """Bytes since it was armed."""
        self.has_cut = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waker.close()
        self._thread.join()

    def arm(self, cut: tuple[str, int, str] | None) -> None:
        """Count from now on; cut in this direction, after so many bytes, in this way. None only counts."""
        with self._lock:
            self.passed = {OUT: 0, BACK: 0}
            self.has_cut = False
            self._cut = cut

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                one = key.fileobj
                if one is self._awake:
                    for each in [*self._peer, self._listener, self._awake]:
                        each.close()
                    self._selector.close()
                    return
                if one is self._listener:
                    self._accept()
                elif one in self._peer:
                    with self._lock:
                        self._pass_on(one)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._address)
        for one, other, direction in ((client, server, OUT), (server, client, BACK)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peer[one], self._direction[one] = other, direction
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, one: socket.socket) -> None:
        try:
            data = one.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._end(one, FIN)
            return
        if one in self._deaf:
            return
        direction = self._direction[one]
        before = self.passed[direction]
        self.passed[direction] += len(data)
        cut = self._cut if self._cut is not None and self._cut[0] == direction else None
        # Silence keeps a byte back: after the last one the call is over, and the link is as good as an idle one.
        if cut is not None and self.passed[direction] < cut[1] + (cut[2] == SILENCE):
            cut = None
        with suppress(OSError):
            self._peer[one].sendall(data if cut is None else data[: max(cut[1] - before, 0)])
        if cut is not None:
            self._cut = None
            self.has_cut = True
            self._end(one, cut[2])

    def _end(self, one: socket.socket, how: str) -> None:
        """Both sides. A silent link stays open until the client closes it."""
        both = one, self._peer[one]
        if how == SILENCE:
            self._deaf.update(both)
            return
        for each in both:
            if how == RST:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._selector.unregister(each)
            del self._peer[each], self._direction[each]
            self._deaf.discard(each)
            each.close()


@dataclass
class Context:
    """A Lambda context that has so many milliseconds left."""

    remaining_ms: float
    begun_at: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        """As Lambda's."""
        return int(self.remaining_ms - (time.monotonic() - self.begun_at) * 1000)


class CutPath(Path):
    """A handler whose function says which phase comes next."""

    def __init__(self, dsql: Apart, relay: Relay, phase: str) -> None:
        super().__init__(f"cut {phase}", dsql)
        self.relay = relay
        self.phase = phase
        self.inject: Callable[[], None] = lambda: None
        self.remaining_ms = 2_000.0
        probe = {"probe_after_secs": 0.0} if phase == "begin" else {}
        self.options = self.options.replace(port=relay.port, **probe)

        @with_dsql_transaction(options=self.options, logger=quiet, retry=OCCRetryConfig.for_lambda())
        def handler(event: int, context: Context, tx: Any) -> int:
            self.ran += 1
            if phase == "stream":
                with tx.stream("SELECT i, repeat('x', 400) AS x FROM generate_series(1, 300) i") as rows:
                    for row in rows:
                        if row["i"] == 1:
                            self._inject()
                        if row["i"] == 250:
                            break
            else:
                tx.value("SELECT 1")
            if phase == "statement":
                self._inject()
            tx.run(INSERT, run=event, attempt=tx.attempt)
            if phase == "rollback":
                self._inject()
                raise Refused
            if phase == "commit":
                self._inject()
            attempt: int = tx.attempt
            return attempt

        @with_dsql_transaction(options=self.options, timeout=5)
        def answer(value: int, *, tx: Any) -> int:
            found: int = tx.value("SELECT CAST(:value AS int)", value=value)
            return found

        self.go = lambda run: handler(run, Context(self.remaining_ms))
        self.ask = answer

    def _inject(self) -> None:
        inject, self.inject = self.inject, lambda: None
        inject()

    def begin(self) -> None:
        """The phases that begin with the call."""
        if self.phase in {"connect", "begin"}:
            self._inject()

    def prepare(self) -> None:
        """Warm, but where connecting is what is cut."""
        self.ran = 0
        cached_connection(self.options)
        if self.phase == "connect":
            cached_connection(self.options).close()


class Cutter:
    """Cuts one call of a `CutPath`."""

    def __init__(self, dsql: Apart, relay: Relay) -> None:
        self.causes: tuple[type[BaseException], ...] = (DsqlError, DatabaseError)
        self.dsql = dsql
        self.relay = relay
        self.raised: BaseException | None = None
        self.cut: tuple[str, int, str] = (OUT, 0, FIN)
        self.path: CutPath | None = None
        self.seconds = 0.0

    def call(self, function: Callable[[int], int], run: int) -> int:
        """`function(run)`, cut."""
        if self.path is None:
            raise AssertionError("no path")
        self.raised = None
        self.relay.arm(None)
        self.path.inject = self._inject
        begun = time.monotonic()
        try:
            self.path.begin()
            return function(run)
        finally:
            self.seconds = time.monotonic() - begun
            if self.cut[2] == STOPPED:
                self.seconds -= STOPPED_SECONDS
            if self.relay.has_cut or self.cut[2] in {FROZEN, STOPPED}:
                self.raised = ConnectError(f"{self.path.phase} was cut: {self.cut}, {self.path.remaining_ms} ms")
            self.relay.arm(None)
            os.kill(self.dsql.pid, signal.SIGCONT)

    def _inject(self) -> None:
        if self.cut[2] == FROZEN:
            os.kill(self.dsql.pid, signal.SIGSTOP)
        elif self.cut[2] == STOPPED:
            self.dsql.stop_me(STOPPED_SECONDS)
        else:
            self.relay.arm(self.cut)


def cut(number: int, seed: int, say: Callable[[str], None] = lambda line: None) -> tuple[Figures, float]:
    """So many calls, cut by seed; and by how many seconds the latest ended after its deadline."""
    chances = random.Random(seed)
    figures = Figures("cut")
    latest = 0.0
    with campaign() as dsql, Relay((dsql.host, dsql.port)) as relay:
        cutter = Cutter(dsql, relay)
        runs = itertools.count(1)
        for done in range(0, number, 20):
            path = CutPath(dsql, relay, chances.choice(PHASES))
            cutter.path = path
            sizes = _sizes(path, relay, next(runs))
            for _ in range(min(20, number - done)):
                direction = chances.choice((OUT, BACK))
                how = chances.choices((FIN, RST, SILENCE, FROZEN, STOPPED), (6, 6, 3, 1, 1))[0]
                cutter.cut = direction, chances.randint(1, max(sizes[direction], 1)), how
                is_silent = how in {SILENCE, FROZEN}
                path.remaining_ms = chances.choices(DEADLINES_MS, (1, 1, 2, 4, 0.3) if is_silent else (1, 1, 1, 3, 8))[0]
                figures.path = path.name
                is_well = judged(path, cutter, figures, next(runs))
                late = cutter.seconds - path.remaining_ms / 1000
                latest = max(latest, late)
                if late > LATE_SECONDS:
                    figures.fault(
                        "late", f"{late:.2f} s after a deadline of {path.remaining_ms} ms", ConnectError(str(cutter.cut))
                    )
                if not is_well:
                    dsql.ask("close_connections")
                    path = CutPath(dsql, relay, path.phase)
                    cutter.path = path
            with suppress(Exception):
                path.close()
            say(f"{done + 20} calls, {figures.interrupted} cut, {len(figures.faults)} faults")
    return figures, latest


def _sizes(path: CutPath, relay: Relay, run: int) -> dict[str, int]:
    """How many bytes pass in each direction from the phase's beginning to the call's end."""
    path.remaining_ms = 60_000
    for each in range(2):
        path.prepare()
        path.inject = lambda: relay.arm(None)
        path.begin()
        with suppress(Refused):
            path.go(-2 * run - each)
    return relay.passed


def main() -> int:
    """Figures as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.cuts", description="Cut links at any byte of any phase.")
    parser.add_argument("--count", type=int, default=2_400, help="how many calls (default: 2,400)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    begun = time.monotonic()
    figures, latest = cut(
        arguments.count,
        arguments.seed,
        lambda line: print(f"[{time.monotonic() - begun:6.0f} s] {line}", file=sys.stderr, flush=True),
    )
    print(json.dumps({**figures.summary(), "path": "cuts", "latest_seconds": round(latest, 3)}), flush=True)
    report(figures)
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
