"""Options and argparse parsers as plain rows, the same for man pages, Markdown and completions."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vsrv.commands import Command
from vsrv.options import GROUPS, OPTIONS, Option

_PLACEHOLDERS = {"int": "N", "float": "X", "json": "JSON", "list": "TEXT", "str": "TEXT", "bool": ""}
_TYPES = {
    "int": "integer",
    "float": "number",
    "json": "table",
    "list": "list of texts",
    "str": "text",
    "bool": "boolean",
}


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag as it is shown: spellings, placeholder of its value ("" for a switch), help, the values that it may have."""

    names: tuple[str, ...]
    value: str
    text: str
    choices: tuple[str, ...] = ()
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A command or a command of a command, such as `keys new`. `operands` are what stands without a flag."""

    words: tuple[str, ...]
    arguments: str
    summary: str
    description: str
    flags: tuple[Flag, ...]
    serve_flags: bool = False
    operands: tuple[Flag, ...] = ()

    @property
    def name(self) -> str:
        return " ".join(self.words)


def sections(commands: Iterable[Command]) -> list[Section]:
    """Every command, and below it its own commands, in the table's order."""
    found: list[Section] = []
    for command in commands:
        parser = command.parser()
        found.append(
            _section((command.name,), command.arguments, command.summary, parser, command.serve_flags)
        )
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, below in action.choices.items():
                    found.append(_section((command.name, name), "", below.description or "", below, False))
    return found


def _section(
    words: tuple[str, ...], arguments: str, summary: str, parser: argparse.ArgumentParser, serve: bool
) -> Section:
    plain = [
        a for a in parser._actions if not isinstance(a, argparse._SubParsersAction | argparse._HelpAction)
    ]
    flags = tuple(_flag(action, parser) for action in plain if action.option_strings)
    operands = tuple(_flag(action, parser) for action in plain if not action.option_strings)
    if not arguments:
        arguments = " ".join(operand.value for operand in operands)
    return Section(words, arguments, summary, parser.description or summary, flags, serve, operands)


def _flag(action: argparse.Action, parser: argparse.ArgumentParser) -> Flag:
    takes_value = action.nargs != 0
    metavar = action.metavar if isinstance(action.metavar, str) else None
    choices = tuple(str(choice) for choice in action.choices or ())
    if not action.option_strings:
        value = metavar or ("|".join(choices) if choices else action.dest.upper())
    elif not takes_value:
        value = ""
    else:
        value = metavar or ("N" if action.type in (int, float) else "TEXT")
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    repeats = action.nargs in ("+", "*")
    return Flag(tuple(action.option_strings) or (value,), value, text, choices, repeats)


def serve_flags(group: str | None = None) -> list[Flag]:
    """Flags of `vsrv serve` that do something, of one group or of all."""
    return [_serve_flag(option) for option in OPTIONS if not option.refused and group in (None, option.group)]


def _serve_flag(option: Option) -> Flag:
    names = (f"--{option.name}", *option.flags)
    if option.kind == "bool":
        names += (f"--no-{option.name}",)
    return Flag(names, placeholder(option), described(option), option.choices, option.kind == "list")


def placeholder(option: Option) -> str:
    """What stands for the value in a synopsis; "" for a switch."""
    return _PLACEHOLDERS[option.kind]


def described(option: Option) -> str:
    """Help with the default, as one sentence or two."""
    default = default_text(option)
    return option.help + (f" (default {default})" if default else "")


def default_text(option: Option) -> str:
    """The default as it would be written on a command line; "" where it is nothing."""
    value: Any = option.default
    if option.kind == "bool":
        return "on" if value else ""
    if value is None or value == () or value == "" or value == {}:
        return ""
    return (
        " ".join(value)
        if isinstance(value, tuple)
        else f"{value:.12g}"
        if isinstance(value, float)
        else str(value)
    )


def type_text(option: Option) -> str:
    """Type and bounds of a TOML key, in words."""
    text = _TYPES[option.kind]
    if option.choices:
        return "one of " + ", ".join(f'"{choice}"' for choice in option.choices)
    if option.low is not None and option.high is not None:
        text += f" from {option.low:.12g} to {option.high:.12g}"
    if option.fallback == -1:
        text += ', or "auto"'
    return text


def groups() -> list[tuple[str, str, list[Option]]]:
    """(name, title, options that do something) of every group."""
    return [
        (name, title, [o for o in OPTIONS if o.group == name and not o.refused]) for name, title in GROUPS
    ]


def refused() -> list[Option]:
    """Options that are known and taken at their default only."""
    return [option for option in OPTIONS if option.refused]


def foreign_reasons() -> list[tuple[str, list[str]]]:
    """(reason, flags of `vllm serve` that are refused for it), in the table's order."""
    from vsrv.options_vllm import FOREIGN

    found: dict[str, list[str]] = {}
    for row in FOREIGN.values():
        found.setdefault(row.reason, []).append(f"--{row.name}")
    return list(found.items())
