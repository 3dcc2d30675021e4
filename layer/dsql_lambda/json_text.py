"""Values as JSON: `jsonable` for a response, `to_json` for a result that is stored, and where a value can't be written.

Knows Python's types and Powertools' conventions (Decimal as text; dataclasses and pydantic models as objects). Knows nothing of
transactions. `Decimal` and `UUID` are recognized by their modules, so that neither is imported for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .errors import TransactionError

_ISO = ("datetime", "date", "time")
_DEEPEST = 500


class ResponseError(TransactionError):
    """The function's value can't be marshalled by Lambda, or stored as JSON. Says which part of it; nothing was committed."""


def jsonable(value: Any) -> Any:
    """The same value in JSON's types: what Lambda can marshal, and `json.dumps` can write.

    UUID and Decimal become text, for no digit may be lost; datetime, date and time become text as ISO 8601 has it. Mappings,
    lists and tuples are converted inside. Raises `ResponseError` for any other type, with its place: `[3].photo: bytes`.
    """
    return _converted(value, "", 0)


def _converted(value: Any, path: str, depth: int) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if depth > _DEEPEST:
        raise ResponseError(f"{path[:80] or 'the value'}... is nested too deep, or holds itself: JSON can't have that")
    if isinstance(value, Mapping):
        return {_key(key, path): _converted(each, f"{path}.{key}", depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_converted(each, f"{path}[{number}]", depth + 1) for number, each in enumerate(value)]
    kind = type(value)
    if (kind.__module__, kind.__name__) in {("uuid", "UUID"), ("decimal", "Decimal")}:
        return str(value)
    if kind.__module__ == "datetime" and kind.__name__ in _ISO:
        return value.isoformat()
    raise ResponseError(f"{_place(path)}: {kind.__name__} has no JSON type: convert it yourself, to text or a number")


def _key(key: Any, path: str) -> str:
    if isinstance(key, str):
        return key
    text = _converted(key, f"{path}.{key}", 0)
    return text if isinstance(text, str) else json.dumps(text)


def to_json(value: Any, *, most_bytes: int) -> str:
    """The value as Powertools' idempotency stores it: sorted keys, ASCII, Decimal as text, models as objects.

    Raises `ResponseError` for a value that JSON can't hold, with its place and type, and for one longer than `most_bytes`.
    """
    try:
        text = json.dumps(value, default=_as_powertools, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        where = place_of_failure(value, lambda each: json.dumps(each, default=_as_powertools, sort_keys=True))
        raise ResponseError(f"the result can't be stored as JSON: {where}; dsql_lambda.jsonable() converts rows") from error
    if len(text) > most_bytes:
        raise ResponseError(f"the result is {len(text)} bytes as JSON, and at most {most_bytes} can be stored: return less")
    return text


def plain(value: Any) -> Any:
    """A dataclass, a pydantic model or an event of Powertools' data classes as the dict that it stands for; else itself."""
    raw = getattr(value, "raw_event", None)
    if raw is not None:
        return raw
    if hasattr(value, "__dataclass_fields__"):
        from dataclasses import asdict  # noqa: PLC0415 - whoever has one has loaded it

        return asdict(value)
    if not isinstance(value, type):
        if callable(dump := getattr(value, "model_dump", None)):
            try:
                return dump(mode="json")
            except ValueError:  # bytes that are no text, as of a record of Kinesis
                return dump()
        if callable(dump := getattr(value, "dict", None)):
            return dump()
    return value


def _as_powertools(value: Any) -> Any:
    """What `json.dumps` does with a type that it does not know."""
    if type(value).__module__ == "decimal":
        return float("nan") if value.is_nan() else str(value)
    found = plain(value)
    if found is value:
        raise TypeError(f"{type(value).__name__} is not JSON serializable")
    return found


def place_of_failure(value: Any, write: Callable[[Any], object]) -> str:
    """Which part of a value `write` can't write, and its type, as `body.id: UUID`."""
    path, seen = "", set()
    while id(value) not in seen:
        seen.add(id(value))
        for step, child in _children(value):
            if not _can(write, child):
                path, value = path + step, child
                break
        else:
            key = next((key for key in value if not _can(write, {key: None})), None) if isinstance(value, Mapping) else None
            if key is not None:
                return f"{_place(path)}: a key of type {type(key).__name__}"
            return f"{_place(path)}: {type(value).__name__}"
    return f"{_place(path)}: it holds itself"


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f".{key}", each) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{number}]", each) for number, each in enumerate(value)]
    return []


def _can(write: Callable[[Any], object], value: Any) -> bool:
    try:
        write(value)
    except (TypeError, ValueError, RecursionError, OverflowError):
        return False
    return True


def _place(path: str) -> str:
    return path.removeprefix(".") or "the value itself"
