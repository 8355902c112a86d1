"""`vsrv complete`: what a model makes of a beginning. The prompt is an argument, a file, or standard input."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from vsrv.client.http import ProtocolError, RequestFailed
from vsrv.client.session import Screen, Session
from vsrv.errors import ConfigError


def prompt_of(argument: str | None, file: str | None) -> str:
    """The prompt as it is, with every blank and newline. Raises ConfigError."""
    if argument is not None and file is not None:
        raise ConfigError("a PROMPT and --file: which one?")
    if argument is not None:
        return argument
    if file is None or file == "-":
        if sys.stdin.isatty():
            raise ConfigError(
                "what should be completed? give a PROMPT, --file FILE or text on standard input"
            )
        return sys.stdin.read()
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file {file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


def run(session: Session, prompt: str, echo: bool) -> int:
    """Stream the continuation to standard output. Returns the exit status."""
    screen = Screen(sys.stdout)
    if echo:
        sys.stdout.write(prompt)

    async def stream() -> None:
        async with contextlib.aclosing(session.complete(prompt)) as pieces:
            async for piece in pieces:
                screen.write(piece)

    try:
        asyncio.run(stream())
    except KeyboardInterrupt:
        screen.end()
        return 130
    except (RequestFailed, ProtocolError) as error:
        screen.end()
        print(f"vsrv: {error}", file=sys.stderr)
        return 1
    if screen.is_terminal:  # in a pipe the text is exact
        screen.end()
    return 0
