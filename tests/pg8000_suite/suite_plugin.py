"""Loaded into the process that runs pg8000's tests: whose connection they get, what they import, and what became of each.

`SUITE_RESULTS` names the file that gets a line of JSON for each test: its id, its outcome, and why.
"""

import json
import os
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock
from zoneinfo import ZoneInfo

import pg8000.native
import pytest

from dsql_lambda.connection import Connection

pg8000.native.Connection = Connection


# What the tests use of pytest-mock, pytest-benchmark and pytz.


class Patch:
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, target):
        return self._stack.enter_context(mock.patch(target))

    def object(self, *args):
        return self._stack.enter_context(mock.patch.object(*args))


@pytest.fixture
def mocker():
    with ExitStack() as stack:
        yield SimpleNamespace(patch=Patch(stack), Mock=mock.Mock)


@pytest.fixture
def benchmark():
    return lambda function: function()


class Timezone:
    def __init__(self, name: str) -> None:
        self._zone = ZoneInfo(name)

    def localize(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=self._zone)


sys.modules["pytz"] = pytz = ModuleType("pytz")
pytz.timezone = Timezone  # type: ignore[attr-defined]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        line = json.dumps({"id": report.nodeid, "outcome": report.outcome, "why": str(report.longrepr or "")[-2000:]})
        with Path(os.environ["SUITE_RESULTS"]).open("a") as results:
            results.write(line + "\n")
