"""What Lambda does to a process: the init phase, SnapStart, the deadline of an invocation.

Knows the environment's variables and the runtime's hooks; knows nothing of connections or transactions.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from .checks import check_number
from .system import NEVER

INIT_SECONDS: Final = 3.0
"""How long the init phase waits for a connection: one try."""

_RESERVE_SECONDS = 0.5  # of an invocation: for the ROLLBACK, the log record and the answer
_RESERVE_SHARE = 0.1
_LONGEST_TIMEOUT = 86_400


def is_lambda() -> bool:
    """Does this process run in a Lambda execution environment?"""
    return bool(os.environ.get("AWS_LAMBDA_RUNTIME_API"))


def connects_at_init() -> bool:
    """Is a connection opened while the handler's module is imported?

    The init phase has a whole CPU. Only on demand: provisioned environments wait long for their first invocation, and a
    snapshot must hold no connection. `DSQL_CONNECT_AT_INIT=0` turns it off.
    """
    is_off = os.environ.get("DSQL_CONNECT_AT_INIT", "").lower() in {"0", "off", "false", "no"}
    return is_lambda() and os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "on-demand" and not is_off


def deadline_after(
    timeout: float | None, remaining_ms: float | None = None, *, now: Callable[[], float] = time.monotonic
) -> float:
    """The moment to be done by: `timeout` seconds from now, or a Lambda context's remaining time less a reserve.

    The reserve, half a second or a tenth of what remains if that is less, is for the ROLLBACK, the log record and the answer.
    The sooner of the two counts. Raises `ConfigError` for a timeout that is not above 0.
    """
    if timeout is not None:
        check_number("timeout", timeout, 0, _LONGEST_TIMEOUT, above=True)
    seconds = NEVER if timeout is None else timeout
    if remaining_ms is not None:
        remaining = remaining_ms / 1000
        seconds = min(seconds, remaining - min(_RESERVE_SECONDS, remaining * _RESERVE_SHARE))
    return NEVER if seconds == NEVER else now() + seconds


def remaining_ms(arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None) -> float | None:
    """What is left of the invocation, in milliseconds; below 0 on Managed Instances, where code runs on.

    By the Lambda context among the arguments, else by the one that the invocation's frames have: a route, a record handler and
    `run_transaction` get none, but the handler, Powertools' resolver or processor, and the runtime, which called them, did.
    """
    for each in (*arguments, *(keywords or {}).values()):
        found = _remaining_of(each)
        if found is not None:
            return found
    frame = sys._getframe(1)
    while (caller := frame.f_back) is not None:
        frame = caller
        for name in _CONTEXT_NAMES:
            if name in frame.f_code.co_varnames:
                found = _remaining_of(frame.f_locals.get(name))
                if found is not None:
                    return found
    return None


_CONTEXT_NAMES = ("context", "lambda_context")  # everybody's, Powertools' and the runtime's names for it


def _remaining_of(context: Any) -> float | None:
    get = getattr(context, "get_remaining_time_in_millis", None)
    if get is None:  # a durable context has it inside
        get = getattr(getattr(context, "lambda_context", None), "get_remaining_time_in_millis", None)
    if get is not None and isinstance(remaining := get(), int | float):
        return float(remaining)
    return None


_hooks: list[Callable[[], None]] = []


def before_snapshot(close_all: Callable[[], None]) -> None:
    """Have `close_all` called before SnapStart takes its snapshot. Registered once; elsewhere than in SnapStart, never."""
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") != "snap-start" or close_all in _hooks:
        return
    try:
        from snapshot_restore_py import register_before_snapshot  # noqa: PLC0415 - the runtime has it where SnapStart is
    except ImportError:
        return
    _hooks.append(close_all)
    register_before_snapshot(close_all)
