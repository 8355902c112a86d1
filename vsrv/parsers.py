"""The parsers of commands whose own file is heavy to import: help and man pages are made from them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from vsrv.config import BenchOptions
from vsrv.flags import Parser


def cert_parser() -> argparse.ArgumentParser:
    """`vsrv cert`."""
    parser = Parser(
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
    return parser


def bench_parser() -> argparse.ArgumentParser:
    """`vsrv bench`; its destinations are the fields of BenchOptions."""
    parser = Parser(
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
    return parser


def docs_parser(names: Sequence[str]) -> argparse.ArgumentParser:
    """`vsrv docs`. names: the documents that there are."""
    parser = Parser(
        prog="vsrv docs",
        description="Print a document that is made from the option table: a manual page (`vsrv docs vsrv.1 | man -l -`), the configuration "
        "reference in Markdown, or an example configuration.",
    )
    parser.add_argument("name", nargs="?", choices=names, help="which one")
    parser.add_argument("--write", metavar="FOLDER", help="write the documents of a checkout into it")
    parser.add_argument(
        "--check", metavar="FOLDER", help="say which documents of a checkout differ from the tables"
    )
    return parser


def completion_parser() -> argparse.ArgumentParser:
    """`vsrv completion`."""
    parser = Parser(
        prog="vsrv completion",
        description="Print a completion script for a shell, such as `vsrv completion bash > ~/.local/share/bash-completion/completions/vsrv`.",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")
    return parser
