"""Init phase: what connecting while the function's module is imported takes off the first invocation.

Knows Lambda's process (`lambda_process`), the layer as it is built, and the distance.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from .cold_start import build_layer, install
from .distance import away
from .lambda_process import Function, Run, run
from .local import accounts
from .peers import OURS, TRANSACTION
from .report import Say, Section, number, ratio, table

DISTANCES_MS = (0, 10)
_ROUNDS = 15
_WAYS = {True: "connected at init", False: "`DSQL_CONNECT_AT_INIT=0`"}

Found = Mapping[tuple[int, bool], list[Run]]
"""By round trip (ms), and whether it connects at init; round by round."""


def measure(environment: Mapping[str, str], *, rounds: int = _ROUNDS, say: Say = lambda _: None) -> Found:
    """Two invocations in fresh environments; every second round in the reverse order."""
    found: dict[tuple[int, bool], list[Run]] = {(each, at_init): [] for each in DISTANCES_MS for at_init in _WAYS}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        packages = (build_layer(place / "layer"), place / "runtime")
        install(place / "runtime", "awslambdaric")
        (place / "app.py").write_text(TRANSACTION[OURS])
        ports = {each: str(stack.enter_context(away(int(environment["DSQL_PORT"]), each))) for each in DISTANCES_MS}
        for turn in range(-1, rounds):  # the first round warms the disk's cache and does not count
            say(f"init phase: round {turn + 1} of {rounds}")
            for distance, at_init in reversed(found) if turn % 2 else found:
                variables = {**environment, "DSQL_PORT": ports[distance], "DSQL_CONNECT_AT_INIT": str(int(at_init))}
                durations = run(Function(place, packages, variables, {"id": 1, "amount": 1}), events=2)
                if durations.errors:  # not connected at init
                    raise RuntimeError(durations.errors)
                if turn >= 0:
                    found[distance, at_init].append(durations)
    return found


def section(environment: Mapping[str, str], *, say: Say) -> Section:
    """The page's chapter."""
    accounts(environment)
    return Section(title="Init phase", text=text_of(measure(environment, say=say)))


def text_of(found: Found) -> str:
    """The chapter's text."""
    rows = []
    for (distance, at_init), runs in found.items():
        pairs = list(zip(found[distance, False], runs, strict=True))
        columns = [[each.init for each in runs], *zip(*(each.invocations for each in runs), strict=True)]
        of_first = ratio([other.invocations[0] / own.invocations[0] for other, own in pairs])
        of_both = ratio([(other.init + other.invocations[0]) / (own.init + own.invocations[0]) for other, own in pairs])
        medians = [f"{number(statistics.median(each) * 1000)} ms" for each in columns]
        rows.append([f"{distance} ms, {_WAYS[at_init]}", *medians, *((of_first, of_both) if at_init else ("", ""))])
    compared = ("first without, times with", "init and first, without, times with")
    head = ["round trip", "init phase", "first invocation", "second", *compared]
    return f"""The decorator connects while the function's module is imported, in Lambda's init phase, unless
`DSQL_CONNECT_AT_INIT=0`. Measured with the function and the process of the chapter above; the init phase lasts from the
process's start to its question for the first event. Medians of {len(runs)} rounds, every second one in the reverse order;
ratios are taken within a round.

{table(head, rows)}

Init and first invocation together take about as long: connecting is moved and not saved. In Lambda that gains more than is seen
here: the init phase [has a whole processor][init], of which an invocation gets a share by the function's memory, and an
environment that Lambda starts in advance is connected before its first event comes.

[init]: https://serverlessland.com/content/service/lambda/guides/effectively-running-java-on-serverless/init-heavy-lifting
"""
