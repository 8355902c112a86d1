"""`vsrv setup`: make, list and remove the private environments that the archive runs in where Python lacks its packages."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from vsrv import archive, environments, requirements, shared_environment
from vsrv.errors import ConfigError

_GPU = Path("/dev/nvidiactl")  # there is one on every machine with NVIDIA's driver loaded


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Fill the parser of `vsrv setup`."""
    add = parser.add_argument
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--cpu", action="store_true", help="with torch for the CPU (default without an NVIDIA GPU)"
    )
    kinds.add_argument(
        "--cuda", action="store_true", help="with torch for NVIDIA GPUs, some GB (default with one)"
    )
    kinds.add_argument(
        "--lock",
        type=Path,
        metavar="FILE",
        help="with what this file names: releases and hashes, as pip reads them",
    )
    places = parser.add_mutually_exclusive_group()
    places.add_argument(
        "--wheels", type=Path, metavar="DIR", help="take the files from this folder, without network"
    )
    places.add_argument(
        "--index", metavar="URL", help="package index to ask (default: what pip is configured for)"
    )
    add(
        "--extra-index",
        action="append",
        default=[],
        metavar="URL",
        help="ask this index as well, such as PyTorch's with CPU builds; may be given several times",
    )
    add("--python", metavar="PATH", help="the Python to make it with (default: the one that runs this)")
    add(
        "--to",
        type=Path,
        metavar="FOLDER",
        help="make it there, for every user of this host, with FOLDER/bin/vsrv: for services",
    )
    add("--list", action="store_true", help="list the environments that are there")
    add("--remove", nargs="*", metavar="NAME", help="remove these, or all but the current one")
    add("command", nargs=argparse.REMAINDER, help="what to run in it then: serve MODEL …")
    return parser


def run(given: argparse.Namespace) -> int:
    """Returns the exit status. Raises ConfigError."""
    if archive.path() is None:
        raise ConfigError("setup is for the one-file archive; this vsrv was installed with its packages")
    if given.to and (given.list or given.remove is not None):
        raise ConfigError("--list and --remove are for the environments in the cache, not for --to FOLDER")
    if given.list:
        return _list()
    if given.remove is not None:
        here = environments.current()
        others = [folder.name for folder, _ in environments.all_of_them() if folder != here]
        environments.remove(given.remove or others, _say)
        return 0
    if given.wheels is not None and given.extra_index:
        raise ConfigError("--extra-index does not go with --wheels, which takes files from that folder alone")
    kind = "cuda" if given.cuda or (_GPU.exists() and not given.cpu) else "cpu"
    plan = environments.plan(kind, given.lock, given.python)
    source = environments.Source(given.wheels, given.index, tuple(given.extra_index))
    if given.to:
        program = str(shared_environment.install(plan, source, given.to, _say))
        if given.command:
            os.execv(program, [program, *given.command])
        _say(f"run: {program} serve MODEL")
        return 0
    environment = environments.make(plan, source, _say)
    if given.command:
        environments.enter(environment, given.command)
    if not requirements.lacking():
        _say("this Python has all packages itself, so that starts with it go on without the environment")
    else:
        _say("every start goes over into it from now on: vsrv serve MODEL")
    return 0


def _list() -> int:
    here = environments.current()
    for folder, size in environments.all_of_them():
        state = "current" if folder == here else "" if environments.is_complete(folder) else "incomplete"
        print(f"{folder.name}  {size / 2**20:9,.1f} MiB  {state}".rstrip())
    return 0


def _say(line: str) -> None:
    print(f"vsrv setup: {line}", flush=True)
