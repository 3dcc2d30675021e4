"""What the package asks the operating system for: clocks, sleep, random numbers, TCP connections. `System`.

Passed down as one value, so that a test can stand in for any of it. Knows nothing of TLS, PostgreSQL or Lambda.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any, Final

NEVER: Final = float("inf")
"""The moment of a deadline that there is none."""


def random_number() -> float:
    """From 0 to 1, of the operating system's: environments restored from one snapshot must not draw the same numbers."""
    return (int.from_bytes(os.urandom(7), "big") >> 3) * 2.0**-53


def open_tcp(address: tuple[str, int], timeout: float) -> socket.socket:
    """Try the addresses of a name one after the other, within `timeout` seconds in all.

    Each address gets an equal share of the time that is left, so that a dead one leaves time for the others. Resolving the
    name takes the system's own time.
    """
    end = time.monotonic() + timeout
    failure: OSError = OSError(f"{address[0]} has no address")
    name: Any = ascii_name(address[0])
    found = socket.getaddrinfo(name, address[1], 0, socket.SOCK_STREAM)
    for index, (family, kind, protocol, _, target) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max((end - time.monotonic()) / (len(found) - index), 0.001))
            sock.connect(target)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def ascii_name(name: str) -> str | bytes:
    """A host's name as bytes where it can be: as text it would load the IDNA codec."""
    return name.encode("ascii") if name.isascii() else name


class System:
    """Clocks, sleep, random numbers and the opener of TCP connections."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random_number,
        opener: Callable[..., socket.socket] = open_tcp,
    ) -> None:
        self.clock = clock
        """Wall time in seconds since 1970: ages are judged by it, since the monotonic clock may stop in a frozen environment."""
        self.monotonic = monotonic
        """Seconds of a clock that never goes back: waits and deadlines inside one invocation."""
        self.sleep = sleep
        self.random = random
        """Numbers from 0 to 1."""
        self.opener = opener
        """What opens a TCP connection: of an address and `timeout`, in seconds."""


SYSTEM = System()
"""The real one."""
