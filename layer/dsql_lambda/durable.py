"""Steps of a durable function that are transactions: `durable_transaction`. Loaded only when it is named.

A step runs at least once: between its effect and its checkpoint the process can end, and then it runs again. Its transaction
carries a receipt, a row keyed by the execution and the operation, so a step that ran and was not checkpointed answers from it.
https://docs.aws.amazon.com/lambda/latest/dg/durable-functions.html
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from .cache import source_for
from .claim import ConnectionSource
from .errors import TransactionError
from .idempotency import MOST_BYTES, Idempotency
from .json_text import to_json
from .lambda_runtime import deadline_after, remaining_ms
from .once import Once
from .retry import OCCRetryConfig
from .runner import run_in_transaction
from .telemetry import Telemetry
from .transaction import Transaction

T = TypeVar("T")

RECEIPTS = Idempotency(key="execution and operation", ttl_seconds=366 * 86_400)
"""Receipts outlive the longest execution, which is a year."""


class DurableContext(Protocol):
    """What is wanted of the SDK's."""

    lambda_context: Any
    execution_context: Any

    def step(self, func: Callable[[Any], Any], name: str | None = None, config: Any = None) -> Any:
        """Run a function, and checkpoint its result."""


def durable_transaction(
    context: DurableContext,
    function: Callable[[Transaction], T],
    *,
    name: str | None = None,
    config: Any = None,
    source: ConnectionSource | None = None,
    retry: OCCRetryConfig | None = None,
    timeout: float | None = None,
    receipts: Idempotency = RECEIPTS,
) -> T:
    """Run `function(tx)` as a step of a durable function, applied once however often the step runs.

    `config` is the SDK's `StepConfig`; `source`, `retry` and `timeout` are those of `run_transaction`; the deadline is that of
    `context.lambda_context`. `receipts` names the table and says how long a receipt is kept. What is returned is what JSON makes
    of the function's value, in the first run too. Raises what `context.step` raises for what `run_transaction` raises.
    """

    def step(step_context: Any) -> T:
        once = Once(receipts, _receipt_id(context, step_context), "")
        value = run_in_transaction(
            function,
            source_for(None) if source is None else source,
            retry=retry,
            deadline_at=deadline_after(timeout, remaining_ms((context,))),
            telemetry=Telemetry(function),
            once=once,
        )
        plain: T = json.loads(to_json(value, most_bytes=MOST_BYTES))
        return plain

    result: T = context.step(step, name=name or getattr(function, "__name__", None), config=config)
    return result


def _receipt_id(context: DurableContext, step_context: Any) -> str:
    """Which operation of which execution this is. The SDK tells a step its operation only in the fields of its logger."""
    operation = getattr(step_context.logger, "_default_extra", {}).get("operationId")
    if not operation:
        raise TransactionError(
            "the durable SDK does not say which operation the step is: durable_transaction() knows version 3 of "
            "aws-durable-execution-sdk-python"
        )
    execution = context.execution_context.durable_execution_arn
    return hashlib.sha256(json.dumps(["durable", execution, operation]).encode()).hexdigest()
