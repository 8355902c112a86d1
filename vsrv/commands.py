"""What a subcommand is. The table of them is in cli.py; help, man pages and completions are made from it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand. `parser` is what its help, man page and completion are made from; with `serve_flags` it knows only the
    command's own switches and every flag of `vsrv serve` goes with them. `bare` ones need the standard library alone."""

    name: str
    arguments: str
    summary: str
    run: Callable[[list[str]], int]
    parser: Callable[[], argparse.ArgumentParser]
    serve_flags: bool = False
    bare: bool = False
