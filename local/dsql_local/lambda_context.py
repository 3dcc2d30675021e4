"""The context object of a Lambda invocation, for tests that call a handler directly. Standard library only."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["LambdaContext"]


@dataclass(kw_only=True)
class LambdaContext:
    """The second argument of a handler. The invocation starts when this is created, and may take `timeout` seconds.

    `clock` returns seconds; a test can pass its own to control time.
    """

    timeout: float = 30.0
    clock: Callable[[], float] = time.monotonic
    function_name: str = "function"
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 128
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    identity: object = None
    client_context: object = None

    def __post_init__(self) -> None:
        self.begins_again()

    def begins_again(self) -> None:
        """Let the invocation start now."""
        self._ends_at = self.clock() + self.timeout

    def get_remaining_time_in_millis(self) -> int:
        """The remaining time in milliseconds, at least 0."""
        return max(0, int((self._ends_at - self.clock()) * 1000))

    @property
    def invoked_function_arn(self) -> str:
        """The function's ARN, in the account 123456789012."""
        return f"arn:aws:lambda:us-east-1:123456789012:function:{self.function_name}"

    @property
    def log_group_name(self) -> str:
        """The name of the function's log group."""
        return f"/aws/lambda/{self.function_name}"

    @property
    def log_stream_name(self) -> str:
        """The name of a log stream."""
        return f"2026/01/01/[{self.function_version}]{uuid.UUID(int=0).hex}"
