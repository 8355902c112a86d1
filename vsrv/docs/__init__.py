"""Documents made from the option table and the parsers: man pages, reference, example configuration, completions.

Those in DOCUMENTS are kept in the repository too; `vsrv docs --check` holds them equal. Knows no server, only tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vsrv.commands import Command
from vsrv.docs import units
from vsrv.docs.pages import vsrv_1, vsrv_keys_1, vsrv_toml_5
from vsrv.docs.reference import example_toml, reference_md
from vsrv.errors import ConfigError

Maker = Callable[[Sequence[Command]], str]
# path in the repository → its text
DOCUMENTS: Mapping[str, Maker] = {
    "man/vsrv.1": vsrv_1,
    "man/vsrv-keys.1": vsrv_keys_1,
    "man/vsrv.toml.5": vsrv_toml_5,
    "systemd/example.toml": example_toml,
    "systemd/vsrv@.service": units.service,
    "systemd/vsrv@.socket": units.socket_unit,
    "systemd/cpu.conf": units.cpu_drop_in,
    "systemd/gpu.conf": units.gpu_drop_in,
}
# what `vsrv docs NAME` prints
NAMES: Mapping[str, Maker] = {Path(path).name: make for path, make in DOCUMENTS.items()} | {
    "markdown": reference_md
}


def text(name: str, commands: Sequence[Command]) -> str:
    """The document `name`, one of NAMES."""
    return NAMES[name](commands)


def write(root: Path, commands: Sequence[Command]) -> list[str]:
    """Write every kept document below `root`; returns their paths. Raises ConfigError."""
    try:
        for path, make in DOCUMENTS.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(make(commands))
    except OSError as error:
        raise ConfigError(f"cannot write below {root}: {error.strerror}") from None
    return list(DOCUMENTS)


def outdated(root: Path, commands: Sequence[Command]) -> list[str]:
    """Paths below `root` whose text is not what the tables say."""
    return [
        path
        for path, make in DOCUMENTS.items()
        if not (root / path).is_file() or (root / path).read_text() != make(commands)
    ]
