"""The faults that come from outside a worker, one after the other: `Rain`. What they break is judged elsewhere."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

from tests.bank_crew import WORKERS, Crew
from tests.shared_clock import SharedClock

from dsql_local import LocalDsql

THAW_SECONDS = 7_200.0
"""How far the wall clock jumps while all are frozen: a connection lives for 55 minutes, a token for 15."""

_TICK_SECONDS = 0.2
_SECONDS_BETWEEN_THAWS = 6.0
_FROZEN_SECONDS = 0.05
_MOST_WAITING = 2  # faults that have not struck yet
_CUT_POINTS = ("at-parse", "at-bind", "at-describe", "at-execute", "at-sync", "before-commit", "mid-reply", "after-reply")
_OFTEN = ("cut",) * 5 + ("lost commit",) * 5 + ("conflict",) * 4 + ("unavailable",) * 3 + ("refuse", "schema")
_SELDOM = ("expire", "delay", "close", "restart", "freeze", "kill", "kill")  # each concerns every connection, or takes long


class Rain:
    """Rains on a local DSQL and on those who work with it."""

    def __init__(self, dsql: LocalDsql, crew: Crew, clock: SharedClock, seed: int) -> None:
        self.injected: Counter[str] = Counter()
        self._dsql, self._crew, self._clock = dsql, crew, clock
        self._dice = random.Random(seed)

    def fall(self, until: float) -> None:
        """One fault after the other, until this moment."""
        thaw_at = 0.0
        while (now := time.time()) < until:
            if now >= thaw_at:
                thaw_at = now + _SECONDS_BETWEEN_THAWS
                self._thaw()
            time.sleep(_TICK_SECONDS)
            if len(self._dsql.faults_waiting) >= _MOST_WAITING:
                continue  # no one is met by more faults than by answers
            kind = self._dice.choice(_OFTEN if self._dice.random() < 0.97 else _SELDOM)
            self.injected[kind] += 1
            self._inject(kind)

    def _thaw(self) -> None:
        """Everybody is frozen, two hours pass, and everybody goes on."""
        self._crew.stop()
        time.sleep(_FROZEN_SECONDS)
        self._clock.jump(THAW_SECONDS)
        self._crew.go_on()

    def _inject(self, kind: str) -> None:
        dsql, dice = self._dsql, self._dice
        cut_points: list[Any] = list(_CUT_POINTS)
        if kind == "cut":
            dsql.cut(dice.choice(cut_points), how=dice.choice(["rst", "fin"]))
        elif kind == "lost commit":
            dsql.cut("after-commit-sent", applied=dice.random() < 0.5, how=dice.choice(["rst", "fin"]))
        elif kind == "conflict":
            dsql.conflict_next(dice.randint(1, 3))
        elif kind == "schema":
            dsql.conflict_next(1, "OC001", at=dice.choice(["commit", "statement"]))
        elif kind == "unavailable":
            dsql.unavailable(applied=dice.random() < 0.5)
        elif kind == "refuse":
            dsql.refuse_connections(1, dice.choice(["rate", "connections", "waking"]))
        elif kind == "expire":
            dsql.expire_tokens()
        elif kind == "delay":
            dsql.delay(30, 5)
        elif kind == "close":
            dsql.close_connections(dice.choice(["fin", "rst"]))
        elif kind == "restart":
            dsql.restart(0.05)
        elif kind == "kill":
            self._crew.kill(dice.randrange(WORKERS))
        else:
            number = dice.randrange(WORKERS)
            self._crew.stop(number)
            time.sleep(0.3)
            self._crew.go_on(number)
