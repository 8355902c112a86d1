#!/usr/bin/env python3
"""Build dist/vsrv.pyz: the whole server as one file that any Python with vsrv's dependencies can run.

    python3 build_zipapp.py [--output dist/vsrv.pyz] [--cubins sm_80,sm_89,sm_90a]
    python dist/vsrv.pyz serve MODEL

The bytes depend only on the sources, the Python minor version and SOURCE_DATE_EPOCH (else the commit time, else 1980):
names are sorted, times and modes fixed. Each module also goes in as an unchecked-hash .pyc, which saves about 0.1 s of
compiling at every start; kernels do not, because numba must see real source files (`vsrv.boot.private_copy`).
Model weights are STORED, so that they can be mapped in place.

With --cubins the kernels of vsrv/kernels/cuda/variants.py go in compiled for these GPUs, STORED: a host with such a GPU needs no compiler.
That takes the packages of `pip install 'vsrv[cuda]'` and no GPU; the bytes then depend on the compiler's version as well.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import marshal
import os
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = b"import sys\nfrom vsrv.__main__ import main\nsys.exit(main())\n"
DATA_SUFFIXES = {".json", ".safetensors", ".tsv", ".jinja"}
STORED_SUFFIXES = {".safetensors", ".cubin"}
EARLIEST = 315532800  # 1980-01-01, the first moment a zip can name


def build(output: Path, architectures: list[str] | None = None) -> str:
    """Write the archive to `output` atomically and return its SHA-256 in hex. architectures: GPUs to compile kernels for."""
    members = sorted(_members() + _cubins(architectures or []))
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_suffix(".tmp")
    date = time.gmtime(_epoch())[:6]
    with open(scratch, "wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, data in members:
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
    return members


def _cubins(architectures: list[str]) -> list[tuple[str, bytes]]:
    """Compiled kernels under the names that vsrv.kernels.cuda.cache looks for."""
    if not architectures:
        return []
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    # late: the archive itself is built by any Python, without numba
    from vsrv.errors import ConfigError

    try:
        return _compiled(architectures)
    except ConfigError as error:
        raise SystemExit(f"build_zipapp.py: {error}") from error


def _compiled(architectures: list[str]) -> list[tuple[str, bytes]]:
    from vsrv.kernels.cuda import cache, compile_helpers, variants
    from vsrv.kernels.cuda.source import parse_arch

    tasks = [(spec, arch) for arch in map(parse_arch, architectures) for spec in variants.shipped(arch)]
    if not tasks:
        raise SystemExit("build_zipapp.py: vsrv/kernels/cuda/variants.py lists no kernels to ship")
    # An empty cache, so that nothing an older compiler has made goes into the archive.
    with tempfile.TemporaryDirectory() as folder, _environment(VSRV_CACHE_DIR=folder, PYTHONPATH=str(ROOT)):
        compile_helpers.compile_all(tasks, lambda line: print(line, file=sys.stderr))
        caches = {arch: cache.CubinCache(arch) for _, arch in tasks}
        return [
            (
                f"vsrv/kernels/cuda/{cache.SHIPPED}/{caches[arch].key(spec)}.cubin",
                cache.sealed(caches[arch].get(spec)),
            )
            for spec, arch in tasks
        ]


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables for this process and the helpers that it starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


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
    parser.add_argument(
        "--cubins", default="", metavar="ARCH,…", help="ship compiled kernels: sm_80,sm_89,sm_90a"
    )
    arguments = parser.parse_args()
    output: Path = arguments.output
    digest = build(output, [name for name in arguments.cubins.split(",") if name])
    print(f"{output}  {output.stat().st_size:,} bytes  sha256 {digest}")


if __name__ == "__main__":
    main()
