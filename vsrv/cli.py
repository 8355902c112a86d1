"""The command line. Imports nothing heavy: subcommands are loaded when they are chosen, so that --help answers at once."""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import vsrv
from vsrv.config import (
    BenchOptions,
    ServeConfig,
    check_foreign,
    checked,
    dotted_value,
    foreign_flag,
    resolve,
    shown,
    unknown_option,
)
from vsrv.errors import ConfigError
from vsrv.options import GROUPS, OPTIONS, Option

if TYPE_CHECKING:
    from vsrv.options_vllm import Foreign

EXIT_USAGE, EXIT_CONFIG = 2, 78  # sysexits.h: EX_CONFIG

_HELP = """usage: vsrv COMMAND [options]

  serve [MODEL]   serve a model (a Hugging Face folder or hub id; the embedded demo model without one)
  bench           measure an OpenAI-compatible server
  cert            make a development certificate authority and a certificate signed by it
  keys            make, list, revoke and rotate the keys of a key file
  config          print every effective setting and where it comes from
  version         print the version

`vsrv COMMAND --help` tells more. First steps: `vsrv serve`, then open http://127.0.0.1:8000/v1/models
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status (0, 1, 2 usage, 78 configuration)."""
    command, rest = (arguments[0], list(arguments[1:])) if arguments else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if command in ("version", "--version", "-V"):
        print(f"vsrv {vsrv.__version__}")
        return 0
    commands = {"serve": _serve, "config": _config, "bench": _bench, "keys": _keys, "cert": _cert}
    if command not in commands:
        print(f"vsrv: no command {command!r}; there are {', '.join((*commands, 'version'))}", file=sys.stderr)
        return EXIT_USAGE
    try:
        return commands[command](rest)
    except ConfigError as error:
        print(f"vsrv: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except KeyboardInterrupt:
        return 130


def _serve(arguments: list[str]) -> int:
    wanted = _help_wanted(arguments)
    if wanted is not None:
        print(_serve_help(wanted), end="")
        return 0
    config = _resolved(arguments)
    from vsrv import serve

    return serve.run(config, functools.partial(_resolved, arguments, with_files=False))


def _config(arguments: list[str]) -> int:
    if _help_wanted(arguments) is not None:
        print(
            "usage: vsrv config [options of `vsrv serve`]\n\nPrints every effective value with its source; secrets are masked."
        )
        return 0
    config = _resolved(arguments)
    print("\n".join(shown(config)))
    return 0


def _keys(arguments: list[str]) -> int:
    from vsrv import keys

    return keys.run(arguments, _Parser(prog="vsrv keys", description="Change a key file of `vsrv serve`."))


def _resolved(arguments: list[str], with_files: bool = True) -> ServeConfig:
    config = resolve(parse(arguments), os.environ, with_files)
    for warning in config.warnings:
        print(f"vsrv: {warning}", file=sys.stderr)
    return config


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Command line of serve or config → given values by option name. Raises ConfigError on unknown flags."""
    parser = _Parser(
        prog="vsrv serve", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
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


def _help_wanted(arguments: Sequence[str]) -> str | None:
    """None: no help asked; "" all of it; else the group or flag of --help=WORD."""
    for word in arguments:
        if word in ("-h", "--help"):
            return ""
        if word.startswith("--help="):
            return word.removeprefix("--help=").replace("_", "-").lstrip("-")
    return None


def _serve_help(word: str) -> str:
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


def _cert(arguments: list[str]) -> int:
    parser = _Parser(
        prog="vsrv cert",
        description="Make a certificate authority (once) and a certificate signed by it, for development and closed networks.",
    )
    add = parser.add_argument
    add("--out", default="certs", help="folder of the files (default %(default)s)")
    add(
        "--name", nargs="+", action="extend", help="DNS names and addresses (default localhost 127.0.0.1 ::1)"
    )
    add("--days", type=int, default=365, help="how long the certificate is valid (default %(default)s)")
    add("--client", metavar="NAME", help="a client certificate with this name, for --ssl-cert-reqs 2")
    add("--force", action="store_true", help="replace the certificate that is there; the authority stays")
    given = parser.parse_args(arguments)
    if not 1 <= given.days <= 825:
        raise ConfigError("--days must be from 1 to 825: Apple's clients accept no longer ones")
    from vsrv import certificates

    wish = certificates.CertificateWish(
        Path(given.out), days=given.days, client=given.client, force=given.force
    )
    if given.name:
        wish = certificates.CertificateWish(
            wish.folder, tuple(given.name), given.days, given.client, given.force
        )
    made = certificates.make(wish)
    print(f"{'made' if made.is_new_ca else 'used'} the authority {made.ca}; give this file to clients")
    print(f"made {made.certificate} and {made.key} for {given.client or ', '.join(wish.names)}")
    if given.client is None:
        print(f"serve: vsrv serve --ssl-certfile {made.certificate} --ssl-keyfile {made.key}")
        print(f"try:   curl --cacert {made.ca} https://{wish.names[0]}:8000/livez")
    else:
        print(f"serve: add --ssl-ca-certs {made.ca} --ssl-cert-reqs 2")
        print(
            f"try:   curl --cacert {made.ca} --cert {made.certificate} --key {made.key} https://localhost:8000/livez"
        )
    return 0


def _bench(arguments: list[str]) -> int:
    parser = _Parser(
        prog="vsrv bench", description="Measure an OpenAI-compatible server: TTFT, ITL, tokens per second."
    )
    defaults = BenchOptions(url="http://127.0.0.1:8000")
    add = parser.add_argument
    add("--url", default=defaults.url, help="base address of the server (default %(default)s)")
    add("--model", default="", help="model name (default: the first one that the server lists)")
    add(
        "--api",
        choices=("completions", "chat"),
        default="completions",
        help="which route (default %(default)s)",
    )
    add(
        "--concurrency", type=int, default=defaults.concurrency, help="requests at once (default %(default)s)"
    )
    add("--request-rate", type=float, help="requests a second with Poisson arrivals, instead of back to back")
    add(
        "--num-requests",
        type=int,
        default=defaults.num_requests,
        help="requests in all (default %(default)s)",
    )
    add(
        "--prompt-tokens",
        type=int,
        default=defaults.prompt_tokens,
        help="prompt length (default %(default)s)",
    )
    add(
        "--output-tokens",
        type=int,
        default=defaults.output_tokens,
        help="output length (default %(default)s)",
    )
    add(
        "--shared-prefix-tokens",
        type=int,
        default=0,
        help="first tokens that all prompts have in common (default 0)",
    )
    add("--json", dest="json_path", help="write all figures to this file")
    add("--api-key", help="key to send (default: $OPENAI_API_KEY)")
    add("--seed", type=int, default=0, help="seed of prompts and arrivals")
    add("--ca-file", help="CA bundle for https")
    add("--temperature", type=float, default=0.0, help="0 is greedy")
    add(
        "--stop-at-eos",
        dest="ignore_eos",
        action="store_false",
        help="let answers end early (default: full length)",
    )
    add("--warmup", type=int, default=1, help="requests before the measurement (default %(default)s)")
    options = vars(parser.parse_args(arguments))
    options["api_key"] = options["api_key"] or os.environ.get("OPENAI_API_KEY")
    from vsrv import bench

    return bench.run(BenchOptions(**options))
