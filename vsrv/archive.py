"""The archive that vsrv may run from: where it is, its members, and why replacing it does not harm a running process.

zipimport reopens the file by path at each late import, with the offsets that it read at first, and children read it again: a new
version copied over the old one would end a server minutes later. Therefore a process works on a sealed copy in memory, which it
hands to its children as an open file. Standard library only; imported by `boot` before anything else.
"""

from __future__ import annotations

import fcntl
import functools
import mmap
import os
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import vsrv

if TYPE_CHECKING:
    import zipfile

_OPEN_FILES = Path("/proc/self/fd")
_STORED = 0  # zipfile.ZIP_STORED
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, …, length of the name, length of the extra field


def path() -> Path | None:
    """The zip file that this process imports vsrv from; None in a checkout or an installed package."""
    parent = Path(vsrv.__path__[0]).parent
    return parent if parent.is_file() else None


def pin() -> None:
    """From now on import from a copy that nobody can change, so that the archive may be replaced at any time.

    Without anonymous files (not Linux, no /proc) at least the link is resolved: `ln -sfn vsrv-1.1.pyz vsrv.pyz` is harmless then.
    """
    archive = path()
    if archive is None or archive.parent == _OPEN_FILES:
        return
    pinned = str(_sealed_copy(archive) or archive.resolve())
    named = vsrv.__path__[0].removesuffix("/vsrv")  # as it was given: ./vsrv.pyz
    sys.path[:] = [pinned if _is_same(entry, archive) else entry for entry in sys.path]
    loaded = [module for name, module in sys.modules.items() if name.partition(".")[0] == "vsrv"]
    for package in (module for module in loaded if hasattr(module, "__path__")):
        package.__path__[:] = [pinned + folder.removeprefix(named) for folder in package.__path__]


def inherited(*descriptors: int) -> list[int]:
    """`pass_fds` of a child that is started with `boot.child_command`: `descriptors` and the copy of the archive."""
    archive = path()
    if archive is None or archive.parent != _OPEN_FILES:
        return list(descriptors)
    return [int(archive.name), *descriptors]


def members(prefix: str) -> list[tuple[str, bytes]]:
    """Name and contents of every file below `prefix` that is not left in place (see `is_mapped`), sorted by name."""
    archive = path()
    assert archive is not None, "not in an archive"
    with _zipped(archive) as zipped:
        names = sorted(n for n in zipped.namelist() if n.startswith(prefix) and not n.endswith("/"))
        return [(name, zipped.read(name)) for name in names if not is_mapped(name)]


def is_mapped(name: str) -> bool:
    """Whether a file is used where it lies in the archive: STORED, its tensors aligned by build_zipapp.py."""
    return name.endswith(".safetensors")


def mapped(name: str) -> memoryview | None:
    """The bytes of a STORED member in place; None if there is no such member.

    The map is copy-on-write: a write by mistake changes this process's view instead of ending it with a fault.
    """
    archive = path()
    if archive is None:
        return None
    with _zipped(archive) as zipped:
        try:
            member = zipped.getinfo(name)
        except KeyError:
            return None
    if member.compress_type != _STORED:
        raise ValueError(f"{name} is compressed in {archive}")
    view = _map(archive)
    # the lengths in the local header count: those of the central directory may differ
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(view, member.header_offset)
    if signature != b"PK\x03\x04":
        raise ValueError(f"{archive} is damaged at {name}")
    start = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    return view[start : start + member.file_size]


def _zipped(archive: Path) -> zipfile.ZipFile:
    """Imported late: `--help` needs no member, and the module takes longer to load than everything else here."""
    import zipfile

    return zipfile.ZipFile(archive)


@functools.cache
def _map(archive: Path) -> memoryview:
    with open(archive, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def _sealed_copy(archive: Path) -> Path | None:
    """A copy in memory under its name in /proc, which this process and its children can open; None where that cannot be."""
    if sys.platform != "linux":
        return None
    try:
        copy = os.memfd_create("vsrv.pyz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return None
    with open(archive, "rb") as source:
        while os.sendfile(copy, source.fileno(), None, 1 << 30):
            continue
    fcntl.fcntl(
        copy,
        fcntl.F_ADD_SEALS,
        fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL,
    )
    pinned = _OPEN_FILES / str(copy)
    if pinned.is_file():
        return pinned
    os.close(copy)
    return None


def _is_same(entry: str, archive: Path) -> bool:
    try:
        return os.path.samefile(entry, archive)
    except OSError:
        return False
