"""Serve's flags: command line → values by option name, and their help. Made from the option tables."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from vsrv.errors import ConfigError
from vsrv.option_values import check_foreign, checked, dotted_value, foreign_flag, unknown_option
from vsrv.options import GROUPS, OPTIONS, Option

if TYPE_CHECKING:
    from vsrv.options_vllm import Foreign


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises ConfigError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Command line of serve or config → given values by option name. Raises ConfigError on unknown flags."""
    parser = Parser(prog="vsrv serve", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("positional", nargs="?")
    for option in OPTIONS:
        names = [f"--{option.name}", *option.flags]
        if option.kind == "bool":
            parser.add_argument(*names, dest=option.name, action="store_true")
            parser.add_argument(f"--no-{option.name}", dest=option.name, action="store_false")
        elif option.kind == "list":
            parser.add_argument(*names, dest=option.name, nargs="+", action="extend")
        else:
            parser.add_argument(*names, dest=option.name, nargs="?" if option.name == "hf-token" else None)
    words, dotted = _without_dotted([_spelled(word) for word in arguments])
    foreign = _add_foreign(parser, words)
    namespace, unknown = parser.parse_known_args(words)
    if unknown:
        first = next((word for word in unknown if word.startswith("-")), None)
        if first is None:
            raise ConfigError(f"one MODEL only; what is {unknown[0]!r}?")
        raise unknown_option(first.split("=")[0])
    given: dict[str, Any] = {k: v for k, v in vars(namespace).items() if v is not None}
    for name, row in foreign.items():
        if name in given:
            check_foreign(row, given.pop(name), f"--{row.name}")
    for name, table in dotted.items():
        given[name] = _merged(checked(_JSON[name], given.get(name, {}), f"--{name}"), table)
    positional = given.pop("positional", None)
    if positional is not None:
        if given.get("model", positional) != positional:
            raise ConfigError(f"MODEL is given twice: {positional} and --model {given['model']}")
        given["model"] = positional
    return given


_JSON = {option.name: option for option in OPTIONS if option.kind == "json"}
_LEVEL = re.compile(r"-O([0-3])")


def _spelled(word: str) -> str:
    """`--max_model_len` is `--max-model-len`, as in vLLM; keys behind a dot and values behind = stay as they are."""
    if match := _LEVEL.fullmatch(word):
        return f"--optimization-level=O{match[1]}"
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    name, dot, key = flag.partition(".")
    return name.replace("_", "-") + dot + key + equals + value


def _without_dotted(words: list[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Take `--option.key value` and `--option.key=value` of JSON options out of the words. `key+` adds to a list."""
    rest: list[str] = []
    tables: dict[str, dict[str, Any]] = {}
    following = iter(words)
    for word in following:
        flag, equals, value = word.partition("=")
        name, dot, path = flag.removeprefix("--").partition(".")
        if not flag.startswith("--") or not dot or name not in _JSON:
            rest.append(word)
            continue
        text = value if equals else next(following, None)
        if text is None:
            raise ConfigError(f"{flag} needs a value")
        try:
            _put(tables.setdefault(name, {}), path.split("."), text)
        except (AttributeError, TypeError):
            raise ConfigError(f"{flag} is given as a value and as something with keys") from None
    return rest, tables


def _put(table: dict[str, Any], path: list[str], text: str) -> None:
    *parents, key = path
    for parent in parents:
        table = table.setdefault(parent, {})
    if key.endswith("+"):
        table.setdefault(key[:-1], []).extend(dotted_value(item) for item in text.split(","))
    else:
        table[key] = dotted_value(text)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def _add_foreign(parser: argparse.ArgumentParser, words: list[str]) -> dict[str, Foreign]:
    """Tell the parser of the vLLM flags among the words, so that their values are not taken for MODEL; by destination."""
    own = {flag for option in OPTIONS for flag in (f"--{option.name}", f"--no-{option.name}", *option.flags)}
    rows: dict[str, Foreign] = {}
    for flag in {word.partition("=")[0] for word in words if word.startswith("-")} - own:
        row = None if "." in flag else foreign_flag(flag)
        if row is None or f"vllm {row.name}" in rows:
            continue
        name = f"vllm {row.name}"
        rows[name] = row
        if row.is_switch:
            parser.add_argument(f"--{row.name}", *row.shorts, dest=name, action="store_true")
            parser.add_argument(f"--no-{row.name}", dest=name, action="store_false")
        else:
            parser.add_argument(f"--{row.name}", *row.shorts, dest=name, nargs="*" if row.is_list else None)
    return rows


def help_wanted(arguments: Sequence[str]) -> str | None:
    """None: no help asked; "" all of it; else the group or flag of --help=WORD."""
    for word in arguments:
        if word in ("-h", "--help"):
            return ""
        if word.startswith("--help="):
            return word.removeprefix("--help=").replace("_", "-").lstrip("-")
    return None


def serve_help(word: str) -> str:
    chosen = [o for o in OPTIONS if word in ("", "all", o.group) or word in o.name]
    lines = []
    if not word:
        lines += ["usage: vsrv serve [MODEL] [options]", ""]
        lines += [
            "MODEL is a Hugging Face folder or hub id; without it the embedded demo model is served.",
            "",
        ]
        lines += [
            "Every option is also an environment variable (--max-num-seqs: VSRV_MAX_NUM_SEQS) and a key of --config FILE.toml.",
            "",
        ]
    if not word:
        chosen = [o for o in chosen if not o.refused]
    for group, title in GROUPS:
        rows = [option for option in chosen if option.group == group]
        if rows:
            lines += [f"{group}: {title}", *(_help_row(option) for option in rows), ""]
    if not word:
        lines.append(
            "--help=GROUP or --help=WORD shows a part, --help=all also what is known from vLLM and refused."
        )
    foreign = foreign_flag(word) if word and not lines else None
    if foreign is not None:
        return f"--{foreign.name} is an option of vLLM: {foreign.reason}\n"
    return (
        "\n".join(lines) + "\n"
        if lines
        else f"nothing matches {word!r}; groups: {', '.join(g for g, _ in GROUPS)}\n"
    )


def _help_row(option: Option) -> str:
    value = (
        ""
        if option.kind == "bool"
        else " {" + ",".join(option.choices) + "}"
        if option.choices
        else f" {option.kind.upper()}"
    )
    default = option.default
    shown_default = (
        ""
        if default in (None, "", (), False) or default == {}
        else f" [{' '.join(default) if isinstance(default, tuple) else default}]"
    )
    text = f"refused: {option.refused}" if option.refused else option.help
    name = f"--[no-]{option.name}" if option.kind == "bool" and default is True else f"--{option.name}"
    return f"  {name}{value}\n        {text}{shown_default}"
