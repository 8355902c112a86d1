"""How a vsrv process starts: its private cache folder, sources and data from checkout, site-packages or archive, its children.

Floor 0: standard library only; imported by `__main__` before anything else, so it must stay quick to load:
what only an unpacking needs is imported there (hashlib, shutil and tempfile take as long as all the rest).
Facts behind the choices (zipimport keeps offsets, numba caches next to the source): see CONTRIBUTING.md, "the archive".
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import stat
import sys
from pathlib import Path

from vsrv import archive
from vsrv.errors import ConfigError

_PR_SET_PDEATHSIG = 1  # prctl(2)


def child_command(name: str) -> list[str]:
    """Command line that starts this same vsrv with the internal command `name` ("_engine", "_prepare").

    The child needs `pass_fds=archive.inherited(…)`.
    """
    flags = ["-I"] if sys.flags.isolated else []
    path = archive.path()
    if path is not None:
        # the path is a number; -X takes any word, and so `pgrep -f vsrv` finds the process
        return [sys.executable, *flags, "-X", "vsrv", str(path), name]
    # -P keeps the current folder off sys.path; only a plain checkout that is run from its root needs it there.
    root = Path(__file__).resolve().parent.parent
    if not flags and root != Path.cwd().resolve():
        flags = ["-P"]
    return [sys.executable, *flags, "-m", "vsrv", name]


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends, for children that sit in a long kernel and read no socket."""
    if sys.platform != "linux":
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def peer_has_gone(fd: int) -> bool:
    """Whether the other end of an inherited socket is closed, whatever lies unread in ours."""
    poll = select.poll()
    poll.register(fd, select.POLLHUP)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def dump_stacks_on_signal() -> None:
    """On SIGUSR2, and before a crash, write the Python stack of every thread to stderr; works while a thread is stuck in a kernel."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=True)


def cache_dir() -> Path:
    """The private cache folder, made with mode 0700 if absent. Raises ConfigError when nobody but us may trust it.

    Order: VSRV_CACHE_DIR (explicit, so never another one), systemd's CACHE_DIRECTORY, XDG_CACHE_HOME/vsrv,
    ~/.cache/vsrv, XDG_RUNTIME_DIR/vsrv, <temporary folder>/vsrv-<uid>. Compiled kernels in it are code: a folder that
    another user owns or can write is refused.
    """
    explicit = os.environ.get("VSRV_CACHE_DIR")
    if explicit:
        return _private_dir(Path(explicit))
    refusals: list[str] = []
    for candidate in _cache_candidates():
        try:
            return _private_dir(candidate)
        except (OSError, ConfigError) as error:
            refusals.append(str(error))
    raise ConfigError(
        f"no usable cache folder ({'; '.join(refusals)}); set VSRV_CACHE_DIR to a folder that you own"
    )


def _cache_candidates() -> list[Path]:
    candidates: list[Path] = []
    environ = os.environ
    if environ.get("CACHE_DIRECTORY"):
        # with DynamicUser= systemd puts the real folder behind a symbolic link of its own
        candidates.append(Path(os.path.realpath(environ["CACHE_DIRECTORY"].split(":")[0])))
    if environ.get("XDG_CACHE_HOME"):
        candidates.append(Path(environ["XDG_CACHE_HOME"]) / "vsrv")
    home = os.path.expanduser("~")
    if os.path.isdir(home):
        candidates.append(Path(home) / ".cache" / "vsrv")
    if environ.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(environ["XDG_RUNTIME_DIR"]) / "vsrv")
    import tempfile

    candidates.append(Path(tempfile.gettempdir()) / f"vsrv-{os.geteuid()}")
    return candidates


def private_folder(name: str) -> Path:
    """The folder `name` below `cache_dir()`, under the same rules."""
    return _private_dir(cache_dir() / name)


def _private_dir(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return check_private(path)


def check_private(path: Path) -> Path:
    """`path`, a folder that only we can change. Raises ConfigError."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"cache folder {path} is a symbolic link or a file")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"cache folder {path} belongs to user id {status.st_uid}, not to {os.geteuid()}")
    if status.st_mode & 0o022:
        raise ConfigError(f"cache folder {path} can be written by others; run: chmod go-w {path}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"cache folder {path} cannot be written")
    return path


def private_copy(folder: str) -> Path:
    """A private folder that holds a copy of package folder `folder` ("kernels/cpu") under its last name, for numba to compile from.

    numba keeps its cache beside the source file, refuses sources in an archive, and looks at the time stamp of one file only although
    a kernel is compiled from several. Therefore such sources are always taken from a copy below `cache_dir()`, named after a hash
    of names, contents and the Python version, so that another text never meets an old cache.
    """
    import hashlib

    files = _sources(folder)
    digest = hashlib.sha256(sys.version.encode())
    for name, data in files:
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return _unpacked(files, f"{folder.replace('/', '-')}-{digest.hexdigest()[:32]}")


def _sources(folder: str) -> list[tuple[str, bytes]]:
    """Every Python source below vsrv/`folder` as (path relative to the folder's parent, bytes), sorted."""
    parent = folder.rpartition("/")[0]
    if archive.path() is None:
        root = Path(__file__).parent
        found = (root / folder).rglob("*.py")
        return sorted((str(f.relative_to(root / parent)), f.read_bytes()) for f in found)
    members = archive.members(f"vsrv/{folder}/")
    return [(n.removeprefix(f"vsrv/{parent}/"), data) for n, data in members if n.endswith(".py")]


def unpack_package_folder(folder: str) -> Path:
    """A real folder with the data files of package folder `folder` ("demo").

    When vsrv runs from an archive it is a private copy, but for what `embedded` gives in place.
    """
    if archive.path() is None:
        return Path(__file__).parent / folder
    import hashlib

    members = archive.members(f"vsrv/{folder}/")
    files = [(n.removeprefix("vsrv/"), data) for n, data in members if not n.endswith((".py", ".pyc"))]
    digest = hashlib.sha256()
    for name, data in files:
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return _unpacked(files, f"{folder}-{digest.hexdigest()[:32]}") / folder


def embedded(path: Path) -> memoryview | None:
    """The bytes of a file that `unpack_package_folder` has left in the archive, mapped in place; None for any other path."""
    view = archive.mapped(f"vsrv/{path.parent.name}/{path.name}") if archive.is_mapped(path.name) else None
    return view if view is not None and path.parent == unpack_package_folder(path.parent.name) else None


def package_data(name: str) -> bytes | None:
    """A small data file of the package ("locks/cpu.txt"), None if it is not there."""
    if archive.path() is None:
        file = Path(__file__).parent / name
        return file.read_bytes() if file.is_file() else None
    return dict(archive.members(f"vsrv/{name}")).get(f"vsrv/{name}")


def _unpacked(files: list[tuple[str, bytes]], name: str) -> Path:
    """Write `files` below the cache folder `name` once, atomically: two starts at the same time both succeed."""
    import shutil
    import tempfile

    target = cache_dir() / name
    if target.is_dir():
        return _private_dir(target)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        for relative, data in files:
            path = scratch / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was quicker with the same bytes
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _private_dir(target)
