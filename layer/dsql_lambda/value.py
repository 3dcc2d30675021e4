"""Frozen values: `Value`, what `dataclasses` would make of a class, without what that costs a cold start.

Knows names, defaults, equality, signature and repr; nothing of what they mean. `dataclasses` loads `inspect` and compiles a text
for each class: a fifth of the time to the first row. Type checkers read these classes as dataclasses (PEP 681).
"""

from __future__ import annotations

# Here and in the modules above: type checkers take this name for true, and `typing` itself is not imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from inspect import Signature
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda kind: kind


class _SignatureOfFields:
    """What `inspect.signature` and `help` show of a class of values. It loads `inspect`, as they have."""

    def __get__(self, value: Value | None, kind: type[Value]) -> Signature:
        from inspect import Parameter, Signature  # noqa: PLC0415

        def parameter(name: str) -> Parameter:
            how = Parameter.POSITIONAL_OR_KEYWORD if name in kind._positional else Parameter.KEYWORD_ONLY
            return Parameter(name, how, default=getattr(kind, name, Parameter.empty), annotation=kind._fields[name])

        return Signature([parameter(name) for name in {**dict.fromkeys(kind._positional), **kind._fields}])


@dataclass_transform(frozen_default=True)
class Value:
    """A frozen value. Its annotated names are its fields, in their order; what the class body gives them are their defaults.

    A subclass has its parent's fields first, then its own.
    """

    # Not annotated, for what is annotated here would be a field to those who read the annotations.
    _fields = dict[str, object]()  # noqa: RUF012 - never changed; the annotation of each
    _positional = tuple[str, ...]()

    __signature__ = _SignatureOfFields()

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        own = cls.__annotations__
        cls._fields = {**cls._fields, **own}
        if not kw_only:
            cls._positional = (*cls._positional, *own)
        setattr(cls, "__match_args__", cls._positional)  # noqa: B010 - type checkers make it themselves, and want no other

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the fields. Raises `TypeError` for one that is missing, unknown or given twice."""
        kind = type(self)
        name = kind.__name__
        if len(args) > len(self._positional):
            raise TypeError(f"{name}() takes at most {len(self._positional)} positional arguments: the rest go by keyword")
        for field, value in zip(self._positional, args, strict=False):
            if field in kwargs:
                raise TypeError(f"{name}() got the argument {field!r} twice")
            kwargs[field] = value
        for field in self._fields:
            try:
                self.__dict__[field] = kwargs.pop(field) if field in kwargs else getattr(kind, field)
            except AttributeError:
                raise TypeError(f"{name}() misses the argument {field!r}") from None
        if kwargs:
            raise TypeError(f"{name}() has no argument {next(iter(kwargs))!r}: it takes {', '.join(self._fields)}")
        self.__post_init__()

    def __post_init__(self) -> None:
        """See that the fields are good. May set them, in `__dict__`."""

    def replace(self, **changes: Any) -> Self:
        """The same value with some fields changed, made anew."""
        return type(self)(**{**self.__dict__, **changes})

    def __replace__(self, **changes: Any) -> Self:
        """`copy.replace` means the class's own `replace`."""
        return self.replace(**changes)

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
