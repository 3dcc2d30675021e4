"""Builds one form of the layer: `python build.py <requirements file> <artifacts folder>`. `sam build` runs it by the Makefile.

Any interpreter that has pip will do. All of the layer is pure Python, and its wheels are chosen for no platform and for the
oldest supported runtime, so that one build serves x86_64 and arm64. The same sources make the same bytes on every machine.

/opt is read-only, so a module without bytecode is compiled at every cold start. Every module has it, for each version in RUNTIMES
("3.13 3.14"), made by an interpreter of that version or in Lambda's own image. Where neither is at hand the build fails.
BYTECODE=optional makes that a warning and adds bytecode for the interpreter at hand: for runs on this machine, never to deploy.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lean import UnexpectedTextError, make_lean

HERE = Path(__file__).resolve().parent
OLDEST_RUNTIME = "3.11"
INSTALLED_AT = "/opt/python"  # where Lambda puts the layer's `python` folder
MODIFIED_AT = 946_684_800  # 2000-01-01, for every file: an archive holds it

# As in pyproject.toml, which is not in this folder.
SUMMARY = (
    "Aurora DSQL transactions for AWS Lambda functions in Python: authenticated, retried on conflicts, cached across invocations"
)
METADATA = """\
Metadata-Version: 2.4
Name: dsql-lambda
Version: {version}
Summary: {summary}
License-Expression: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.11
Requires-Dist: pg8000<1.32,>=1.31.6
"""


class BuildError(Exception):
    """The layer can't be built; the sentence says what to do."""


def build(requirements: Path, artifacts: Path, runtimes: list[str], *, is_bytecode_optional: bool) -> None:
    """Fill `artifacts` with the layer. Raises `BuildError`."""
    target = artifacts / "python"
    install(requirements, target)
    try:
        make_lean(target)
    except UnexpectedTextError as error:
        raise BuildError(f"{error}; layer/lean.py is written for the pg8000 that the requirements pin") from error
    copy_package(target)
    remove_what_nobody_imports(target)
    at_hand = filter(None, [version_of(sys.executable)]) if is_bytecode_optional else []
    for runtime in dict.fromkeys([*runtimes, *at_hand]):
        try:
            compile_for(runtime, target, may_use_container=not is_bytecode_optional)
        except BuildError as error:
            if not is_bytecode_optional:
                raise
            print(f"dsql-lambda: warning: {error}", file=sys.stderr)
    settle(artifacts)


def install(requirements: Path, target: Path) -> None:
    """The pinned wheels, each verified by its hash."""
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"),
        *("--require-hashes", "--only-binary=:all:", "--platform", "any", "--implementation", "py", "--abi", "none"),
        *("--python-version", OLDEST_RUNTIME, "--target", str(target), "--requirement", str(requirements)),
    ]
    done = subprocess.run(command, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}, check=False)
    if done.returncode != 0:
        raise BuildError("pip could not install the layer's requirements: its own lines are above")


def copy_package(target: Path) -> None:
    """dsql_lambda with its metadata and licence."""
    shutil.copytree(HERE / "dsql_lambda", target / "dsql_lambda", ignore=shutil.ignore_patterns("__pycache__"))
    version = re.search(r'__version__ = "(.+)"', (HERE / "dsql_lambda" / "version.py").read_text(encoding="utf-8"))
    if version is None:
        raise BuildError("dsql_lambda/version.py says no version")
    metadata = target / f"dsql_lambda-{version[1]}.dist-info"
    (metadata / "licenses").mkdir(parents=True)
    (metadata / "METADATA").write_text(METADATA.format(version=version[1], summary=SUMMARY), encoding="utf-8")
    shutil.copy(HERE / "LICENSE", metadata / "licenses" / "LICENSE")


def remove_what_nobody_imports(target: Path) -> None:
    """Commands, tests, and pip's records, which are of this machine."""
    shutil.rmtree(target / "bin", ignore_errors=True)
    for folder in [each for each in target.rglob("*") if each.name in {"__pycache__", "tests"} and each.is_dir()]:
        shutil.rmtree(folder, ignore_errors=True)
    for metadata in target.glob("*.dist-info"):
        for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            (metadata / name).unlink(missing_ok=True)


def compile_for(runtime: str, target: Path, *, may_use_container: bool) -> None:
    """Put bytecode of this version beside every module, never to be checked against its source. Raises `BuildError`."""
    names = sorted(each.name for each in target.iterdir() if each.suffix == ".py" or (each / "__init__.py").exists())
    arguments = ["-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-p", INSTALLED_AT, *names]
    interpreter = next(interpreters(runtime), None)
    if interpreter is not None:
        command, said = [interpreter, *arguments], interpreter
    elif may_use_container and shutil.which("docker"):
        machine = "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"
        said = f"public.ecr.aws/lambda/python:{runtime}-{machine}"
        options = ["--rm", "--network", "none", "--user", f"{os.getuid()}:{os.getgid()}", "--security-opt", "label=disable"]
        places = ["--volume", f"{target}:{INSTALLED_AT}", "--workdir", INSTALLED_AT]
        command = ["docker", "run", *options, *places, "--entrypoint", f"/var/lang/bin/python{runtime}", said, *arguments]
    else:
        raise BuildError(f"no Python {runtime} was found to make bytecode for python{runtime}: {remedy(runtime)}")
    done = subprocess.run(command, cwd=target, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        why = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise BuildError(f"{said} made no bytecode for python{runtime} ({why[0]}): {remedy(runtime)}")
    print(f"dsql-lambda: bytecode for python{runtime} by {said}", file=sys.stderr)


def remedy(runtime: str) -> str:
    """What to do where there is no bytecode of a version."""
    return f"install python{runtime}, start a Docker engine, or set BYTECODE=optional to build without"


def interpreters(runtime: str) -> Iterator[str]:
    """Those of a version that work. A name on the PATH alone proves nothing (pyenv's shims fail when they are run)."""
    homes = (Path.home() / ".pyenv" / "versions", Path.home() / ".local" / "share" / "uv" / "python")
    installed = [str(each) for home in homes for each in sorted(home.glob(f"*{runtime}.*/bin/python"), reverse=True)]
    for candidate in (sys.executable, f"python{runtime}", *installed):
        if version_of(candidate) == runtime:
            yield candidate


def version_of(interpreter: str) -> str:
    """Its version, as 3.13; empty if it does not run, or makes other bytecode than that release of CPython."""
    is_release = "sys.implementation.name == 'cpython' and sys.version_info.releaselevel == 'final'"
    command = [interpreter, "-I", "-S", "-c", f"import sys; {is_release} and print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def settle(artifacts: Path) -> None:
    """The same modes and times on every machine."""
    for path in [artifacts / "python", *artifacts.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (MODIFIED_AT, MODIFIED_AT))


def main(arguments: list[str]) -> int:
    """Build as the arguments and the environment say."""
    runtimes = os.environ.get("RUNTIMES", "").split()
    wanted = os.environ.get("BYTECODE") or "required"
    try:
        if wanted not in {"required", "optional"}:
            raise BuildError(f"BYTECODE is {wanted!r}: it must be required or optional")
        if not runtimes or not all(re.fullmatch(r"3\.\d\d", each) for each in runtimes):
            raise BuildError(f"RUNTIMES is {' '.join(runtimes)!r}: it must be versions, as in RUNTIMES='3.13 3.14'")
        requirements, artifacts = (Path(each).resolve() for each in arguments)
        build(requirements, artifacts, runtimes, is_bytecode_optional=wanted == "optional")
    except BuildError as error:
        print(f"dsql-lambda: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
