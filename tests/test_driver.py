"""The lean import of pg8000: the same objects as the ordinary one, in either order; what was put off works when it is used."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from dsql_lambda import driver

SAME = """
import pg8000, pg8000.core, pg8000.converters, pg8000.dbapi, pg8000.exceptions, pg8000.legacy, pg8000.native, pg8000.types
from dsql_lambda import driver
assert sys.modules["pg8000"] is pg8000
for name in ("core", "converters", "exceptions", "native"):
    assert getattr(driver, name) is getattr(pg8000, name) is sys.modules[f"pg8000.{name}"], name
assert driver.dbapi() is pg8000.dbapi
assert pg8000.DatabaseError is driver.exceptions.DatabaseError
assert issubclass(pg8000.legacy.Connection, driver.core.CoreConnection)
assert pg8000.__version__ == pg8000.native.__version__ == driver.core.ver == driver.VERSION
for name in pg8000.__all__:
    getattr(pg8000, name)
from pg8000 import *
from pg8000.native import *
assert type(pg8000.__spec__.loader) is type(pg8000.core.__spec__.loader) is type(pg8000.native.__spec__.loader)
assert not any("dsql_lambda" in repr(finder) for finder in sys.meta_path)
"""

USED = """
from dsql_lambda import driver
from dsql_lambda.driver import converters, core
import datetime, scramp
assert converters.timestamptz_in("2024-01-01 00:00:00+05:30").utcoffset() == datetime.timedelta(hours=5, minutes=30)
assert converters.timestamptz_in("99999-01-01 00:00:00+00") == "99999-01-01 00:00:00+00"
assert converters.timestamp_in("Wed Dec 17 07:37:16 1997") == datetime.datetime(1997, 12, 17, 7, 37, 16)
assert converters.interval_in("1 day 02:00:00") == datetime.timedelta(days=1, hours=2)
import decimal, ipaddress, uuid
one, net = uuid.UUID(int=1), ipaddress.ip_network("10.0.0.0/8")
values = [decimal.Decimal("1.50"), one, net, ipaddress.ip_address("::1"), [decimal.Decimal(1), one], (net, None)]
said = converters.make_params(converters.PY_TYPES, values)
assert said == ("1.50", str(one), "10.0.0.0/8", "::1", "{1," + str(one) + "}", "(10.0.0.0/8,)"), said
assert converters.numeric_in("1.50") == decimal.Decimal("1.50") and converters.uuid_in(str(one)) == one
assert converters.inet_in("10.0.0.0/8") == net and converters.inet_in("::1") == ipaddress.ip_address("::1")
assert converters.literal(decimal.Decimal("1.5")) == "1.5" and converters.literal(one) == f"'{one}'"
assert converters.Decimal is decimal.Decimal and converters.UUID is uuid.UUID
assert converters.make_params(converters.PY_TYPES, values) == said
types = driver.TypesWritten(core.PY_TYPES)
assert converters.make_params(types, values) == converters.make_params(types, values) == said
assert types.keys() >= {decimal.Decimal, uuid.UUID, ipaddress.IPv4Network, ipaddress.IPv6Address}
assert len(types) == len(converters.PY_TYPES)
driver.dbapi()
assert converters.PY_PG[decimal.Decimal] == 1700 and converters.PY_PG[ipaddress.IPv6Network] == 869
assert {type(key) for key in converters.PY_PG} | {type(key) for key in converters.PY_TYPES} <= {type, type(converters.Enum)}
assert converters.json_in('{"a": [1]}') == {"a": [1]} and converters.json_out({"a": 1}) == '{"a": 1}'
assert converters.loads is __import__("json").loads
assert converters.literal([1, None, 2]) == "'{1,NULL,2}'"
@converters.composite_out.register(frozenset | complex)
def _(value):
    return "either"
assert converters.composite_out(1j) == converters.composite_out(frozenset()) == "either"
assert converters.literal.dispatch(bool)(True) == "TRUE" and converters.array_out.__name__ == "array_out"
@converters.literal.register
def _(value: complex):
    return "complex"
assert converters.literal(1j) == "complex"
assert core.scramp.ScramClient is scramp.ScramClient
assert core.scramp is scramp
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "before", ["", "import pg8000", "import pg8000.native", "from pg8000 import dbapi", "import dsql_lambda.driver"]
)
def test_the_ordinary_import_gives_the_same_objects(before):
    """Before and after, whichever part of it came first."""
    run(before + SAME)


@pytest.mark.parametrize("before", ["", "import pg8000.dbapi"])
def test_what_was_put_off_works_when_it_is_used(before):
    """dateutil's reading of what no pattern fits, and SCRAM."""
    run(before + USED)


def test_threads_that_import_both_ways_at_once_get_the_same_objects():
    """The finder is there for the whole process while it is; whoever comes first, the package is one."""
    run(
        """
import threading
start = threading.Barrier(8)
found = []
def lean():
    start.wait()
    from dsql_lambda import driver
    found.append((driver.native.Connection, driver.exceptions.Error))
def ordinary():
    start.wait()
    import pg8000
    error = pg8000.Error
    import pg8000.native
    found.append((pg8000.native.Connection, error))
threads = [threading.Thread(target=each) for each in [lean, ordinary] * 4]
for each in threads: each.start()
for each in threads: each.join()
assert len(found) == 8 and len(set(found)) == 1, found
"""
    )


def test_a_name_that_is_not_there_is_said_to_be_missing():
    """As with any module, also before the package's `__init__` has run."""
    assert run("import dsql_lambda.driver, pg8000\nprint(hasattr(pg8000, 'nonsense'), hasattr(pg8000, 'connect'))") == [
        "False",
        "True",
    ]


def test_the_version_is_the_one_that_was_read():
    """What is put off, and why that is sound, is known of this version; another is imported in the ordinary way."""
    assert version("pg8000") == driver.VERSION == driver.core.ver
