"""`retry_on_occ`: transactions that somebody else runs, again when they meet a conflict.

Knows only that a function is called and what it raises. The loop's decisions are module `runner`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .attempt import Ending, Outcome
from .lambda_runtime import deadline_after
from .occ import classify_occ
from .retry import OCCRetryConfig
from .runner import Loop
from .system import SYSTEM
from .telemetry import Telemetry

if TYPE_CHECKING:
    from .emf import Metrics
    from .subsegments import Tracer
else:
    Metrics = Tracer = Any  # for `typing.get_type_hints`: whoever uses one has loaded it

T = TypeVar("T")


def retry_on_occ(
    function: Callable[[], T],
    retry: OCCRetryConfig | None = None,
    *,
    timeout: float | None = None,
    logger: Any = None,
    metrics: Metrics | None = None,
    tracer: Tracer | None = None,
) -> T:
    """Call a function that runs its own transaction, again when it raises a conflict.

    The function may be called several times: it must have no effect outside its transaction. A conflict is found along
    `__cause__` and `orig` too, as Django, Tortoise and SQLAlchemy wrap it. After `timeout` seconds no other attempt begins.
    `logger`, `metrics` and `tracer` are Powertools'. Raises `OCCRetryExhausted` when no attempt is left, its last conflict as
    the `__cause__`; any other error as it is.
    """
    telemetry = Telemetry(function, logger=logger, metrics=metrics, tracer=tracer)
    loop = Loop(retry, deadline_after(timeout), telemetry)
    observation = telemetry.observe(None, SYSTEM)
    try:
        while True:
            if observation is not None:
                observation.begin_attempt(loop.attempt)
            try:
                value = function()
            except Exception as error:
                conflict = classify_occ(error)
                if conflict is None:
                    raise
                outcome = Outcome(Ending.CONFLICT, error=error, conflict=conflict)
            else:
                break
            if observation is not None:
                observation.end_attempt(outcome.ending.value, conflict=conflict, error=outcome.error)
            loop.go_on_after(outcome)
    except BaseException as error:
        if observation is not None:
            observation.end(error=error)
        raise
    if observation is not None:
        observation.end_attempt(Ending.COMMITTED.value)
        observation.end(Ending.COMMITTED.value)
    return value
