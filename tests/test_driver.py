"""Which pg8000 is accepted, and what is said of another: one of the function's own shadows the layer's."""

import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pg8000
import pytest

from dsql_lambda import driver

PACKAGE = Path(pg8000.__file__).parent


def imported(first: Path, code: str = "import dsql_lambda.driver") -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter says of it, with `first` before everything else on its path."""
    script = f"import sys\nsys.path[:] = {[str(first), *sys.path]!r}\n{code}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)


def other_version(folder: Path, version: str) -> Path:
    """A copy of the installed pg8000 that says it is of another version."""
    shutil.copytree(PACKAGE, folder / "pg8000", ignore=shutil.ignore_patterns("__pycache__"))
    core = folder / "pg8000" / "core.py"
    core.write_text(core.read_text().replace(f'ver = "{driver.VERSION}"', 'ver = version("pg8000")'))
    core.write_text(core.read_text().replace('ver = version("pg8000")', f'ver = "{version}"'))
    metadata = folder / f"pg8000-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.4\nName: pg8000\nVersion: {version}\n")
    return folder


def test_the_modules_are_pg8000s_own():
    """The very objects that an ordinary import gives."""
    assert driver.native.Connection is pg8000.native.Connection
    assert driver.exceptions.DatabaseError is pg8000.DatabaseError
    assert driver.dbapi() is pg8000.dbapi
    assert driver.core.ver == driver.VERSION == distribution("pg8000").version


@pytest.mark.parametrize("version", ["1.31.2", "1.30.5", "1.32.0", "2.0", "1.31.6rc1"])
def test_another_version_is_refused_in_one_sentence(tmp_path, version):
    """What was found, what is needed, where it is, and what to do."""
    done = imported(other_version(tmp_path, version))
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: dsql_lambda needs pg8000 1.31.6 or a later 1.31, but found {version} in {tmp_path / 'pg8000'}: "
        "remove it from the function's package, or pin pg8000==1.31.6 there"
    )


def test_a_later_one_of_the_series_is_accepted(tmp_path):
    """As the project's requirements accept it."""
    assert imported(other_version(tmp_path, "1.31.10")).stderr == ""


@pytest.mark.parametrize("missing", ["native.py", "converters.py"])
def test_one_that_is_too_old_to_be_imported_is_refused_the_same_way(tmp_path, missing):
    """Before 1.16 there was no `pg8000.native`; some older ones import what Python no longer has."""
    (other_version(tmp_path, "1.12.5") / "pg8000" / missing).unlink()
    done = imported(tmp_path)
    assert f"but found 1.12.5 in {tmp_path / 'pg8000'}: remove it" in done.stderr.splitlines()[-1]


def test_the_public_names_say_it_too(tmp_path):
    """Lambda shows an ImportError of a handler's module with its text."""
    done = imported(other_version(tmp_path, "1.31.2"), "from dsql_lambda import with_dsql_transaction")
    assert "ImportError: dsql_lambda needs pg8000 1.31.6" in done.stderr.splitlines()[-1]


def test_a_missing_pg8000_is_said_to_be_missing(tmp_path):
    """Not every installation brings its requirements."""
    shutil.copytree(Path(driver.__file__).parent, tmp_path / "dsql_lambda")
    code = "from pathlib import Path\nsys.path[:] = [each for each in sys.path if not Path(each, 'pg8000').exists()]"
    done = imported(tmp_path, f"{code}\nimport dsql_lambda.driver")
    assert done.stderr.splitlines()[-1].endswith("not installed: attach the layer, or pip install pg8000==1.31.6")


def test_what_a_supported_one_lacks_is_its_own_error(tmp_path):
    """A missing requirement of pg8000 is no matter of its version."""
    (other_version(tmp_path, "1.31.6") / "pg8000" / "types.py").write_text("import not_installed_anywhere")
    assert imported(tmp_path).stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'not_installed_anywhere'"
