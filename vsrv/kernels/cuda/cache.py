"""Compiled kernels by content: shipped with the package, kept in the private cache folder, or compiled here and kept.

An entry's name is a hash of everything that the machine code follows from, so that there is no invalidation. The compiler's own
version is not in it: a shipped cubin must be found on a host that has no compiler. An entry is a cubin and its SHA-256 (32 bytes
behind the ELF file, which tools ignore); machine code that was cut short by a full disk or a power loss is never loaded.
"""

from __future__ import annotations

import ast
import hashlib
import os
import pkgutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy

from vsrv import boot
from vsrv.errors import ConfigError
from vsrv.kernels.cuda.source import Arch, KernelSpec
from vsrv.requirements import FOR_GPUS

PACKAGE = "vsrv.kernels.cuda"
SHIPPED = "cubins"  # folder inside the package
_TOOLCHAIN = (f"{PACKAGE}.source", f"{PACKAGE}.intrinsics", f"{PACKAGE}.compiler")
_DIGEST_BYTES = 32


class CubinCache:
    """The compiled kernels of one architecture. Owned by the thread that made it."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        # module name → its source and the kernel modules that it imports; a process's sources do not change
        self._texts: dict[str, tuple[str, list[str]]] = {}
        self._closures: dict[
            str, bytes
        ] = {}  # module name → digest of all texts that its kernels are made of

    def key(self, spec: KernelSpec) -> str:
        """Hex SHA-256 over the texts, the specialisation, the signature, the launch shape and the architecture."""
        source = spec.describe()
        facts = (
            spec.factory.__module__,
            spec.factory.__qualname__,
            spec.parameters,
            source.name,
            source.parameters,
            source.arguments,
            source.threads,
            source.shared_bytes,
            source.min_blocks,
            source.max_registers,
            self.arch.name,
        )
        return hashlib.sha256(repr(facts).encode() + self._text_digest(spec.factory.__module__)).hexdigest()

    def find(self, spec: KernelSpec) -> bytes | None:
        """The cubin if somebody has compiled it before. Raises ConfigError when others could have written it."""
        key = self.key(spec)
        return _shipped(key) or _kept(key)

    def compile(self, spec: KernelSpec) -> bytes:
        """Compile here and keep the result. Raises ConfigError that says what to install."""
        compiler, intrinsics = _import_compiler()
        source = spec.source(intrinsics)
        cubin, _ = compiler.cubin_of(compiler.ptx_of(source, self.arch), self.arch, source.max_registers)
        store(self.key(spec), cubin)
        return bytes(cubin)

    def get(self, spec: KernelSpec) -> bytes:
        """The cubin, compiled here if nobody has done so before."""
        return self.find(spec) or self.compile(spec)

    def _text_digest(self, module: str) -> bytes:
        """Over the kernel's own module, the kernel modules that it imports, directly or not, and the toolchain."""
        if module not in self._closures:
            reached: dict[str, str] = {}
            waiting = [module, *_TOOLCHAIN]
            while waiting:
                name = waiting.pop()
                if name not in reached:
                    reached[name], imports = self._text(name)
                    waiting += imports
            digest = hashlib.sha256()
            for name, text in sorted(reached.items()):
                digest.update(f"{name}\0{len(text)}\0{text}".encode())
            self._closures[module] = digest.digest()
        return self._closures[module]

    def _text(self, module: str) -> tuple[str, list[str]]:
        if module not in self._texts:
            text = _source_text(module)
            self._texts[module] = text, _kernel_imports(text)
        return self._texts[module]


def _import_compiler() -> tuple[Any, Any]:
    """Imported late: a host whose cubins are all there needs neither the compiler nor the 0.9 s that its import takes."""
    try:
        from vsrv.kernels.cuda import compiler, intrinsics
    except ImportError as error:
        # without numba-cuda, numba's own older numba.cuda answers and lacks some module
        absent = "numba-cuda" if (error.name or "").startswith("numba.cuda") else str(error)
        raise ConfigError(
            f"GPU kernels cannot be compiled here without numba and numba-cuda (missing: {absent}); {FOR_GPUS}"
        ) from error
    except AttributeError as error:  # numpy is newer than numba-cuda knows
        raise ConfigError(
            f"numba-cuda does not go with numpy {numpy.__version__} ({error}); {FOR_GPUS}"
        ) from error
    return compiler, intrinsics


def _source_text(module: str) -> str:
    """A kernel module's source, from an archive as well; a test's kernels are where Python has loaded them from."""
    own = module.removeprefix(f"{PACKAGE}.")
    try:
        if own == module:
            return Path(str(sys.modules[module].__file__)).read_text()
        return (pkgutil.get_data(PACKAGE, f"{own}.py") or b"").decode()
    except OSError as error:
        raise ConfigError(
            f"the source of {module} is missing ({error}); install vsrv with its .py files"
        ) from error


def _kernel_imports(text: str) -> list[str]:
    """Kernel modules that a source imports; what lies outside the package makes no machine code."""
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            names += [f"{PACKAGE}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return [name for name in names if name.startswith(f"{PACKAGE}.")]


def sealed(cubin: bytes) -> bytes:
    """An entry's bytes."""
    return cubin + hashlib.sha256(cubin).digest()


def _opened(entry: bytes) -> bytes | None:
    """The cubin of an entry, None if it is damaged."""
    cubin, digest = entry[:-_DIGEST_BYTES], entry[-_DIGEST_BYTES:]
    return cubin if cubin and hashlib.sha256(cubin).digest() == digest else None


def _shipped(key: str) -> bytes | None:
    try:
        entry = pkgutil.get_data(PACKAGE, f"{SHIPPED}/{key}.cubin")
    except OSError:
        return None  # the answer of files and archives alike for what is not there
    cubin = _opened(entry or b"")
    if cubin is None:
        raise ConfigError(f"the shipped kernel {key[:12]} is damaged; download or install vsrv again")
    return cubin


def _path(key: str) -> Path:
    return boot.private_folder(SHIPPED) / f"{key}.cubin"


def _kept(key: str) -> bytes | None:
    """From the private folder; None when absent or damaged (it is compiled again and replaced)."""
    path = _path(key)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"compiled kernel {path} cannot be opened: {error.strerror}; delete it") from error
    with os.fdopen(file, "rb") as entry:
        status = os.fstat(entry.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ConfigError(
                f"compiled kernel {path} belongs to another user or can be written by others; delete it"
            )
        return _opened(entry.read())


def store(key: str, cubin: bytes) -> None:
    """Keep a cubin, atomically: a process that looks at the same time sees nothing or all of it. Raises ConfigError."""
    path = _path(key)
    try:
        file, scratch = tempfile.mkstemp(prefix=f".{key[:12]}-", dir=path.parent)
        try:
            with os.fdopen(file, "wb") as entry:
                entry.write(sealed(cubin))
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise
    except OSError as error:
        raise ConfigError(
            f"a compiled kernel cannot be kept in {path.parent}: {error.strerror}; set VSRV_CACHE_DIR to another folder"
        ) from error
