"""The configuration reference in Markdown, and an example file for /etc/vsrv with every option and its default."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence

from vsrv.commands import Command
from vsrv.config_text import toml_text
from vsrv.docs.entries import default_text, foreign_reasons, groups, refused, type_text
from vsrv.options import Option


def reference_md(commands: Sequence[Command]) -> str:
    """Every option as a table by group, then the commands, then what is known from vLLM and refused."""
    lines = [
        "# vsrv: configuration reference",
        "",
        "Command line over environment over `--config FILE` over systemd's credentials over default. Every option is a flag, a variable and a key of the file.",
        "",
    ]
    for name, title, options in groups():
        lines += [
            f"## {name}: {title}",
            "",
            "| flag | variable | values | default | meaning |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(option) for option in options] + [""]
    lines += ["## Commands", "", "| command | meaning |", "|---|---|"]
    lines += [f"| `vsrv {c.name} {c.arguments}".rstrip() + f"` | {_cell(c.summary)} |" for c in commands]
    lines += [
        "",
        "## Known from vLLM, refused at anything but the default",
        "",
        "| flags | why |",
        "|---|---|",
    ]
    lines += [f"| `--{option.name}` | {_cell(option.refused)} |" for option in refused()]
    lines += [
        f"| {' '.join(f'`{name}`' for name in names)} | {_cell(reason)} |"
        for reason, names in foreign_reasons()
    ]
    return "\n".join(lines) + "\n"


def _row(option: Option) -> str:
    flags = " ".join(f"`{name}`" for name in (f"--{option.name}", *option.flags))
    if option.kind == "bool":
        flags += f" `--no-{option.name}`"
    variables = " ".join(f"`{name}`" for name in (option.variable, *option.env))
    default = default_text(option)
    shown = f"`{default}`" if default else "off" if option.kind == "bool" else ""
    return f"| {flags} | {variables} | {_cell(type_text(option))} | {shown.replace('|', chr(92) + '|')} | {_cell(option.help)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def example_toml(commands: Sequence[Command]) -> str:
    """A file for /etc/vsrv/NAME.toml that sets nothing: every key with its default, commented out."""
    lines = [
        "# Configuration of vsrv@NAME.service: copy it to /etc/vsrv/NAME.toml. Every line shows a default; see vsrv.toml(5).",
        "# Made by `vsrv docs --write` from the option table. `vsrv check --config FILE` says what a service would do with it.",
    ]
    for name, title, options in groups():
        lines += ["", f"# {name}: {title}"]
        for option in options:
            if option.name == "config":
                continue
            lines += [
                "",
                *textwrap.wrap(
                    f"{option.help}; {type_text(option)}", 118, initial_indent="# ", subsequent_indent="#   "
                ),
            ]
            lines.append(f"#{option.name} = {_toml_default(option)}")
    return "\n".join(lines) + "\n"


def _toml_default(option: Option) -> str:
    if option.default is None:
        return {"int": "0", "float": "0.0", "bool": "true"}.get(option.kind, json.dumps("")) + "  # not set"
    return toml_text(option.default)
