"""What `sam build` does for a function whose parts are built by Makefiles, without SAM: `make build-<logical id>`, once a change.

Each part's folder is copied, and its Makefile fills ARTIFACTS_DIR. What was built is used again while nothing in that folder has
changed. The layer gets bytecode for the interpreter that will run it: this one.
"""

import dataclasses
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .command import running
from .signals import temporary_folder
from .template import Function

__all__ = ["MakefileBuildError", "build"]

IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


class MakefileBuildError(Exception):
    """A part can't be built this way, or its Makefile failed; its output is the error's text."""


def build(function: Function, folder: Path) -> Function:
    """The function with its code and layers as built below `folder`. Raises `MakefileBuildError`."""
    code = _built(function, function.name, function.code, folder)
    names = zip(function.layer_names, function.layers, strict=True)
    layers = tuple(_built(function, name, source, folder) for name, source in names)
    return dataclasses.replace(function, code=code, layers=layers)


def _built(function: Function, name: str, source: Path, folder: Path) -> Path:
    if function.build_methods.get(name) != "makefile":
        raise MakefileBuildError(f"{name} has no BuildMethod: makefile in the template, so only SAM can build it: use --via sam")
    target, stamp = folder / name, folder / f"{name}.built-from"
    digest = _digest(source)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest and target.is_dir():
        return target
    stamp.unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with temporary_folder("dsql-build-") as scratch, tempfile.TemporaryFile("w+") as output:
        copy = shutil.copytree(source, scratch / "source", ignore=IGNORED)
        with running(["make", f"build-{name}"], copy, _environment(target), stdout=output, stderr=output) as make:
            status = make.wait()
        if status != 0:
            output.seek(0)
            raise MakefileBuildError(f"make build-{name} failed in a copy of {source}.\n{output.read().rstrip()}")
    stamp.write_text(digest, encoding="utf-8")
    return target


def _environment(target: Path) -> dict[str, str]:
    """The caller's, less what a `make` above this one would hand down; BYTECODE and PYTHON are layer/Makefile's."""
    kept = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    return {**kept, "ARTIFACTS_DIR": str(target), "BYTECODE": "optional", "PYTHON": sys.executable}


def _digest(source: Path) -> str:
    """Of everything that the build sees: the files of the folder, and the interpreter."""
    found = hashlib.sha256(f"{sys.executable} {sys.version}".encode())
    folders = os.walk(source, followlinks=True)  # a link to a folder is built as what it leads to
    for path in sorted(Path(folder) / name for folder, _, names in folders for name in names):
        if path.is_file() and not any(part == "__pycache__" or part.endswith(".egg-info") for part in path.parts):
            content = path.read_bytes()
            found.update(f"\n{path.relative_to(source)} {len(content)}\n".encode())
            found.update(content)
    return found.hexdigest()
