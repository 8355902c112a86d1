"""The command line. Imports nothing heavy: subcommands are loaded when they are chosen, so that --help answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import vsrv
from vsrv.config import BenchOptions, ServeConfig, resolve, shown, unknown_option
from vsrv.errors import ConfigError
from vsrv.options import GROUPS, OPTIONS, Option

EXIT_USAGE, EXIT_CONFIG = 2, 78  # sysexits.h: EX_CONFIG

_HELP = """usage: vsrv COMMAND [options]

  serve [MODEL]   serve a model (a Hugging Face folder or hub id; the embedded demo model without one)
  bench           measure an OpenAI-compatible server
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
    commands = {"serve": _serve, "config": _config, "bench": _bench, "keys": _keys}
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

    return serve.run(config)


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


def _resolved(arguments: list[str]) -> ServeConfig:
    config = resolve(parse(arguments), os.environ)
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
    namespace, unknown = parser.parse_known_args([_spelled(word) for word in arguments])
    if unknown:
        first = next((word for word in unknown if word.startswith("-")), None)
        if first is None:
            raise ConfigError(f"one MODEL only; what is {unknown[0]!r}?")
        raise unknown_option(first.split("=")[0])
    given: dict[str, Any] = {k: v for k, v in vars(namespace).items() if v is not None}
    positional = given.pop("positional", None)
    if positional is not None:
        if given.get("model", positional) != positional:
            raise ConfigError(f"MODEL is given twice: {positional} and --model {given['model']}")
        given["model"] = positional
    return given


def _spelled(word: str) -> str:
    """`--max_model_len` is `--max-model-len`, as in vLLM; values after = stay as they are."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


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
