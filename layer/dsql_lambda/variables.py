"""Options as the environment's variables say them: `read_variables`, into keywords of `ConnectOptions`.

Knows the variables' names and how a text is read; nothing of bounds. `defaults` holds each option's default by its name; the
default's type says how a text is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import ConfigError

# As AWS's samples name them; DSQL_HOST and DSQL_USER beat them.
SAMPLES_VARIABLES = {"host": "CLUSTER_ENDPOINT", "user": "CLUSTER_USER"}

OBJECTS = frozenset({"configure", "credentials"})  # no text can say them
_OTHER_VARIABLES = ("DSQL_URL", "DSQL_CONNECT_AT_INIT")


def variable_of(option: str) -> str:
    """The environment's variable of an option."""
    return f"DSQL_{option.upper()}"


def read_variables(environ: Mapping[str, str], defaults: Mapping[str, object]) -> dict[str, Any]:
    """What the environment says. An empty variable is unset. Raises `ConfigError`."""
    names = {variable_of(option): option for option in defaults if option not in OBJECTS}
    _look_for_misspelt(environ, [*names, *_OTHER_VARIABLES])
    found = {}
    for variable, option in names.items():
        used = variable if environ.get(variable) else SAMPLES_VARIABLES.get(option, variable)
        if text := environ.get(used, ""):
            found[option] = parsed(text, defaults[option], used)
    return found


def _look_for_misspelt(environ: Mapping[str, str], known: list[str]) -> None:
    """Refuse a slip, which would mean the default: DSQL_TOKEN_DURATION_SEC=60. Warn, once, of another name that is near one."""
    unknown = [name for name in environ if name.startswith("DSQL_") and name not in known]
    if not unknown:
        return
    import warnings  # noqa: PLC0415 - only where there is a name to look at
    from difflib import get_close_matches  # noqa: PLC0415

    for name in unknown:
        for each in known:
            if _is_slip(name, each):
                raise ConfigError(f"the environment has an unknown variable {name}: did you mean {each}?")
        for each in get_close_matches(name, known, n=1, cutoff=0.9):
            warnings.warn(f"dsql_lambda does not read the variable {name}: did you mean {each}?", stacklevel=2)


def _is_slip(name: str, known: str) -> bool:
    """Is it `known` with one letter missing, added or changed, or two in each other's place? What goes on behind it is a name."""
    if name.startswith(known):
        return False
    if len(name) != len(known):
        return name in _without_a_letter(known) or known in _without_a_letter(name)
    differences = sum(one != other for one, other in zip(name, known, strict=True))
    return differences == 1 or (differences == 2 and sorted(name) == sorted(known))


def _without_a_letter(text: str) -> set[str]:
    return {text[:at] + text[at + 1 :] for at in range(len(text))}


def parsed(text: str, default: object, said_as: str) -> Any:
    """The value of an option that was written as text; `said_as` is its name where it was written."""
    if isinstance(default, bool):
        if text.lower() not in ("on", "off", "true", "false", "1", "0", "yes", "no"):
            raise ConfigError(f"{said_as} is {text!r}: it must be on or off")
        return text.lower() in ("on", "true", "1", "yes")
    if isinstance(default, int | float):
        kind = type(default)
        digits = text.split(".", 0 if kind is int else 1)
        if not all(each.isascii() and each.isdigit() and len(each) <= 18 for each in digits):
            raise ConfigError(f"{said_as} is {text!r}: it must be a {'whole ' if kind is int else ''}number")
        return kind(text)
    return text
