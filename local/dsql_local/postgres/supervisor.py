"""The process that outlives its caller by a moment: runs PostgreSQL, then stops it and deletes its folder.

Started as a script, in a session of its own, by `postgres`: `reaper.py <folder> <user id or -> <group id or -> <command…>`.
A byte on its standard input lets it run the command; the next byte, or the input's end (the caller died in whatever
way), or the command's own end makes it kill what is left of the command. It removes the folder last.
Standard library only; it imports nothing of this package.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time

STOP_SECONDS = 5.0  # an immediate shutdown takes some 20 ms


def main(folder: str, user: str, group: str, *command: str) -> int:
    """Run the command until standard input ends; leave nothing of it."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stop_read, stop_write = os.pipe()
    os.set_blocking(stop_write, False)
    signal.set_wakeup_fd(stop_write)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    identity = {} if user == "-" else {"user": int(user), "group": int(group), "extra_groups": list[int]()}
    try:
        if not os.read(sys.stdin.fileno(), 1):
            return 0
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **identity)  # type: ignore[call-overload]
        try:
            select.select([sys.stdin.fileno(), stop_read], [], [])  # the caller's end, a signal, or the server's end
        finally:
            _end(server)
    finally:
        _remove(folder)
    return 0


def _remove(folder: str) -> None:
    """Remove the folder; again, if a copy that its killed caller has begun was still writing to it: that fails soon."""
    deadline = time.monotonic() + STOP_SECONDS
    while os.path.lexists(folder) and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """PostgreSQL's immediate shutdown (its data is thrown away anyway); by force if it does not come."""
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
