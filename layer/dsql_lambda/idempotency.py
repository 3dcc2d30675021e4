"""By which key an event is handled once, and for how long: `Idempotency`, and the table that remembers it.

Knows events, keys, hashes, and the statements on the table. Knows nothing of connections, retries, or when the statements run
(module `once`). `jmespath` is imported where an expression is used; Powertools brings it.

    id            SHA-256 of the function, the caller and the key: a key of any length fits DSQL's limit
    payload       SHA-256 of what the event asks for
    owner         which attempt wrote the row
    result        the function's value as JSON; NULL in a marker, which proves that an earlier COMMIT can't land any more
    expires_at    when the row counts no more, by the server's clock
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from .errors import ConfigError, TransactionError
from .fields import Frozen, check_choice, check_number, check_table, check_text
from .json_text import plain

Lookup = Literal["first", "ride"]
Picked = str | Callable[[Any], Any]

MOST_BYTES = 1024 * 1024  # of a result: DSQL's limit for a column
_LONGEST_TTL = 10 * 366 * 86_400

# What of an event a second delivery, or a client's second try, has too: the first row whose names are all in the event.
_SAME_EACH_TIME = (
    (("messageId", "body"), ("body",)),  # a record of SQS
    (("detail-type", "detail"), ("detail-type", "detail")),  # EventBridge
    (("Sns",), ("Sns.Message",)),  # a record of SNS
    (("eventID", "kinesis"), ("kinesis.data",)),  # a record of Kinesis
    (("eventID", "dynamodb"), ("eventID",)),  # a record of a DynamoDB stream; its images may have sets, which have no order
    (("raw_path", "method"), ("method", "raw_path", "query_string_parameters", "body")),  # VPC Lattice, and its second version
    (("requestContext", "method"), ("method", "path", "queryStringParameters", "body")),
    (("requestContext",), ("requestContext.http.method", "httpMethod", "rawPath", "path", "queryStringParameters", "body")),
)


class IdempotencyKeyMissing(TransactionError):
    """The event has no idempotency key, or no caller, where the function's `Idempotency` looks for it. Nothing was done."""


class IdempotencyKeyReused(TransactionError):
    """An earlier event had the same idempotency key and another payload. Nothing was done."""


