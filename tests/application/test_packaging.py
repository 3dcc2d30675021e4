"""The layer as SAM builds it: what is in it, how big it is, and what it agrees with."""

import _imp
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from dsql_lambda.version import __version__
from dsql_local.sam.template import read_function

LIMITS = {"DsqlLayer": 4 * 1024 * 1024, "DsqlLayerWithoutPowertools": 2 * 1024 * 1024}
FORMS = list(LIMITS)
REQUIREMENTS = ["requirements.txt", "requirements-without-powertools.txt"]
ROOT = Path(__file__).parents[2]
IMAGE = "public.ecr.aws/lambda/python"


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
def test_the_layer_zips_to_at_most_its_limit(built: Path, tmp_path: Path, form: str) -> None:
    """Bytecode for one runtime included: its size is part of every cold start."""
    for version in versions_compiled(built / form):
        others = [f"*.cpython-{each.replace('.', '')}.pyc" for each in versions_compiled(built / form) - {version}]
        layer = shutil.copytree(built / form, tmp_path / version, ignore=shutil.ignore_patterns(*others))
        archive = Path(shutil.make_archive(str(tmp_path / form), "zip", layer))
        assert archive.stat().st_size <= LIMITS[form]


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


def versions_compiled(layer: Path) -> set[str]:
    """The versions that any module has bytecode of, as 3.13."""
    return {f"3.{path.suffixes[0].removeprefix('.cpython-3')}" for path in layer.rglob("*.pyc")}


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
def test_every_module_has_bytecode(built: Path, form: str) -> None:
    """For the interpreter at hand, and for the template's runtime where an interpreter of its version is there too."""
    layer = built / form / "python"
    modules = set(layer.rglob("*.py"))
    at_hand = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert versions_compiled(layer) in ({at_hand}, {at_hand, runtime_of_the_template()})
    for version in versions_compiled(layer):
        compiled = {source_of(path) for path in layer.rglob(f"*.cpython-{version.replace('.', '')}.pyc")}
        assert compiled == modules


@pytest.mark.parametrize("form", FORMS)
def test_the_layer_says_what_it_is(built: Path, form: str) -> None:
    """Our metadata and licence; nothing that pip writes about the machine."""
    layer = built / form / "python"
    (found,) = (each for each in distributions(path=[str(layer)]) if each.name == "dsql-lambda")
    assert found.version == __version__
    assert found.metadata["License-Expression"] == "Apache-2.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert found.metadata["Requires-Python"] == project["requires-python"]
    assert found.metadata["Summary"] == project["description"]
    assert [Requirement(each) for each in found.requires or ()] == [Requirement(each) for each in project["dependencies"]]
    licence = next(layer.glob("dsql_lambda-*.dist-info/licenses/LICENSE"))
    assert licence.read_text() == (ROOT / "LICENSE").read_text()
    assert not [path for path in layer.rglob("*") if path.name in {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}]


