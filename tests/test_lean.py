"""pg8000 as the layer carries it: the imports that cost most stand in the functions that use them, and all else is as it was."""

import json
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAN = ROOT / "layer" / "lean.py"
COSTLY = {"scramp", "dateutil", "importlib.metadata", "uuid", "pg8000.dbapi", "pg8000.legacy"}

SAME = """
import pg8000, pg8000.native
names = pg8000.__all__
import pg8000.legacy, pg8000.dbapi
for name in set(names) - {"connect"}:
    assert getattr(pg8000, name) is getattr(pg8000.legacy, name), name
assert pg8000.__version__ == pg8000.native.__version__ == pg8000.core.ver == "1.31.6"
from pg8000 import *
from pg8000.native import *
for module in ("converters", "core", "dbapi", "exceptions", "legacy", "native", "types"):
    assert getattr(pg8000, module) is sys.modules[f"pg8000.{module}"], module
"""

USED = """
from pg8000 import converters
import datetime, decimal, ipaddress, uuid
assert converters.timestamptz_in("2024-01-01 00:00:00+05:30").utcoffset() == datetime.timedelta(hours=5, minutes=30)
assert converters.timestamptz_in("99999-01-01 00:00:00+00") == "99999-01-01 00:00:00+00"
assert converters.timestamp_in("Wed Dec 17 07:37:16 1997") == datetime.datetime(1997, 12, 17, 7, 37, 16)
assert converters.timestamp_in("99999-01-01 00:00:00") == "99999-01-01 00:00:00"
value = uuid.UUID(int=7)
assert converters.uuid_in(str(value)) == value
assert converters.make_param(converters.PY_TYPES, value) == converters.uuid_out(value) == str(value)
assert converters.array_out([value]) == "{" + str(value) + "}"
moment = datetime.datetime(2024, 1, 2, 3, 4, 5)
assert [converters.literal(each) for each in (None, True, 1, b"\\1", "it's", [1])] == [
    "NULL", "TRUE", "1", "X'01'", "'it''s'", "'{1}'"
]
assert [converters.literal(each) for each in (moment, moment.date(), moment.time(), datetime.timedelta(days=1))] == [
    "'2024-01-02T03:04:05'", "'2024-01-02'", "'03:04:05'", "'1 days 0 seconds 0 microseconds'"
]
import pg8000.dbapi
assert converters.PY_PG[uuid.UUID] == converters.UUID_TYPE
try: pg8000.connect("user", host="127.0.0.1", port=1)
except pg8000.InterfaceError as error: assert "port 1" in str(error), error
else: raise AssertionError
"""


def run(folder: Path, code: str) -> str:
    """What a fresh interpreter prints, with `folder` first on its path."""
    script = f"import sys\nsys.path[:] = {[str(folder), *sys.path]!r}\n{code}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "first", ["", "import pg8000", "import pg8000.native", "from pg8000 import dbapi", "from pg8000 import connect"]
)
def test_every_name_is_the_same_object_whatever_was_imported_first(lean_pg8000, first):
    """The names of the package, its submodules, and `import *`."""
    run(lean_pg8000, first + SAME)


def test_what_was_moved_works_when_it_is_used(lean_pg8000):
    """dateutil's reading of what no pattern fits, and a connection of the package's own. (SCRAM has pg8000's own tests.)"""
    run(lean_pg8000, USED)


def test_nothing_costly_is_imported(lean_pg8000):
    """That is what the moves are for."""
    found = run(lean_pg8000, "import pg8000.core, pg8000.native, json\nprint(json.dumps(list(sys.modules)))")
    assert not {name for name in json.loads(found) if name in COSTLY or name.partition(".")[0] in COSTLY}


def test_a_name_that_is_not_there_is_said_to_be_missing(lean_pg8000):
    """As of any module."""
    code = "import pg8000\ntry: pg8000.nonsense\nexcept AttributeError as error: print(error)"
    assert run(lean_pg8000, code) == "module 'pg8000' has no attribute 'nonsense'\n"


def test_threads_that_ask_at_once_get_the_same_objects(lean_pg8000):
    """Whoever comes first, the package is one."""
    run(
        lean_pg8000,
        """
import threading, pg8000
start, found = threading.Barrier(8), []
def ask():
    start.wait()
    found.append((pg8000.Connection, pg8000.dbapi, pg8000.Error))
threads = [threading.Thread(target=ask) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
assert len(found) == 8 and len(set(found)) == 1, found
""",
    )


def make_lean(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", str(LEAN), str(folder)], capture_output=True, text=True, check=False)


def test_four_files_are_changed_and_no_other(stock_pg8000, tmp_path):
    """And nothing in them but imports, and the entries of tables that need one."""
    folder = shutil.copytree(stock_pg8000, tmp_path / "copy")
    assert (make_lean(folder).returncode, make_lean(stock_pg8000 / "nowhere").returncode) == (0, 1)
    texts = {path.name: path.read_text() for path in (stock_pg8000 / "pg8000").iterdir()}
    changed = {path.name for path in (folder / "pg8000").iterdir() if path.read_text() != texts[path.name]}
    assert changed == {"__init__.py", "converters.py", "core.py", "dbapi.py"}


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("core.py", "import scramp\n", "import scramp as s\n", "core.py does not hold 'import scramp' 1 times"),
        ("converters.py", "return parse(data)", "return parse(data, None)", "converters.py does not hold"),
        ("__init__.py", "from pg8000.legacy import (", "from pg8000.dbapi import (", "does not begin with its import"),
    ],
)
def test_an_unexpected_text_fails_in_one_sentence_and_changes_nothing(stock_pg8000, tmp_path, file, before, after, said):
    """Whatever the build packages then, it is not half of it."""
    folder = shutil.copytree(stock_pg8000, tmp_path / "copy")
    path = folder / "pg8000" / file
    path.write_text(path.read_text().replace(before, after))
    texts = {path: path.read_text() for path in folder.rglob("*.py")}
    done = make_lean(folder)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert {path: path.read_text() for path in folder.rglob("*.py")} == texts


def test_another_version_fails_in_one_sentence(stock_pg8000, tmp_path):
    """The moves are known to be sound for this one alone."""
    folder = shutil.copytree(stock_pg8000, tmp_path / "copy")
    (folder / "pg8000-1.31.6.dist-info").rename(folder / "pg8000-1.31.7.dist-info")
    done = make_lean(folder)
    assert done.stderr == (
        f"dsql-lambda: pg8000's imports can't be moved: {folder} does not hold pg8000 1.31.6; "
        "layer/lean.py is written for pg8000 1.31.6\n"
    )


def test_the_version_is_the_one_that_is_pinned():
    """A new pin needs the moves to be read again."""
    version = runpy.run_path(str(LEAN))["VERSION"]
    assert version == distribution("pg8000").version
    for name in ("requirements.txt", "requirements-without-powertools.txt"):
        assert f"\npg8000=={version} " in (ROOT / "layer" / name).read_text()
