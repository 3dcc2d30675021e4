"""Packs a built form of the layer: `python package.py <form> <runtime> <artifacts folder> <target folder>`.

It prints the SHA-256 and the name of the zip. The same files make the same bytes: names in order, the builder's modes and times,
nothing of this machine. (Deflate is zlib's: another release of it may compress the same files to other bytes.)
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
import zipfile
from pathlib import Path

NAMES = {"DsqlLayer": "dsql-lambda-layer", "DsqlLayerWithoutPowertools": "dsql-lambda-layer-without-powertools"}
UNIX = 3


def pack(artifacts: Path, target: Path) -> None:
    """Write the files below `artifacts` into the zip `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(each for each in artifacts.rglob("*") if each.is_file()):
            state = path.stat()
            entry = zipfile.ZipInfo(path.relative_to(artifacts).as_posix(), time.gmtime(state.st_mtime)[:6])
            entry.external_attr = (state.st_mode & 0xFFFF) << 16
            entry.create_system = UNIX
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes(), compresslevel=9)
    partial.replace(target)


def version_of(artifacts: Path) -> str:
    """The version of dsql_lambda that the layer carries."""
    found = re.search(r'__version__ = "(.+)"', (artifacts / "python/dsql_lambda/version.py").read_text(encoding="utf-8"))
    if found is None:
        sys.exit("dsql-lambda: dsql_lambda/version.py says no version")
    return found[1]


def main(arguments: list[str]) -> int:
    """Pack one form."""
    form, runtime, artifacts, folder = arguments[0], arguments[1], Path(arguments[2]), Path(arguments[3])
    target = folder / f"{NAMES[form]}-{version_of(artifacts)}-{runtime}.zip"
    pack(artifacts, target)
    print(f"{hashlib.sha256(target.read_bytes()).hexdigest()}  {target} ({target.stat().st_size} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