@pytest.mark.parametrize("form", FORMS)
def test_pg8000_is_lean(built: Path, form: str) -> None:
    """As `layer/lean.py` makes it; its own test says what that is."""
    package = built / form / "python" / "pg8000"
    assert not re.search(r"^(import|from) (scramp|dateutil|importlib)", (package / "core.py").read_text(), re.MULTILINE)
    assert (package / "__init__.py").read_text().startswith("def __getattr__")


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
def test_every_runtime_imports_the_layer(built: Path, version: str, request: pytest.FixtureRequest) -> None:
    """An interpreter of each supported runtime imports all of it, from the layer and nothing else."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import aws_lambda_powertools.logging.correlation_paths, aws_lambda_powertools.metrics, dsql_lambda, pg8000.native
for name in dsql_lambda.__all__:
    if name != "DsqlPersistenceLayer":  # Powertools' contract imports boto3, which the runtime has
        getattr(dsql_lambda, name)
print("%d.%d" % sys.version_info[:2])
"""
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    running = [sys.executable] if f"{sys.version_info[0]}.{sys.version_info[1]}" == version else []
    candidates: list[str | Path] = [*running, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}", *pyenv]
    layer = str(built / "DsqlLayer" / "python")
    command = next(([str(each), "-I", "-S", "-B", "-c", code, layer] for each in candidates if Path(each).exists()), None)
    if command is None:
        client = request.getfixturevalue("docker")  # without an engine this skips, or fails where it must not
        image = next(
            (
                f"{IMAGE}:{version}-{machine}"
                for machine in ("x86_64", "arm64")
                if client.images.list(f"{IMAGE}:{version}-{machine}")
            ),
            None,
        )
        if image is None:
            pytest.skip(f"no Python {version} on this machine, and no image of it")
        options = ["--rm", "--volume", f"{layer}:/opt/python:ro", "--entrypoint", f"/var/lang/bin/python{version}"]
        command = ["docker", "run", *options, image, "-I", "-S", "-B", "-c", code, "/opt/python"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{version}\n"), done.stderr


def runtime_of_the_template() -> str:
    """Its parameter's default, as 3.13."""
    parameter = (ROOT / "template.yaml").read_text().split("\n  Runtime:\n")[1]
    match = re.search(r"^    Default: python(3\.\d+)$", parameter, re.MULTILINE)
    assert match
    return match[1]


def test_the_default_is_the_runtime_of_the_template() -> None:
    """SAM does not tell a layer's Makefile which functions attach it."""
    makefile = (ROOT / "layer" / "Makefile").read_text()
    assert re.findall(r"^RUNTIMES \?= (.*)$", makefile, re.MULTILINE) == [runtime_of_the_template()]


Make = Callable[..., subprocess.CompletedProcess[str]]
AT_HAND = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def make(project: Path, tmp_path: Path) -> Make:
    """Build the smaller form by its Makefile alone, where only a few tools and no other interpreter can be found."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "make"):
        (tools / name).symlink_to(shutil.which(name) or "")

    def make(into: Path, *, umask: int = 0o022, tool: str = "sh", **variables: str) -> subprocess.CompletedProcess[str]:
        if not (tools / tool).exists():
            (tools / tool).symlink_to(shutil.which(tool) or "")
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        environment = {"PYTHON": sys.executable, "HOME": str(tmp_path), **pip, **variables, "PATH": str(tools)}
        return subprocess.run(
            ["make", "-C", str(project / "layer"), "build-DsqlLayerWithoutPowertools", f"ARTIFACTS_DIR={into}"],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            umask=umask,
        )

    return make


def sentences(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the build itself said."""
    return [line for line in done.stderr.splitlines() if line.startswith("dsql-lambda: ")]


def contents(folder: Path) -> dict[Path, tuple[int, float, bytes]]:
    """All that an archive holds of each file and folder: mode, time, bytes."""
    return {
        path.relative_to(folder): (path.stat().st_mode, path.stat().st_mtime, path.read_bytes() if path.is_file() else b"")
        for path in [folder / "python", *folder.rglob("*")]
    }


def test_two_builds_are_the_same_bytes(make: Make, tmp_path: Path) -> None:
    """Whatever the umask, the time zone and the folder are; folders are 755 and files 644."""
    one, other = tmp_path / "one", tmp_path / "another place"
    for folder, umask, zone in ((one, 0o022, "UTC"), (other, 0o077, "Asia/Tokyo")):
        done = make(folder, umask=umask, RUNTIMES=AT_HAND, TZ=zone, PYTHONHASHSEED=str(umask))
        assert done.returncode == 0, done.stderr
    assert contents(one) == contents(other)
    assert {mode & 0o777 for mode, _, _ in contents(one).values()} == {0o755, 0o644}
    assert versions_compiled(one) == {AT_HAND}
    packages = [package(one, tmp_path / "dist", 0o022, "UTC"), package(other, tmp_path / "other dist", 0o077, "Asia/Tokyo")]
    assert packages[0].name == f"dsql-lambda-layer-without-powertools-{__version__}-python{AT_HAND}.zip"
    assert packages[0].read_bytes() == packages[1].read_bytes()
    shutil.unpack_archive(packages[0], tmp_path / "unpacked")
    files = {path.relative_to(one): path.read_bytes() for path in one.rglob("*") if path.is_file()}
    unpacked = tmp_path / "unpacked"
    assert {path.relative_to(unpacked): path.read_bytes() for path in unpacked.rglob("*") if path.is_file()} == files


def package(artifacts: Path, folder: Path, umask: int, zone: str) -> Path:
    """What `make package` makes of a build; it says the zip's hash."""
    arguments = ["DsqlLayerWithoutPowertools", f"python{AT_HAND}", str(artifacts), str(folder)]
    command = [sys.executable, str(ROOT / "layer" / "package.py"), *arguments]
    done = subprocess.run(command, env={**os.environ, "TZ": zone}, umask=umask, check=True, capture_output=True, text=True)
    [found] = folder.iterdir()
    assert done.stdout.split()[0] == hashlib.sha256(found.read_bytes()).hexdigest()
    return found


def test_a_runtime_without_an_interpreter_fails_the_build(make: Make, tmp_path: Path) -> None:
    """One sentence says what to do."""
    done = make(tmp_path / "layer", RUNTIMES="3.10")
    assert done.returncode != 0
    (sentence,) = sentences(done)
    assert sentence == (
        "dsql-lambda: no Python 3.10 was found to make bytecode for python3.10: "
        "install python3.10, start a Docker engine, or set BYTECODE=optional to build without"
    )


def test_optional_bytecode_is_a_warning(make: Make, tmp_path: Path) -> None:
    """And the interpreter at hand has its own."""
    done = make(tmp_path / "layer", RUNTIMES="3.10", BYTECODE="optional")
    assert done.returncode == 0, done.stderr
    assert "warning: no Python 3.10" in sentences(done)[0]
    assert versions_compiled(tmp_path / "layer") == {AT_HAND}


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("BYTECODE", "no", "BYTECODE is 'no': it must be required or optional"),
        ("RUNTIMES", "python3.13", "RUNTIMES is 'python3.13': it must be versions, as in RUNTIMES='3.13 3.14'"),
    ],
)
def test_a_mistaken_variable_is_one_sentence(make: Make, tmp_path: Path, variable: str, value: str, said: str) -> None:
    """Before anything is installed."""
    done = make(tmp_path / "layer", **{variable: value})
    assert done.returncode != 0
    assert said in sentences(done)[0]
    assert not (tmp_path / "layer").exists()


def test_a_docker_engine_stands_in_for_an_interpreter(make: Make, docker: Any, tmp_path: Path) -> None:
    """Lambda's own image of the version compiles; the files are the builder's."""
    version = next(each for each in ("3.14", "3.13") if each != AT_HAND and docker.images.list(f"{IMAGE}:{each}-x86_64"))
    done = make(tmp_path / "layer", RUNTIMES=version, tool="docker")
    assert done.returncode == 0, done.stderr
    assert f"by {IMAGE}:{version}-" in sentences(done)[0]
    assert versions_compiled(tmp_path / "layer") == {version}
    assert {path.stat().st_uid for path in (tmp_path / "layer").rglob("*")} == {os.getuid()}


@pytest.mark.parametrize("name", ["build.py", "lean.py", "package.py"])
def test_an_old_interpreter_can_build_the_layer(name: str) -> None:
    """Whichever has pip: macOS brings 3.9."""
    ast.parse((ROOT / "layer" / name).read_text(), feature_version=(3, 9))


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
