"""The parsers of client commands: help, man page and completions are made from them, so nothing heavy is imported."""

from __future__ import annotations

import argparse

from vsrv.client import DEFAULT_URL
from vsrv.flags import Parser


def _server_flags(parser: argparse.ArgumentParser, default: str) -> None:
    add = parser.add_argument
    add("--url", help=f"base address of the server, or unix:PATH (default: {default})")
    add("--api-key", metavar="KEY", help="key to send (default: $OPENAI_API_KEY)")
    add("--ca-file", metavar="FILE", help="CA bundle for https")


def _model_flags(parser: argparse.ArgumentParser) -> None:
    _server_flags(parser, f"$OPENAI_BASE_URL, else {DEFAULT_URL}")
    add = parser.add_argument
    add("--model", default="", help="model name (default: the first one that the server lists)")
    add(
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help='a field of the request, such as temperature=0.2 or stop=["END"]; may be repeated',
    )
    add("--max-tokens", type=int, metavar="N", help="length of an answer at most")
    add("--temperature", type=float, metavar="T", help="0 is greedy")


def chat_parser() -> argparse.ArgumentParser:
    """`vsrv chat`."""
    parser = Parser(
        prog="vsrv chat",
        description="A conversation in the terminal with any OpenAI-compatible server. Answers are shown as they come; Ctrl-C stops one, Ctrl-D leaves, "
        "/help lists commands. With MESSAGE, or text on standard input, one answer is written and nothing else.",
    )
    parser.add_argument(
        "message",
        nargs="?",
        metavar="MESSAGE",
        help="ask this and leave; text on standard input is put behind it",
    )
    parser.add_argument("--system", default="", metavar="TEXT", help="system message")
    _model_flags(parser)
    return parser


def complete_parser() -> argparse.ArgumentParser:
    """`vsrv complete`."""
    parser = Parser(
        prog="vsrv complete",
        description="Write what a model makes of a beginning. The prompt is sent as it is, without a chat template.",
    )
    parser.add_argument(
        "prompt", nargs="?", metavar="PROMPT", help="the beginning (default: --file, else standard input)"
    )
    parser.add_argument("--file", metavar="FILE", help="read the prompt from this file; - is standard input")
    parser.add_argument("--echo", action="store_true", help="write the prompt, too")
    _model_flags(parser)
    return parser


def batch_parser() -> argparse.ArgumentParser:
    """`vsrv run-batch`, beside serve's flags."""
    parser = Parser(
        prog="vsrv run-batch",
        usage="vsrv run-batch [MODEL] -i FILE -o FILE [--url URL | options of `vsrv serve`]",
        allow_abbrev=False,
        description="Send a file of requests in OpenAI's batch form (a JSON object with custom_id, method, url and body in each line) and write their results, "
        "to a server that runs (--url) or to one that is started for it with MODEL and serve's options. Results are written as they come. "
        "The same command again goes on where a run has ended: good results stay, what failed is sent again. The exit status is 1 if a request failed.",
    )
    add = parser.add_argument
    add("-i", "--input-file", metavar="FILE", help="requests, one in a line")
    add("-o", "--output-file", metavar="FILE", help="results, one in a line")
    add("--concurrency", type=int, default=16, metavar="N", help="requests at once (default %(default)s)")
    add(
        "--max-retries",
        type=int,
        default=8,
        metavar="N",
        help="tries again of a request that met 429, 5xx or no answer, after Retry-After or longer and longer pauses (default %(default)s)",
    )
    _server_flags(parser, "a server of its own")
    return parser
