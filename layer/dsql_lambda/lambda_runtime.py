"""What Lambda does to a process: the init phase, SnapStart, the deadline of an invocation.

Knows the environment's variables and the runtime's hooks; knows nothing of connections or transactions.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from .fields import check_number
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
    timeout: float | None, remaining_ms: float | None = None, *, turns: int = 1, now: Callable[[], float] = time.monotonic
) -> float:
    """The moment to be done by: `timeout` seconds from now, or a Lambda context's remaining time less a reserve.

    The reserve, half a second or a tenth of what remains if that is less, is for the ROLLBACK, the log record and the answer.
    What is left after it is divided among the `turns` that are still to come. The sooner of the two counts. Raises `ConfigError`
    for a timeout that is not above 0.
    """
    if timeout is not None:
        check_number("timeout", timeout, 0, _LONGEST_TIMEOUT, above=True)
    seconds = NEVER if timeout is None else timeout
    if remaining_ms is not None:
        remaining = remaining_ms / 1000
        seconds = min(seconds, (remaining - min(_RESERVE_SECONDS, remaining * _RESERVE_SHARE)) / turns)
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
    for innermost in _stacks():
        frame: FrameType | None = innermost
        while frame is not None:
            for name in _CONTEXT_NAMES:
                if name in frame.f_code.co_varnames:
                    found = _remaining_of(frame.f_locals.get(name))
                    if found is not None:
                        return found
            frame = frame.f_back
    return None


def turns_left(at_once: int = 1) -> int:
    """How many turns the records of a batch still need, this one's included; 1 where this is no record of a batch.

    Powertools' batch processor is found in the invocation's frames, by its public methods and lists. It takes one record after
    another. An asynchronous one, whose records are handled in threads, takes `at_once` of them at a time, but no more than
    `asyncio` has threads for by default.
    """
    if _BATCH not in sys.modules:
        return 1
    for number, innermost in enumerate(_stacks()):
        frame: FrameType | None = innermost
        while frame is not None:
            name = frame.f_code.co_name
            if name in _PROCESSES and (left := _records_left(frame)) is not None:
                is_parallel = name == "async_process" and number > 0
                return max(1, -(-left // min(at_once, (os.cpu_count() or 1) + 4, 32)) if is_parallel else left)
            frame = frame.f_back
    return 1


def _records_left(frame: FrameType) -> int | None:
    """How many records of its batch a processor has not finished, if the frame is a processor's."""
    processor = frame.f_locals.get("self")
    lists = [getattr(processor, name, None) for name in ("records", "success_messages", "fail_messages")]
    if not all(isinstance(each, list) for each in lists):
        return None
    records, succeeded, failed = (len(each or ()) for each in lists)
    return records - succeeded - failed


def _stacks() -> list[FrameType]:
    """The innermost frames of the stacks that an invocation can be on: this thread's, and in Lambda the main thread's.

    Lambda's runtime calls the handler in the main thread, and the handler may have started this one.
    """
    stacks = [sys._getframe(2)]
    main = threading.main_thread().ident
    if main != threading.get_ident() and is_lambda():
        stacks += [frame for thread, frame in sys._current_frames().items() if thread == main]
    return stacks


_CONTEXT_NAMES = ("context", "lambda_context")  # everybody's, Powertools' and the runtime's names for it
_BATCH = "aws_lambda_powertools.utilities.batch"  # where it is not loaded, no stack is looked through
_PROCESSES = ("process", "async_process")  # methods of Powertools' batch processors


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
