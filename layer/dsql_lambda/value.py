"""Frozen values: `Value`, what `dataclasses` would make of a class, without what that costs a cold start.

Knows names, defaults, equality and repr; nothing of what the values mean. `dataclasses` loads `inspect` and compiles a text
for each class: a fifth of the time to the first row. Type checkers read these classes as dataclasses (PEP 681).
"""

from __future__ import annotations

# Here and in the modules above: type checkers take this name for true, and `typing` itself is not imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda kind: kind


@dataclass_transform(frozen_default=True)
class Value:
    """A frozen value. Its annotated names are its fields, in their order; what the class body gives them are their defaults."""

    _fields: ClassVar[tuple[str, ...]] = ()
    _positional: ClassVar[int] = 0

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        cls._fields = tuple(cls.__annotations__)
        cls._positional = 0 if kw_only else len(cls._fields)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the fields. Raises `TypeError` for one that is missing, unknown or given twice."""
        name = type(self).__name__
        if len(args) > self._positional:
            raise TypeError(f"{name}() takes at most {self._positional} positional arguments: the rest go by keyword")
        for field, value in zip(self._fields, args, strict=False):
            if field in kwargs:
                raise TypeError(f"{name}() got the argument {field!r} twice")
            kwargs[field] = value
        for field in self._fields:
            try:
                self.__dict__[field] = kwargs.pop(field) if field in kwargs else type(self).__dict__[field]
            except KeyError:
                raise TypeError(f"{name}() misses the argument {field!r}") from None
        if kwargs:
            raise TypeError(f"{name}() has no argument {next(iter(kwargs))!r}: it takes {', '.join(self._fields)}")
        self.__post_init__()

    def __post_init__(self) -> None:
        """See that the fields are good. May set them, in `__dict__`."""

    def replace(self, **changes: Any) -> Self:
        """The same value with some fields changed, made anew."""
        return type(self)(**{**self.__dict__, **changes})

    __replace__ = replace  # for `copy.replace`

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: make a changed one with replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"
