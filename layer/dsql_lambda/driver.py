"""pg8000, imported without what the way to the first row never needs.

The only module that imports pg8000; knows nothing of connections. pg8000 1.31.6 imports scramp (DSQL never asks for SCRAM),
dateutil.parser (for what no other reader understands) and importlib.metadata (for its own version), and the package itself
imports its two DB-API front ends: more than half of what it costs. Here the same modules are executed, from the same files,
with these few imports put off until they are used:

    pg8000              is the real package, whose `__init__` runs when a name that only it makes is asked for
    pg8000.core         finds scramp at its first use, and the version in the name of the wheel's metadata folder
    pg8000.converters   finds dateutil, decimal, ipaddress, json and uuid when a value of theirs is read, and the dispatch of
                        `literal` and of arrays when one is written

They stay in `sys.modules` under their names, so an ordinary `import pg8000`, before or after, gives the same objects. Another
version of pg8000 than the one that this was written for is imported in the ordinary way.
"""

from __future__ import annotations

import builtins
import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from types import FunctionType, SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

VERSION = "1.31.6"
"""The one that the layer's requirements pin, and that the imports above are true of."""


class _LazyScramp:
    """Stands for the module `scramp` in pg8000.core until something of it is used."""

    def __init__(self, core: ModuleType) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        scramp = import_module("scramp")
        self._core.scramp = scramp  # type: ignore[attr-defined]
        return getattr(scramp, name)


class _LazyName:
    """Stands for what pg8000.converters takes from another module: called, it loads that one and gives way to the real thing."""

    def __init__(self, converters: ModuleType, module: str, name: str) -> None:
        self._converters = converters
        self._module = module
        self._name = name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.settle()(*arguments, **keywords)

    def settle(self) -> Any:
        """Put the real thing in place, and return it."""
        real = getattr(import_module(self._module), self._name)
        names = vars(self._converters)
        # pg8000's tables by type. Until now a value of this type was written by `str`, as they would have it written.
        for table in ("PY_PG", "PY_TYPES"):
            names[table] = {real if key is self else key: value for key, value in names[table].items()}
        names[self._name] = real
        return real

    def stands_for(self, kind: type) -> bool:
        """Is this the real thing?"""
        return (kind.__module__, kind.__qualname__) == (self._module, self._name)


class TypesWritten(dict[object, object]):
    """A connection's table of what writes a value, by its type: a stand-in gives way when the first value of its type comes.

    Without it pg8000 would find no such type, and try `isinstance` with each one in the table, for each value.
    """

    def __missing__(self, kind: type) -> object:
        for each in self:
            if isinstance(each, _LazyName) and each.stands_for(kind):
                writer = self.pop(each)
                self[kind] = writer
                return writer
        raise KeyError(kind)


class _LazyParse(_LazyName):
    """dateutil's `parse`, whose exception comes with it."""

    def settle(self) -> Any:
        vars(self._converters)["ParserError"] = import_module("dateutil.parser").ParserError
        return super().settle()


class _LazyDispatch:
    """Stands for a function that `functools.singledispatch` makes: made with its first call, for that loads `typing`."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._registered: list[tuple[Any, ...]] = []
        self._made: Any = None

    def register(self, *arguments: Any) -> Any:
        """`singledispatch`'s own, as a decorator: bare, or called with a type or a union of types."""
        if self._made is not None:
            return self._made.register(*arguments)
        if len(arguments) == 1 and not isinstance(arguments[0], FunctionType):
            return lambda function: self.register(arguments[0], function)
        self._registered.append(arguments)
        return arguments[-1]

    def _make(self) -> Any:
        from functools import singledispatch  # noqa: PLC0415

        made = singledispatch(self._function)
        for first, *rest in self._registered:
            made.register(first.settle() if isinstance(first, _LazyName) else first, *rest)
        self._made = made
        return made

    def __call__(self, *arguments: Any) -> Any:
        return (self._made or self._make())(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made or self._make(), name)


