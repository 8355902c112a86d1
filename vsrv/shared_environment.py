"""`vsrv setup --to FOLDER`: an environment that every user of the host may run, with the archive in it, for services.

    FOLDER/bin/vsrv      runs the archive below with the environment's Python
    FOLDER/vsrv.pyz      the archive that made it; the same command of a newer one replaces it
    FOLDER/bin, lib, …   the virtual environment

The environments of `vsrv setup` alone are their maker's and lie in the maker's cache; a service has another user and another cache.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from vsrv import archive, environments
from vsrv.errors import ConfigError

_READABLE = 0o022  # umask: its maker writes, everybody reads and runs
_ARCHIVE = "vsrv.pyz"


def install(
    plan: environments.Plan, source: environments.Source, folder: Path, say: environments.Say
) -> Path:
    """Make `folder` as above, or bring the archive in it up to this one. Returns its bin/vsrv. Raises ConfigError."""
    folder = folder.resolve()
    try:
        folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        environments.refuse_noexec(folder.parent, "name another folder than --to")
        with environments.locked(os.open(folder.parent, os.O_RDONLY | os.O_CLOEXEC), say):
            _make(plan, source, folder, say)
            _write(folder / _ARCHIVE, (archive.path() or folder).read_bytes(), 0o644)
            program = folder / "bin" / "vsrv"
            _write(program, _starter(folder).encode(), 0o755)
    except OSError as error:
        raise ConfigError(f"--to {folder}: {error.strerror}: {error.filename}") from None
    return program


def _make(plan: environments.Plan, source: environments.Source, folder: Path, say: environments.Say) -> None:
    for left in folder.parent.glob(f"{environments.MAKING}*"):
        if left.stat().st_uid == os.geteuid():  # of a setup that was killed, as we hold the lock
            shutil.rmtree(left, ignore_errors=True)
    if environments.name_of(folder) == plan.name:
        say(f"{folder} is there; it gets this archive")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"--to {folder} is there and not what this lock and Python make: remove it, or name another folder"
        )
    environments.build(plan, source, folder, say, _READABLE)


def _starter(folder: Path) -> str:
    python, program = shlex.quote(str(folder / "bin" / "python")), shlex.quote(str(folder / _ARCHIVE))
    return f'#!/bin/sh\nexec {python} -I -X vsrv {program} "$@"\n'


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all: it may be running."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_bytes(data)
    scratch.chmod(mode)
    os.replace(scratch, path)
