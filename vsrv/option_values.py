"""Text or typed value → value of an option's kind, within its bounds; errors that name the nearest thing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vsrv.errors import ConfigError
from vsrv.options import OPTIONS, SAMPLING, Option

if TYPE_CHECKING:
    from vsrv.options_vllm import Foreign

_HUMAN = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)")
_LEVELS = {"critical": "error", "fatal": "error", "warn": "warning", "trace": "debug", "notset": "debug"}
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
BY_NAME = {option.name: option for option in OPTIONS}


def nearest(name: str, among: Iterable[str], cutoff: float) -> str:
    """The name that is most like `name`, "" if none is (cutoff from 0 to 1)."""
    import difflib

    return next(iter(difflib.get_close_matches(name, among, 1, cutoff)), "")


def unknown_option(spelling: str) -> ConfigError:
    """The error for an unknown flag or key: why a known vLLM flag is not there, else the nearest name."""
    foreign = foreign_flag(spelling)
    if foreign is not None:
        return ConfigError(f"{spelling}: {foreign.reason}")
    name = spelling.lstrip("-").replace("_", "-").removeprefix("no-")
    near = nearest(name, (*BY_NAME, "help"), 0.7)
    hint = f"; did you mean --{near}?" if near else "; `vsrv serve --help` lists all options"
    return ConfigError(f"unknown option {spelling}{hint}")


def foreign_flag(spelling: str) -> Foreign | None:
    """The vLLM flag that `--name`, `--no-name`, `--name.key`, `-short` or a file's key means, if vsrv does not have it."""
    from vsrv.options_vllm import FOREIGN

    name = spelling.partition(".")[0]
    if name.startswith("-") and not name.startswith("--"):
        return next((row for row in FOREIGN.values() if name in row.shorts), None)
    name = name.lstrip("-").replace("_", "-")
    return FOREIGN.get(name) or FOREIGN.get(name.removeprefix("no-"))


def check_foreign(row: Foreign, raw: Any, where: str) -> None:
    """vLLM's own default asks for nothing. Raises ConfigError with the reason at any other value."""
    if row.any_value or raw is None:
        return
    texts = [str(item) for item in raw] if isinstance(raw, list) else [str(raw)]
    if row.is_switch:
        texts = [text.lower() for text in texts]
    neutral = {row.default, *row.same} if row.default else {"", "None", "null", "{}", "[]", *row.same}
    if not all(text in neutral or _number(text) == _number(row.default) is not None for text in texts):
        raise ConfigError(f"{where} {' '.join(texts)}: {row.reason}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def checked(option: Option, raw: Any, where: str) -> Any:
    """Text or typed value → value of the option's kind, within its bounds. Raises ConfigError naming `where`."""
    try:
        value = _converted(option, raw)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if str(value) in option.refusals:
        raise ConfigError(f"{where} {raw}: {option.refusals[str(value)]}")
    if option.refused and value != option.default and value != option.fallback:
        raise ConfigError(f"{where} {raw}: {option.refused}")
    if option.choices and value is not None and value not in option.choices:
        raise ConfigError(f"{where} must be one of {', '.join(filter(None, option.choices))}, not {raw!r}")
    if option.kind in ("int", "float") and value is not None:
        low, high = option.low, option.high
        if (low is not None and value < low) or (high is not None and value > high):
            raise ConfigError(f"{where} must be from {low:.12g} to {high:.12g}, not {raw}")
    return value


def _converted(option: Option, raw: Any) -> Any:
    kind = option.kind
    if kind == "str":
        if not isinstance(raw, str):
            raise ValueError(f"expected text, not {raw!r}")
        if option.name == "log-level":
            return _LEVELS.get(raw.lower(), raw.lower())
        return raw.lower() if option.name == "log-format" else raw
    if kind == "bool":
        text = str(raw).lower()
        if text not in _TRUE | _FALSE:
            raise ValueError(f"expected true or false, not {raw!r}")
        return text in _TRUE
    if kind == "int":
        return _integer(option, raw)
    if kind == "float":
        value = float(raw) if isinstance(raw, str | int | float) and not isinstance(raw, bool) else math.nan
        if not math.isfinite(value):
            raise ValueError(f"expected a number, not {raw!r}")
        return value
    if kind == "list":
        return _keys(raw) if option.name == "api-key" else _strings(raw)
    value = json.loads(raw) if isinstance(raw, str) else raw
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def _integer(option: Option, raw: Any) -> int | None:
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        raise ValueError(f"expected an integer, not {raw!r}")
    text = str(raw).strip()
    if option.fallback == -1 and text in ("auto", "-1"):
        return None
    if option.human and (value := _human(text)) is not None:
        return value
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"expected an integer{' such as 8192, 8k or 8K' if option.human else ''}, not {raw!r}"
        ) from None


def _human(text: str) -> int | None:
    """8192, 8k (1000), 8K (1024), 25.6k → an integer; None if it is none."""
    match = _HUMAN.fullmatch(text)
    if match is None:
        return None
    base = 1024 if match[2].isupper() else 1000
    value = float(match[1]) * base ** _POWERS.get(match[2].lower(), 0)
    return int(value) if value == int(value) else None


def _strings(raw: Any) -> tuple[str, ...]:
    """A list, a JSON list, or comma-separated text; on the command line each word may be any of these."""
    items: list[str] = []
    for word in _listed(raw):
        items += _listed(word) if word.lstrip().startswith("[") else word.split(",")
    return tuple(item.strip() for item in items if item.strip())


def _keys(raw: Any) -> tuple[str, ...]:
    """A key may have any character in it, so that only a list or a JSON list holds several. An empty one is the variable that
    a script forgot to set: that must not open the server."""
    keys: list[str] = []
    for word in _listed(raw):
        keys += _listed(word)
    if not all(key.strip() for key in keys):
        raise ValueError("a key is empty; leave the option out to serve without a key")
    return tuple(keys)


def _listed(raw: Any) -> list[str]:
    """One text, a JSON list or a list, as a list of texts. What is wrong is not shown: it may be a key."""
    if isinstance(raw, str):
        raw = json.loads(raw) if raw.lstrip().startswith("[") else [raw]
    if not isinstance(raw, list | tuple) or not all(isinstance(item, str) for item in raw):
        raise ValueError("expected a list of texts")
    return list(raw)


def dotted_value(text: str) -> Any:
    """A value of `--option.key value`: JSON where it is JSON, a number with a unit, else text."""
    try:
        return json.loads(text)
    except ValueError:
        return text if (number := _human(text)) is None else number


def sampling_value(name: str, value: Any) -> int | float:
    """A server's default of the sampling number `name`. Raises ValueError that names it."""
    bound = SAMPLING[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a number, not {value!r}")
    if bound.kind == "int" and value != int(value):
        raise ValueError(f"{name}: expected an integer, not {value!r}")
    if not bound.low <= value <= bound.high or (bound.above_low and value == bound.low):
        least = "above" if bound.above_low else "from"
        raise ValueError(f"{name} must be {least} {bound.low:.10g} to {bound.high:.10g}, not {value!r}")
    return int(value) if bound.kind == "int" else float(value)
