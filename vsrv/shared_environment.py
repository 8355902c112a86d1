"""`vsrv setup --to FOLDER`: an environment that every user of the host may run, with the archive in it, for services.

    FOLDER/bin/vsrv      runs the archive below with the environment's Python
    FOLDER/vsrv.pyz      the archive that made it
    FOLDER/bin, lib, …   the virtual environment

The same command of a newer archive brings all of it up to date. The environments of `vsrv setup` alone are their maker's and lie in
the maker's cache; a service has another user and another cache.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from vsrv import archive, boot, environments
from vsrv.errors import ConfigError
from vsrv.files import replacing

_READABLE = 0o022  # umask: its maker writes, everybody reads and runs
_ARCHIVE = "vsrv.pyz"


def install(
    plan: environments.Plan, source: environments.Source, folder: Path, say: environments.Say
) -> Path:
    """Make `folder` as above, or bring it up to this archive. Returns its bin/vsrv. Raises ConfigError."""
    folder = folder.absolute()
    before = os.umask(_READABLE)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        environments.refuse_noexec(folder.parent, "name another folder than --to")
        # one for all that are made in this place: each sweeps what others left
        with environments.locked(folder.with_name(f".vsrv{environments.LOCK}"), say):
            environments.sweep(folder.parent)
            _make(plan, source, folder, say)
    except OSError as error:
        raise ConfigError(f"--to {folder}: {error.strerror}: {error.filename}") from None
    finally:
        os.umask(before)
    if closed := _closed_to_others(Path(plan.python)):
        say(
            f"warning: other users cannot enter {closed}, where its Python lies, so that services cannot run it: name another by --python"
        )
    return folder / "bin" / "vsrv"


def _make(plan: environments.Plan, source: environments.Source, folder: Path, say: environments.Say) -> None:
    name = environments.name_of(folder)
    if name is None and folder.exists():
        if not folder.is_dir() or any(folder.iterdir()):
            raise ConfigError(f"--to {folder} is there and no environment: name another folder, or remove it")
        folder.rmdir()  # before gigabytes are collected: a mounted one cannot be replaced
    if name is not None:
        for part in (folder, folder / "bin"):
            boot.check_private(part)  # what is in it is run by whoever names it

    def fill(into: Path) -> None:
        _write(into / _ARCHIVE, (archive.path() or into).read_bytes(), 0o644)
        _write(into / "bin" / "vsrv", _starter(folder).encode(), 0o755)

    if name == plan.name:
        say(f"{folder} is there; it gets this archive")
        fill(folder)
        return
    environments.build(plan, source, folder, say, _READABLE, fill)
    if name is not None:
        say("it has replaced an older environment; restart what runs from there")


def _closed_to_others(python: Path) -> Path | None:
    """The folder that keeps other users from the interpreter that an environment's bin/python is a link to; systemd's ProtectHome= counts."""
    real = python.resolve()
    for folder in reversed(real.parents):
        if str(folder) in ("/root", "/home", "/run/user") or not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def _starter(folder: Path) -> str:
    python, program = shlex.quote(str(folder / "bin" / "python")), shlex.quote(str(folder / _ARCHIVE))
    return f'#!/bin/sh\nexec {python} -I -X vsrv {program} "$@"\n'


def _write(path: Path, data: bytes, mode: int) -> None:
    """In one step: it may be running."""
    with replacing(path, mode) as file:
        file.write(data)
