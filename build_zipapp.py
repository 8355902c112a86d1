#!/usr/bin/env python3
"""Build dist/vsrv.pyz: the whole server as one file that any Python with vsrv's dependencies can run.

    python3 build_zipapp.py [--output dist/vsrv.pyz]
    python dist/vsrv.pyz serve MODEL

The bytes depend only on the sources, the Python minor version and SOURCE_DATE_EPOCH (else the commit time, else 1980):
names are sorted, times and modes fixed. Each module also goes in as an unchecked-hash .pyc, which saves about 0.1 s of
compiling at every start; kernels do not, because numba must see real source files (`vsrv.boot.private_copy`).
Model weights are STORED, so that they can be mapped in place.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import marshal
import os
import struct
import subprocess
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = b"import sys\nfrom vsrv.__main__ import main\nsys.exit(main())\n"
DATA_SUFFIXES = {".json", ".safetensors", ".tsv", ".jinja"}
STORED_SUFFIXES = {".safetensors"}
EARLIEST = 315532800  # 1980-01-01, the first moment a zip can name


def build(output: Path) -> str:
    """Write the archive to `output` atomically and return its SHA-256 in hex."""
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_suffix(".tmp")
    date = time.gmtime(_epoch())[:6]
    with open(scratch, "wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, data in _members():
                _add(archive, name, data, date)
    scratch.chmod(0o755)
    digest = hashlib.sha256(scratch.read_bytes()).hexdigest()
    os.replace(scratch, output)
    return digest


def _epoch() -> int:
    """Seconds since 1970 for every member, rounded to even: SOURCE_DATE_EPOCH, else the commit time, else 1980."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        git = subprocess.run(
            ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
        )
        text = git.stdout.strip() if git.returncode == 0 else ""
    return max(EARLIEST, int(text or 0)) & ~1


def _members() -> list[tuple[str, bytes]]:
    members = [("__main__.py", MAIN), ("LICENSE", (ROOT / "LICENSE").read_bytes())]
    for path in sorted((ROOT / "vsrv").rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".py":
            source = path.read_bytes()
            members.append((name, source))
            if not name.startswith("vsrv/kernels/"):
                members.append((name + "c", _pyc(name, source)))
        elif path.suffix in DATA_SUFFIXES:
            members.append((name, path.read_bytes()))
    return sorted(members)


def _pyc(name: str, source: bytes) -> bytes:
    """Unchecked-hash .pyc (PEP 552). Its file name is absolute and impossible, so nothing ever opens it by chance."""
    code = compile(source, f"/vsrv.pyz/{name}", "exec", dont_inherit=True, optimize=0)
    return (
        importlib.util.MAGIC_NUMBER
        + struct.pack("<I", 1)
        + importlib.util.source_hash(source)
        + marshal.dumps(code)
    )


def _add(archive: zipfile.ZipFile, name: str, data: bytes, date: tuple[int, ...]) -> None:
    info = zipfile.ZipInfo(name, date)  # type: ignore[arg-type]
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    info.compress_type = zipfile.ZIP_STORED if Path(name).suffix in STORED_SUFFIXES else zipfile.ZIP_DEFLATED
    archive.writestr(info, data)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=ROOT / "dist" / "vsrv.pyz", help="where to write the archive"
    )
    output: Path = parser.parse_args().output
    digest = build(output)
    print(f"{output}  {output.stat().st_size:,} bytes  sha256 {digest}")


if __name__ == "__main__":
    main()
