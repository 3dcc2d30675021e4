"""Checks a history of transfers for lost updates: `faults_in`. Knows versions and balances; knows nothing of how they came about.

Each transfer notes, for each account that it changed, the version and the balance that it read, and the balance that it wrote.
Every write makes the next version, so the changes of an account, in the order of the versions that they read, must be a chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Change(NamedTuple):
    """What one transfer did to one account."""

    key: str
    account: int
    version: int
    """That it read; it wrote the next one."""
    before: int
    after: int


def faults_in(changes: Iterable[Change], start: Mapping[int, int], end: Mapping[int, tuple[int, int]]) -> list[str]:
    """What is wrong with a history, from balances at the `start` (version 0) to the versions and balances at the `end`."""
    faults = []
    by_account: dict[int, list[Change]] = {account: [] for account in end}
    for change in changes:
        by_account.setdefault(change.account, []).append(change)
    for account, found in sorted(by_account.items()):
        found.sort(key=lambda each: each.version)
        version, balance = 0, start.get(account, 0)
        for change in found:
            if change.version < version:
                faults.append(
                    f"account {account}: version {change.version} was read and written twice, by {change.key}: a lost update"
                )
                continue
            if change.version > version:
                faults.append(f"account {account}: nobody wrote version {version + 1}, which {change.key} follows: a lost answer")
            elif change.before != balance:
                faults.append(f"account {account}: {change.key} read {change.before} where {balance} was written")
            version, balance = change.version + 1, change.after
        if end.get(account) != (version, balance):
            faults.append(f"account {account}: it ends as {end.get(account)}, and its history as {(version, balance)}")
    return faults
