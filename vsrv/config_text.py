"""A configuration as text: effective values in TOML's form with their sources, or only what differs from the defaults."""

from __future__ import annotations

import json
from typing import Any

from vsrv.config import ServeConfig
from vsrv.options import OPTIONS

MASK = "********"


def shown(config: ServeConfig) -> list[str]:
    """Every effective value with its source, as TOML lines; secrets are masked."""
    lines = []
    for option in OPTIONS:
        entry = config.values[option.name]
        value: Any = MASK if option.secret and entry.value else entry.value
        if value is None:
            text = f"# {option.name} is not set"
        else:
            text = f"{option.name} = {toml_text(value)}"
        lines.append(f"{text:<60} # {entry.source}")
    return lines


def differing(config: ServeConfig) -> dict[str, dict[str, Any]]:
    """Settings that are not their defaults: name → {value, default, source}; secrets are masked."""
    return {
        option.name: {
            "value": MASK if option.secret else config.get(option.name),
            "default": option.default,
            "source": config.values[option.name].source,
        }
        for option in OPTIONS
        if config.get(option.name) != option.default
    }


def shown_differences(config: ServeConfig) -> list[str]:
    """`differing` as TOML lines, each with its source and the default that it replaces."""
    lines = []
    for name, entry in differing(config).items():
        default = "not set" if entry["default"] is None else toml_text(entry["default"])
        line = f"{name} = {toml_text(entry['value'])}"
        lines.append(f"{line:<60} # {entry['source']}; default {default}")
    return lines


def _has_null(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(_has_null(item) for item in inner)


def toml_text(value: Any) -> str:
    """A value in TOML's form. There is no null in it, so an object that has one is written as JSON in a text."""
    if isinstance(value, dict):
        if _has_null(value):
            return toml_text(json.dumps(value))
        return "{" + ", ".join(f"{toml_text(key)} = {toml_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_text(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
