"""How a vsrv process starts: where the code lives (checkout, site-packages, zip archive), its private cache, its children.

Floor 0: standard library only; imported by `__main__` before anything else, so it must stay quick to load.
Facts behind the choices (zipimport keeps offsets, numba caches next to the source): see CONTRIBUTING.md, "the archive".
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import shutil
import signal
import stat
import sys
import tempfile
import zipfile
from pathlib import Path

from vsrv.errors import ConfigError

_PR_SET_PDEATHSIG = 1  # prctl(2)


def archive() -> Path | None:
    """The zip file that this process runs from, symbolic links resolved; None in a checkout or an installed package."""
    for parent in Path(__file__).parents:
        if parent.is_file():
            return parent.resolve()
        if parent.is_dir():
            return None
    return None


def pin_archive() -> None:
    """Make later imports and children use the real file behind a symbolic link.

    zipimport reopens the archive by path; after `ln -sf vsrv-1.1.pyz vsrv.pyz` a late import would read the new file
    with the offsets of the old one.
    """
    if archive() is not None and sys.path and zipfile.is_zipfile(sys.path[0]):
        sys.path[0] = os.path.realpath(sys.path[0])


def child_command(name: str) -> list[str]:
    """Command line that starts this same vsrv with the internal command `name` ("_engine", "_prepare")."""
    flags = ["-I"] if sys.flags.isolated else []
    path = archive()
    if path is not None:
        return [sys.executable, *flags, str(path), name]
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
    candidates.append(Path(tempfile.gettempdir()) / f"vsrv-{os.geteuid()}")
    return candidates


def private_folder(name: str) -> Path:
    """The folder `name` below `cache_dir()`, under the same rules."""
    return _private_dir(cache_dir() / name)


def _private_dir(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    files = _sources(folder)
    digest = hashlib.sha256(sys.version.encode())
    for name, data in files:
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return _unpacked(files, f"{folder.replace('/', '-')}-{digest.hexdigest()[:32]}")


def _sources(folder: str) -> list[tuple[str, bytes]]:
    """Every Python source below vsrv/`folder` as (path relative to the folder's parent, bytes), sorted."""
    path, parent = archive(), folder.rpartition("/")[0]
    if path is None:
        root = Path(__file__).parent
        found = (root / folder).rglob("*.py")
        return sorted((str(f.relative_to(root / parent)), f.read_bytes()) for f in found)
    with zipfile.ZipFile(path) as zipped:
        names = [n for n in zipped.namelist() if n.startswith(f"vsrv/{folder}/") and n.endswith(".py")]
        return sorted((n.removeprefix(f"vsrv/{parent}/"), zipped.read(n)) for n in names)


def unpack_package_folder(folder: str) -> Path:
    """A real folder with the files of package folder `folder` ("demo"); a private copy when vsrv runs from an archive."""
    path = archive()
    if path is None:
        return Path(__file__).parent / folder
    with zipfile.ZipFile(path) as zipped:
        names = [n for n in zipped.namelist() if n.startswith(f"vsrv/{folder}/") and not n.endswith("/")]
        files = sorted((n.removeprefix("vsrv/"), zipped.read(n)) for n in names)
    digest = hashlib.sha256()
    for name, data in files:
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return _unpacked(files, f"{folder}-{digest.hexdigest()[:32]}") / folder


def _unpacked(files: list[tuple[str, bytes]], name: str) -> Path:
    """Write `files` below the cache folder `name` once, atomically: two starts at the same time both succeed."""
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
