"""What is released: two distributions of one version, which is said once."""

import re
import runpy
import shutil
import tomllib
from pathlib import Path

import pytest

from dsql_lambda import __version__

ROOT = Path(__file__).parents[1]


def test_the_version_stands_in_one_place():
    """layer/dsql_lambda/version.py: neither pyproject.toml says one, and both take it from there."""
    for path in (ROOT / "pyproject.toml", ROOT / "local" / "pyproject.toml"):
        project = tomllib.loads(path.read_text())["project"]
        assert ("version" in project, "version" in project["dynamic"]) == (False, True)
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", __version__)


@pytest.fixture
def version_of(monkeypatch):
    """The version that local/setup.py hands to setuptools."""
    setuptools = pytest.importorskip("setuptools", reason="make dist installs setuptools")

    def read(setup_py):
        given: dict[str, str] = {}
        monkeypatch.setattr(setuptools, "setup", given.update)
        runpy.run_path(str(setup_py))
        return given["version"]

    return read


def test_the_local_dsql_has_the_layers_version(version_of, tmp_path):
    """In a clone by the layer's file, in a source distribution by its PKG-INFO, and elsewhere not at all."""
    assert version_of(ROOT / "local" / "setup.py") == __version__
    alone = shutil.copy(ROOT / "local" / "setup.py", tmp_path)
    with pytest.raises(SystemExit, match="no version was found in .*; build it in a clone of the project"):
        version_of(alone)
    (tmp_path / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: dsql-local\nVersion: 7.8.9\n\nVersion: of the text\n")
    assert version_of(alone) == "7.8.9"
