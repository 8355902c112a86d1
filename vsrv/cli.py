"""The command line: one table of commands. Imports nothing heavy: a command is loaded when it is chosen, so that --help answers at once."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import vsrv
from vsrv import archive, parsers, requirements
from vsrv.client import parsers as client_parsers
from vsrv.commands import Command
from vsrv.config import BenchOptions, ServeConfig, combine, resolve
from vsrv.config_text import shown, shown_differences
from vsrv.errors import ConfigError
from vsrv.flags import Parser, help_wanted, parse, serve_help
from vsrv.log import complain
from vsrv.option_values import nearest

_PACKAGES = (
    "torch numba tokenizers jinja2 llguidance safetensors h11 orjson prometheus_client cryptography".split()
)
EXIT_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status (0, 1, 2 usage, 78 configuration, 130 and 141 for what ended it)."""
    name, rest = (arguments[0], list(arguments[1:])) if arguments else ("--help", [])
    if name in ("-h", "--help", "help"):
        print(_help(), end="")
        return 0
    name = "version" if name in ("--version", "-V") else name
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        names = [command.name for command in COMMANDS]
        near = nearest(name, names, 0.6)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(names)}"
        print(f"vsrv: no command {name!r}; {hint}", file=sys.stderr)
        return EXIT_USAGE
    try:
        if not command.bare and help_wanted(rest) is None:
            _settle(arguments)
        return command.run(rest)
    except ConfigError as error:
        complain("error", str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `vsrv … | head`: nobody reads on; what is left must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _settle(arguments: Sequence[str]) -> None:
    """Make a start from the archive independent of its file, under a Python that has the packages. Raises ConfigError."""
    archive.pin()
    if requirements.lacking():
        from vsrv import environments

        environments.ensure_packages(list(arguments))


def _help() -> str:
    rows = [(f"{command.name} {command.arguments}".rstrip(), command.summary) for command in COMMANDS]
    width = max(len(left) for left, _ in rows)
    lines = ["usage: vsrv COMMAND [options]", "", *(f"  {left:<{width}}  {right}" for left, right in rows)]
    first = "`vsrv COMMAND --help` tells more. First steps: `vsrv serve`, then open http://127.0.0.1:8000/v1/models"
    return "\n".join([*lines, "", first]) + "\n"


def serve_parser() -> argparse.ArgumentParser:
    """`vsrv serve`: nothing but serve's flags."""
    return Parser(
        prog="vsrv serve",
        add_help=False,
        description="Serve a model: a Hugging Face folder or hub id, or the embedded demo model without one.",
    )


def _serve(arguments: list[str]) -> int:
    wanted = help_wanted(arguments)
    if wanted is not None:
        print(serve_help(wanted), end="")
        return 0
    config = _resolved(arguments)
    from vsrv import serve

    return serve.run(config, functools.partial(_resolved, arguments, with_files=False))


def config_parser() -> argparse.ArgumentParser:
    """`vsrv config`, beside serve's flags."""
    parser = Parser(
        prog="vsrv config",
        usage="vsrv config [--diff] [options of `vsrv serve`]",
        allow_abbrev=False,
        description="Print every effective value with its source, as TOML; secrets are masked.",
    )
    parser.add_argument(
        "--diff", action="store_true", help="only what differs from the defaults, and what it replaces"
    )
    return parser


def _config(arguments: list[str]) -> int:
    own, rest = config_parser().parse_known_args(arguments)
    config = _resolved(rest)
    lines = shown_differences(config) if own.diff else shown(config)
    print("\n".join(lines or ["# everything is at its default"]))
    return 0


def check_parser() -> argparse.ArgumentParser:
    """`vsrv check`, beside serve's flags."""
    parser = Parser(
        prog="vsrv check",
        usage="vsrv check [MODEL] [--json] [options of `vsrv serve`]",
        allow_abbrev=False,
        description="Say what `vsrv serve` with the same options would find, without starting it: settings, keys, certificate, address, model, "
        "device and the memory budget. No weight is loaded. The exit status is 78 if it would not start; for each problem the flag that mends "
        "it is named.",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser


def _check(arguments: list[str]) -> int:
    own, rest = check_parser().parse_known_args(arguments)
    from vsrv import check

    return check.run(lambda: combine(parse(rest), os.environ), own.json)


def keys_parser() -> argparse.ArgumentParser:
    """`vsrv keys` with its subcommands."""
    from vsrv import keys

    return keys.add_arguments(Parser(prog="vsrv keys", description="Change a key file of `vsrv serve`."))


def _keys(arguments: list[str]) -> int:
    from vsrv import keys

    return keys.run(keys_parser().parse_args(arguments))


def version_parser() -> argparse.ArgumentParser:
    """`vsrv version`."""
    parser = Parser(prog="vsrv version", description="Print the version.")
    parser.add_argument("--json", action="store_true", help="also what it runs on: Python, OpenSSL, packages")
    return parser


def _version(arguments: list[str]) -> int:
    given, facts = version_parser().parse_args(arguments), requirements.stamp()
    if given.json:
        print(json.dumps(_surroundings(facts), indent=1))
        return 0
    built = (
        f" (archive of commit {facts['commit'] or 'unknown'}, for Python {facts['python']})" if facts else ""
    )
    print(f"vsrv {vsrv.__version__}{built}")
    return 0


def _surroundings(archive: object) -> dict[str, object]:
    """What a report of a problem should name. Nothing is imported for it; a package that is not there is null."""
    import platform
    import ssl
    from importlib import metadata

    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "version": vsrv.__version__,
        "archive": archive or None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "openssl": ssl.OPENSSL_VERSION,
        "packages": packages,
    }


def setup_parser() -> argparse.ArgumentParser:
    """`vsrv setup`."""
    from vsrv import setup

    return setup.add_arguments(
        Parser(
            prog="vsrv setup",
            description="Make a private environment in the cache folder, with every package at the release and the SHA-256 of a lock, for a "
            "vsrv.pyz whose Python lacks its packages. It is made once; every later start goes over into it.",
        )
    )


def _setup(arguments: list[str]) -> int:
    given = setup_parser().parse_args(arguments)
    from vsrv import setup

    return setup.run(given)


def _resolved(arguments: list[str], with_files: bool = True) -> ServeConfig:
    config = resolve(parse(arguments), os.environ, with_files)
    for warning in config.warnings:
        complain("warning", warning)
    return config


def _cert(arguments: list[str]) -> int:
    given = parsers.cert_parser().parse_args(arguments)
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
    options = vars(parsers.bench_parser().parse_args(arguments))
    options["api_key"] = options["api_key"] or os.environ.get("OPENAI_API_KEY")
    from vsrv import bench

    return bench.run(BenchOptions(**options))


def _chat(arguments: list[str]) -> int:
    given = client_parsers.chat_parser().parse_args(arguments)
    from vsrv.client import commands

    return commands.run_chat(given)


def _complete(arguments: list[str]) -> int:
    given = client_parsers.complete_parser().parse_args(arguments)
    from vsrv.client import commands

    return commands.run_complete(given)


def _run_batch(arguments: list[str]) -> int:
    given, rest = client_parsers.batch_parser().parse_known_args(arguments)
    from vsrv.client import commands

    return commands.run_batch(given, rest)


def docs_parser() -> argparse.ArgumentParser:
    """`vsrv docs`."""
    from vsrv import docs

    return parsers.docs_parser(tuple(docs.NAMES))


def _docs(arguments: list[str]) -> int:
    given = docs_parser().parse_args(arguments)
    from vsrv import docs

    if given.write:
        print("\n".join(docs.write(Path(given.write), COMMANDS)))
    elif given.check:
        late = docs.outdated(Path(given.check), COMMANDS)
        if late:
            print(
                f"vsrv: not what the tables say: {', '.join(late)}; run: vsrv docs --write {given.check}",
                file=sys.stderr,
            )
            return 1
    elif given.name:
        print(docs.text(given.name, COMMANDS), end="")
    else:
        raise ConfigError(f"which document? there are {', '.join(docs.NAMES)}")
    return 0


def _completion(arguments: list[str]) -> int:
    given = parsers.completion_parser().parse_args(arguments)
    from vsrv.docs.completion import completion

    print(completion(given.shell, COMMANDS), end="")
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "serve",
        "[MODEL]",
        "serve a model (a Hugging Face folder or hub id; the embedded demo model without one)",
        _serve,
        serve_parser,
        True,
    ),
    Command(
        "check",
        "[MODEL]",
        "say what `serve` would find, and what fits into memory, without starting",
        _check,
        check_parser,
        True,
    ),
    Command(
        "chat",
        "[MESSAGE]",
        "talk with a server in the terminal",
        _chat,
        client_parsers.chat_parser,
        bare=True,
    ),
    Command(
        "complete",
        "[PROMPT]",
        "write what a model makes of a beginning",
        _complete,
        client_parsers.complete_parser,
        bare=True,
    ),
    Command(
        "run-batch",
        "[MODEL]",
        "send a file of requests and write a file of results, resumable",
        _run_batch,
        client_parsers.batch_parser,
        True,
        bare=True,
    ),
    Command("bench", "", "measure an OpenAI-compatible server", _bench, parsers.bench_parser),
    Command(
        "cert",
        "",
        "make a development certificate authority and a certificate signed by it",
        _cert,
        parsers.cert_parser,
    ),
    Command(
        "keys", "", "make, list, revoke and rotate the keys of a key file", _keys, keys_parser, bare=True
    ),
    Command(
        "config",
        "",
        "print every effective setting and where it comes from",
        _config,
        config_parser,
        True,
        bare=True,
    ),
    Command(
        "docs",
        "[NAME]",
        "print a manual page, the configuration reference or an example configuration",
        _docs,
        docs_parser,
        bare=True,
    ),
    Command(
        "completion",
        "bash|zsh|fish",
        "print the completion script of a shell",
        _completion,
        parsers.completion_parser,
        bare=True,
    ),
    Command(
        "setup",
        "[--cpu|--cuda]",
        "make the private environment of the one-file archive",
        _setup,
        setup_parser,
        bare=True,
    ),
    Command("version", "", "print the version", _version, version_parser, bare=True),
)
