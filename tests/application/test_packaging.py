"""The layer as SAM builds it: what is in it, how big it is, and what it agrees with."""

import _imp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from dsql_local.sam.template import read_function

LIMIT = 3 * 1024 * 1024
FORMS = ["DsqlLayer", "DsqlLayerWithoutPowertools"]
REQUIREMENTS = ["requirements.txt", "requirements-without-powertools.txt"]
ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, str]:
    """The pinned version of every package of a requirements file."""
    text = (ROOT / "layer" / name).read_text().replace("\\\n", " ")
    lines = [line.split(" #")[0].strip() for line in text.splitlines()]
    found = {}
    for line in filter(None, (line for line in lines if not line.startswith("#"))):
        match = re.fullmatch(r"([a-z0-9-]+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)", line)
        assert match, f"not pinned with a hash: {line}"
        found[match[1]] = match[2]
    return found


@pytest.mark.parametrize("form", FORMS)
def test_the_layer_zips_to_at_most_three_megabytes(built: Path, tmp_path: Path, form: str) -> None:
    """Its size is part of every cold start."""
    archive = Path(shutil.make_archive(str(tmp_path / form), "zip", built / form))
    assert archive.stat().st_size <= LIMIT


@pytest.mark.parametrize("form", FORMS)
def test_the_layer_is_pure_python_source(built: Path, form: str) -> None:
    """Nothing belongs to one machine, or is for tests or the command line alone; bytecode has its source beside it."""
    files = [path.relative_to(built / form) for path in (built / form).rglob("*") if path.is_file()]
    assert {file.parts[0] for file in files} == {"python"}
    assert not [file for file in files if file.suffix in {".so", ".pyd", ".dylib", ".dll"}]
    assert not [file for file in files if {"bin", "tests"} & set(file.parts)]
    bytecode = [file for file in files if file.suffix == ".pyc" or "__pycache__" in file.parts]
    assert {source_of(built / form / file) for file in bytecode} <= {built / form / file for file in files}


def source_of(bytecode: Path) -> Path:
    """`folder/__pycache__/name.cpython-313.pyc` comes from `folder/name.py`."""
    return bytecode.parents[1] / f"{bytecode.name.partition('.')[0]}.py"


@pytest.mark.parametrize("form", FORMS)
def test_bytecode_is_that_of_its_source_and_never_checked(built: Path, form: str) -> None:
    """/opt is read-only, and times in a zip mean nothing: the header says so, and the hash in it is the source's."""
    found = list((built / form).rglob("*.pyc"))
    assert found
    for path in found:
        magic, flags, hashed = (path.read_bytes()[at : at + size] for at, size in ((0, 4), (4, 4), (8, 8)))
        assert (path, flags) == (path, b"\1\0\0\0")  # hash-based, unchecked
        # What importlib.util.source_hash does, for any interpreter's magic number.
        assert (path, hashed) == (path, _imp.source_hash(int.from_bytes(magic, "little"), source_of(path).read_bytes()))


@pytest.mark.parametrize("form", FORMS)
def test_the_way_to_the_first_row_has_bytecode_for_this_interpreter(built: Path, form: str) -> None:
    """All of ours, and what is loaded of pg8000; of no interpreter that Lambda does not have."""
    layer = built / form / "python"
    tag = f"cpython-{sys.version_info[0]}{sys.version_info[1]}"
    compiled = {source_of(path).relative_to(layer) for path in layer.rglob(f"*.{tag}.pyc")}
    ours = {path.relative_to(layer) for path in (layer / "dsql_lambda").glob("*.py")}
    theirs = {Path("pg8000", f"{name}.py") for name in ("converters", "core", "exceptions", "native", "types")}
    assert compiled == ours | theirs
    assert {path.suffixes[0] for path in layer.rglob("*.pyc")} <= {f".cpython-3{minor}" for minor in range(11, 15)}


@pytest.mark.parametrize("form", FORMS)
def test_the_runtime_s_own_packages_are_left_to_it(built: Path, form: str) -> None:
    """The runtime has boto3."""
    packaged = {path.name for path in (built / form / "python").iterdir()}
    assert not packaged & {"boto3", "botocore", "s3transfer", "urllib3"}


@pytest.mark.parametrize("form", FORMS)
def test_the_layer_carries_our_package_as_it_is(built: Path, form: str) -> None:
    """Every file of dsql_lambda is there, byte for byte, in both forms."""

    def files(folder: Path) -> dict[Path, bytes]:
        return {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*.*")
            if path.is_file() and path.suffix != ".pyc"
        }

    packaged, source = (files(folder / "dsql_lambda") for folder in (built / form / "python", built.parents[1] / "layer"))
    assert packaged == source


def test_one_form_carries_powertools(built: Path) -> None:
    """The other is for functions that attach AWS's layer of it."""
    has = {form: (built / form / "python" / "aws_lambda_powertools").exists() for form in FORMS}
    assert has == {"DsqlLayer": True, "DsqlLayerWithoutPowertools": False}


def test_a_parameter_chooses_the_form(built: Path) -> None:
    """With AWS's Powertools layer attached, ours leaves Powertools out."""
    template = built / "template.yaml"
    arn = "arn:aws:lambda:us-east-1:017000801446:layer:AWSLambdaPowertoolsPythonV3-python313-x86_64:1"
    assert read_function(template, "TransferFunction").layers == (built / "DsqlLayer",)
    chosen = read_function(template, "TransferFunction", {"PowertoolsLayerArn": arn})
    assert chosen.layers == (built / "DsqlLayerWithoutPowertools",)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_every_runtime_imports_the_layer(built: Path, version: str) -> None:
    """Each interpreter of a supported runtime that is on this machine imports all of it, from the layer and nothing else."""
    code = f"""
import sys
sys.path.insert(0, {str(built / "DsqlLayer" / "python")!r})
import aws_lambda_powertools.logging.correlation_paths, aws_lambda_powertools.metrics, dsql_lambda, pg8000.native
for name in dsql_lambda.__all__:
    getattr(dsql_lambda, name)
print("%d.%d" % sys.version_info[:2])
"""
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    running = [sys.executable] if f"{sys.version_info[0]}.{sys.version_info[1]}" == version else []
    candidates: list[str | Path] = [*running, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}", *pyenv]
    for python in candidates:
        if Path(python).exists():
            done = subprocess.run([python, "-I", "-S", "-B", "-c", code], check=False, capture_output=True, text=True)
            assert (done.returncode, done.stdout) == (0, f"{version}\n"), done.stderr
            return
    pytest.skip(f"no Python {version} on this machine")


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    """pg8000 is of the series that the wire is written for, python-dateutil one that botocore accepts."""
    pinned = pins(name)
    assert pinned["pg8000"] in SpecifierSet(">=1.31.6,<1.32")
    assert pinned["python-dateutil"] in SpecifierSet("<3")


def test_the_two_forms_agree() -> None:
    """Without Powertools means the same packages less Powertools and what only it needs."""
    full, lean = (pins(name) for name in REQUIREMENTS)
    assert lean.items() < full.items()
    assert full.keys() - lean.keys() == {"aws-lambda-powertools", "jmespath", "typing-extensions"}
    assert full["aws-lambda-powertools"] in SpecifierSet(">=3,<4")


def test_the_pins_and_the_runtime_s_boto3_resolve_together(tmp_path: Path) -> None:
    """The layer's packages come before the runtime's on sys.path, so botocore must accept them (pip says whether it does)."""
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("".join(f"{name}=={version}\n" for name, version in pins("requirements.txt").items()) + "boto3\nbotocore\n")
    arguments = ["install", "--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:", "--requirement", str(wanted)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