def _stand_ins(module: ModuleType) -> dict[str, Any]:
    """What `module` gets in place of the modules that it would import, by their names."""
    addresses = ("IPv4Address", "IPv4Network", "IPv6Address", "IPv6Network", "ip_address", "ip_network")
    taken = {"decimal": ("Decimal",), "ipaddress": addresses, "json": ("dumps", "loads"), "uuid": ("UUID",)}
    found: dict[str, Any] = {
        source: SimpleNamespace(**{name: _LazyName(module, source, name) for name in names}) for source, names in taken.items()
    }
    found["dateutil.parser"] = SimpleNamespace(parse=_LazyParse(module, "dateutil.parser", "parse"), ParserError=ValueError)
    found["functools"] = SimpleNamespace(singledispatch=_LazyDispatch)
    found["importlib.metadata"] = SimpleNamespace(version=lambda _: VERSION)
    found["scramp"] = _LazyScramp(module)
    return found


class _LeanLoader:
    """Executes a module of pg8000 with its own `__import__`, so that nobody else's imports are touched."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None  # noqa: S101 - the import system has just made it so
        module.__spec__.loader = module.__loader__ = self._loader
        if module.__name__ == "pg8000":
            self._put_off(module)
            return
        stand_ins = _stand_ins(module)

        def lean_import(name: str, *more: Any, **others: Any) -> Any:
            return stand_ins[name] if name in stand_ins else builtins.__import__(name, *more, **others)

        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": lean_import}
        self._loader.exec_module(module)

    def _put_off(self, package: ModuleType) -> None:
        """Let the package's `__init__` run when a name is asked for that is not there: its submodules, once imported, are."""
        locks: dict[str, Any] = {}  # made when it is needed: `threading` is cold start
        is_running = False
        names = vars(package)

        def __getattr__(name: str) -> Any:  # noqa: N807 - the module's
            nonlocal is_running
            from threading import RLock  # noqa: PLC0415

            lock = locks.setdefault("", RLock())
            with lock:
                if "__getattr__" in names and not is_running:
                    is_running = True
                    try:
                        self._loader.exec_module(package)
                        del names["__getattr__"]
                    finally:
                        is_running = False
            if name not in names:
                raise AttributeError(f"module 'pg8000' has no attribute {name!r}")
            return names[name]

        names["__getattr__"] = __getattr__


class _LeanFinder:
    """Finds pg8000's modules where they are, and has the three above executed by `_LeanLoader`."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in {"pg8000", "pg8000.core", "pg8000.converters"}:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None or not _is_the_known_version(spec):
            return None
        loader: Any = _LeanLoader(spec.loader)
        spec.loader = loader
        return spec


def _is_the_known_version(spec: ModuleSpec) -> bool:
    """Is the wheel's metadata folder, which carries the version in its name, beside the package?"""
    site = os.path.dirname(os.path.dirname(spec.origin or ""))  # noqa: PTH120 - pathlib is not needed yet
    return os.path.isdir(os.path.join(site, f"pg8000-{VERSION}.dist-info"))  # noqa: PTH112, PTH118


sys.meta_path.insert(0, _LeanFinder)
try:
    # Not `from pg8000 import ...`: that asks the package for names.
    import pg8000.converters as converters  # noqa: PLR0402
    import pg8000.core as core  # noqa: PLR0402
    import pg8000.exceptions as exceptions  # noqa: PLR0402
    import pg8000.native as native  # noqa: PLR0402
finally:
    sys.meta_path.remove(_LeanFinder)


def dbapi() -> Any:
    """pg8000's module of that name, which most programs never need. It reads the tables by type: they hold the real ones then."""
    for each in list(converters.PY_PG):
        if isinstance(each, _LazyName):
            each.settle()
    import pg8000.dbapi  # noqa: PLC0415

    return pg8000.dbapi


__all__ = ["VERSION", "TypesWritten", "converters", "core", "dbapi", "exceptions", "native"]