class Idempotency(Frozen):
    """Handle each event once: its key and the function's result are committed with the function's own work, or not at all.

    A later event with the same key gets the stored result, and the function is not called. `key`, `payload` and `caller` are
    JMESPath expressions into the event, as in Powertools, or functions of the event. The event is the argument `event`, or
    the first one if none has that name. The table is `Idempotency.table`'s; `create_table()` is the statement that makes it.

    Raises `ConfigError` for a value out of its bounds or an expression that is none.
    """

    key: Picked
    """What names the event, as `headers."idempotency-key"`. None, and what is empty, is an `IdempotencyKeyMissing`."""
    ttl_seconds: float
    """How long a key is remembered for. A delivery after that is a new one."""
    lookup: Lookup
    """`first` reads the key with BEGIN: one flight more. `ride` writes it with COMMIT: none more, but a second delivery runs
    the function, and rolls back what it did."""
    payload: Picked | None
    """What must not differ between two events with one key. None: the whole event, but of an HTTP request, an SQS record, an
    SNS record or an event of EventBridge what is the same each time."""
    caller: Picked | None
    """Whose key it is, as `requestContext.authorizer.iam.userArn`. None: keys are the function's."""
    scope: str | None
    """Which function's keys these are. None: the Lambda function's name with the decorated function's module and name."""
    table: str
    """The table, with its schema if need be."""

    def __init__(
        self,
        *,
        key: Picked,
        ttl_seconds: float = 86_400,
        lookup: Lookup = "first",
        payload: Picked | None = None,
        caller: Picked | None = None,
        scope: str | None = None,
        table: str = "dsql_lambda_idempotency",
    ) -> None:
        for name, picked in (("key", key), ("payload", payload), ("caller", caller)):
            if not (callable(picked) or (isinstance(picked, str) and picked) or (picked is None and name != "key")):
                raise ConfigError(f"{name} is {picked!r}: it must be a JMESPath expression or a function of the event")
        check_number("ttl_seconds", ttl_seconds, 0, _LONGEST_TTL, above=True)
        check_choice("lookup", lookup, get_args(Lookup))
        if scope is not None:
            check_text("scope", scope)
        check_table("table", table)
        self.__dict__.update(
            key=key, ttl_seconds=ttl_seconds, lookup=lookup, payload=payload, caller=caller, scope=scope, table=table
        )

    def create_table(self) -> str:
        """The statement that makes the table: one, as DSQL wants it, to be run once by who owns the schema."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self.table} (id text PRIMARY KEY, payload text NOT NULL, owner text NOT NULL, "
            "result text, expires_at timestamptz NOT NULL)"
        )

    def delete_expired(self) -> str:
        """The statement that removes a thousand expired rows (DSQL takes 3,000 a transaction). Repeat it until none is left."""
        expired = f"SELECT id FROM {self.table} WHERE expires_at <= CURRENT_TIMESTAMP LIMIT 1000"  # noqa: S608 - a checked name
        return f"DELETE FROM {self.table} WHERE id IN ({expired})"  # noqa: S608


class Keys:
    """What one function's events are recognized by, made at decoration. Raises `ConfigError` for a wrong expression."""

    def __init__(self, idempotency: Idempotency, function: Callable[..., Any], names: Sequence[str] = ()) -> None:
        """`names` are those of the function's parameters that an event can be among."""
        self.idempotency = idempotency
        self._key = _picker("key", idempotency.key)
        self._payload = _picker("payload", idempotency.payload) if idempotency.payload is not None else _same_each_time
        self._caller = _picker("caller", idempotency.caller) if idempotency.caller is not None else None
        self._name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
        self._place, self._event_name = _place_of_event(names)
        if idempotency.scope is None and "<lambda>" in self._name:
            raise ConfigError("a lambda has no name for its keys to belong to: give Idempotency a scope")

    def event_of(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """The event among a call's arguments; None if it has none."""
        if self._event_name in keywords:
            return keywords[self._event_name]
        return arguments[self._place] if self._place < len(arguments) else None

    def of(self, event: Any) -> tuple[str, str]:
        """The row's id and the payload's hash. Raises `IdempotencyKeyMissing`."""
        key = self._key(event)
        if _is_missing(key):
            raise IdempotencyKeyMissing(
                f"the event has no idempotency key ({_said(self.idempotency.key)}): send one, or look for it elsewhere"
            )
        caller = self._caller(event) if self._caller is not None else ""
        if _is_missing(caller) and self._caller is not None:
            raise IdempotencyKeyMissing(f"the event has no caller ({_said(self.idempotency.caller)}) for the key to belong to")
        scope = self.idempotency.scope
        if scope is None:
            scope = f"{os.environ.get('AWS_LAMBDA_FUNCTION_NAME', '')}.{self._name}"
        return _hash([scope, caller, key]), _hash(self._payload(event))


def part_of(key: str, part: Any, content: Any) -> tuple[str, str]:
    """The row's id and the payload's hash for a part of the work on an event, given the id for the whole."""
    return _hash([key, part]), _hash(content)


def _hash(value: Any) -> str:
    """Of a value as JSON; what has no JSON type counts by its text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_text_of).encode()).hexdigest()


def _text_of(value: Any) -> Any:
    found = plain(value)
    return str(value) if found is value else found


def _is_missing(value: Any) -> bool:
    """As Powertools has it: nothing, or a list or a dict of nothing. 0 and False are keys."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return all(each is None for each in value)
    return value is None or value == ""


def _said(picked: Picked | None) -> str:
    return picked if isinstance(picked, str) else getattr(picked, "__qualname__", repr(picked))


def _same_each_time(event: Any) -> Any:
    """What of an event is the same in each delivery of it."""
    event = plain(event)
    if isinstance(event, Mapping):
        for names, kept in _SAME_EACH_TIME:
            if all(name in event for name in names):
                return [_at(event, path) for path in kept]
    return event


def _at(event: Any, path: str) -> Any:
    for name in path.split("."):
        event = event.get(name) if isinstance(event, Mapping) else None
    return event


def _place_of_event(names: Sequence[str]) -> tuple[int, str]:
    if "event" in names:
        return names.index("event"), "event"
    place = 1 if names[:1] in (["self"], ["cls"]) else 0
    return place, names[place] if place < len(names) else ""


def _picker(name: str, picked: Picked) -> Callable[[Any], Any]:
    """What takes a value out of an event."""
    if callable(picked):
        return picked
    try:
        import jmespath  # noqa: PLC0415 - only where an expression is used
        from jmespath.exceptions import JMESPathError  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"{name} is a JMESPath expression, and jmespath is not installed: Powertools brings it") from error
    options = None
    if "powertools_" in picked:
        from aws_lambda_powertools.utilities.jmespath_utils import PowertoolsFunctions  # noqa: PLC0415

        options = jmespath.Options(custom_functions=PowertoolsFunctions())
    try:
        compiled = jmespath.compile(picked)
    except JMESPathError as error:
        raise ConfigError(f"{name} is {picked!r}, which is no JMESPath expression: {error}") from error
    return lambda event: compiled.search(plain(event), options=options)
