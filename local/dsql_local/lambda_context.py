"""The context object that Lambda hands to a handler, for tests that call the handler themselves. Standard library only."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["LambdaContext"]


@dataclass(kw_only=True)
class LambdaContext:
    """What a handler finds in its second argument; the invocation begins when it is made, and has `timeout` seconds.

    `clock` gives seconds, `time.monotonic` unless a test wants to be the one that lets time pass.
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
        """The invocation begins now."""
        self._ends_at = self.clock() + self.timeout

    def get_remaining_time_in_millis(self) -> int:
        """How long it still has; 0 when it is over."""
        return max(0, int((self._ends_at - self.clock()) * 1000))

    @property
    def invoked_function_arn(self) -> str:
        """The function's ARN, in an account that is nobody's."""
        return f"arn:aws:lambda:us-east-1:123456789012:function:{self.function_name}"

    @property
    def log_group_name(self) -> str:
        """Where its log would be."""
        return f"/aws/lambda/{self.function_name}"

    @property
    def log_stream_name(self) -> str:
        """The same, of this execution environment."""
        return f"2026/01/01/[{self.function_version}]{uuid.UUID(int=0).hex}"
