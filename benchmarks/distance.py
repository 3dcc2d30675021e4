"""Distance on one machine: a TCP proxy, a process of its own, that hands on every byte some milliseconds later.

Knows bytes and moments only: TLS passes through. Its delay is each way's, so a round trip takes twice as long.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def away(port: int, round_trip_ms: float) -> Iterator[int]:
    """A port of 127.0.0.1 at which what listens on `port` is so far away; `port` itself for 0 ms."""
    if not round_trip_ms:
        yield port
        return
    command = [sys.executable, "-m", "benchmarks.distance", str(port), str(round_trip_ms / 2000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield int(process.stdout.readline() if process.stdout else b"")
        finally:
            process.terminate()


def _hand_on(source: socket.socket, target: socket.socket, delay: float) -> None:
    on_the_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def deliver() -> None:
        data = b"-"
        while data:
            due, data = on_the_way.get()
            time.sleep(max(due - time.monotonic(), 0))
            with contextlib.suppress(OSError):
                target.sendall(data) if data else target.shutdown(socket.SHUT_WR)

    threading.Thread(target=deliver, daemon=True).start()
    data = b"-"
    while data:
        try:
            data = source.recv(65_536)
        except OSError:
            data = b""
        on_the_way.put((time.monotonic() + delay, data))


def main() -> None:
    """Serve until ended; the first line of output is the port."""
    port, delay = int(sys.argv[1]), float(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for each in (near, far):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for pair in ((near, far), (far, near)):
            threading.Thread(target=_hand_on, args=(*pair, delay), daemon=True).start()


if __name__ == "__main__":
    main()
