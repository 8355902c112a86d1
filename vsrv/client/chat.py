"""`vsrv chat`: a conversation in the terminal, with any OpenAI-compatible server.

Ctrl-C ends an answer that is being written, which stays in the conversation as far as it came; Ctrl-D or /quit ends the program. What is
typed is kept in memory only; /save writes it where one wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsrv.client.http import ProtocolError, RequestFailed
from vsrv.client.session import Screen, Session
from vsrv.errors import ConfigError

_ROLES = ("system", "user", "assistant")
_MAX_FILE_BYTES = 64 << 20


@dataclass(slots=True)
class Conversation:
    """What has been said. `messages` begin with the system message, if there is one."""

    messages: list[dict[str, str]] = field(default_factory=list)

    @property
    def system(self) -> str:
        first = self.messages[0] if self.messages else {}
        return first["content"] if first.get("role") == "system" else ""

    def set_system(self, text: str) -> None:
        """Put the system message in front, or take it away."""
        rest = self.messages[1:] if self.system else self.messages
        self.messages = [{"role": "system", "content": text}, *rest] if text else list(rest)

    def add(self, role: str, text: str) -> None:
        self.messages.append({"role": role, "content": text})

    def reset(self) -> None:
        """Everything but the system message is forgotten."""
        self.messages = self.messages[:1] if self.system else []

    def undo(self) -> str | None:
        """Take back the last question and its answer; returns the question, None when there is none."""
        for index in range(len(self.messages) - 1, -1, -1):
            if self.messages[index]["role"] == "user":
                text = self.messages[index]["content"]
                del self.messages[index:]
                return text
        return None


def saved(conversation: Conversation, session: Session) -> str:
    """A conversation as JSON text."""
    table = {"model": session.model, "params": session.params, "messages": conversation.messages}
    return json.dumps(table, ensure_ascii=False, indent=1) + "\n"


def loaded(text: str) -> tuple[Conversation, dict[str, Any]]:
    """JSON text → (conversation, parameters). A bare list of messages will do. Raises ConfigError."""
    try:
        table = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}") from None
    table = {"messages": table} if isinstance(table, list) else table
    messages, params = (
        (table.get("messages"), table.get("params", {})) if isinstance(table, dict) else (None, None)
    )
    if not isinstance(messages, list) or not isinstance(params, dict):
        raise ConfigError('expected {"messages": [...]}')
    for number, message in enumerate(messages):
        fits = (
            isinstance(message, dict)
            and message.get("role") in _ROLES
            and isinstance(message.get("content"), str)
        )
        if not fits or (message["role"] == "system" and number > 0):
            raise ConfigError(
                f"message {number + 1}: expected a role of {', '.join(_ROLES)} and content as text"
            )
    return Conversation([{"role": m["role"], "content": m["content"]} for m in messages]), params


class Chat:
    """One run of the command. `ask_line` returns the next line of input and raises EOFError at its end."""

    def __init__(
        self, session: Session, screen: Screen, ask_line: Callable[[str], str], tell: Callable[[str], None]
    ) -> None:
        self.session = session
        self.conversation = Conversation()
        self._screen = screen
        self._ask_line = ask_line
        self._tell = tell
        self._usage: dict[str, Any] | None = None
        self.exit_status = 1  # of a program that asked once and failed
        self._commands: dict[str, tuple[Callable[[str], bool], str, str]] = {
            "help": (self._help, "", "this list"),
            "system": (self._system, "TEXT", "set the system message; without TEXT take it away"),
            "save": (self._save, "FILE", "write the conversation as JSON"),
            "load": (self._load, "FILE", "go on with a conversation that was saved"),
            "reset": (self._reset, "", "forget everything but the system message"),
            "undo": (self._undo, "", "take back the last question and its answer"),
            "retry": (self._retry, "", "ask the last question again"),
            "model": (self._model, "[NAME]", "list the models, or change to one"),
            "params": (self._params, "[NAME=VALUE ...]", "show or set parameters; nothing behind = takes one back"),
            "usage": (self._show_usage, "", "tokens of the last answer"),
            "quit": (self._quit, "", "leave (also Ctrl-D)"),
        }  # fmt: skip

    def run(self) -> int:
        """Lines until the end of input."""
        while True:
            try:
                line = self._read()
            except EOFError:
                self._tell("")
                return 0
            except KeyboardInterrupt:
                self._tell("(Ctrl-D or /quit leaves)")
                continue
            if line.strip() and not self.handle(line):
                return 0

    def _read(self) -> str:
        '''One message: a line; with \\ at its end the next one, too; between lines of """ as many as one likes.'''
        line = self._ask_line("> ")
        if line.strip() == '"""':
            lines: list[str] = []
            while (line := self._ask_line(". ")).strip() != '"""':
                lines.append(line)
            return "\n".join(lines)
        while line.endswith("\\"):
            line = line[:-1] + "\n" + self._ask_line(". ")
        return line

    def handle(self, line: str) -> bool:
        """One message or /command; False ends the program. `//` begins a message that begins with a slash."""
        if line.startswith("/") and not line.startswith("//"):
            word, _, rest = line[1:].partition(" ")
            found = [name for name in self._commands if name.startswith(word)] if word else []
            if word in self._commands:
                found = [word]
            if len(found) != 1:
                self._tell(f"no command /{word}; /help lists them")
                return True
            try:
                return self._commands[found[0]][0](rest.strip())
            except (ConfigError, RequestFailed, ProtocolError) as error:
                self._tell(f"{error}")
                return True
        self.answer(line[1:] if line.startswith("//") else line)
        return True

    def answer(self, text: str) -> bool:
        """Ask, and show the answer as it comes; True when it came to its end. What failed is taken back."""
        self.conversation.add("user", text)
        parts: list[str] = []
        try:
            asyncio.run(self._stream(parts))
            done = True
        except KeyboardInterrupt:
            self._screen.end()
            self._tell("(stopped)")
            done = False
        except (ConfigError, RequestFailed, ProtocolError) as error:
            self._screen.end()
            self._tell(f"{error}")
            self.exit_status = error.exit_status if isinstance(error, ConfigError) else 1
            done = False
        if parts:
            self.conversation.add("assistant", "".join(parts))
        else:
            self.conversation.undo()
        return done

    async def _stream(self, parts: list[str]) -> None:
        reason = ""
        async with contextlib.aclosing(self.session.chat(self.conversation.messages)) as pieces:
            async for piece in pieces:
                self._screen.write(piece)
                if piece.text:
                    parts.append(piece.text)
                reason = piece.finish_reason or reason
                self._usage = piece.usage or self._usage
        self._screen.end()
        if reason == "length":
            self._tell("(cut off: max_tokens or the model's context)")

    # commands

    def _help(self, rest: str) -> bool:
        rows = [
            (f"/{name} {argument}".rstrip(), text) for name, (_, argument, text) in self._commands.items()
        ]
        width = max(len(left) for left, _ in rows)
        lines = [f"{left:<{width}}  {text}" for left, text in rows]
        self._tell(
            "\n".join(
                [
                    *lines,
                    'Lines that end with \\ go on; """ begins and ends a long text. Ctrl-C stops an answer.',
                ]
            )
        )
        return True

    def _system(self, rest: str) -> bool:
        self.conversation.set_system(rest)
        self._tell("(set)" if rest else "(no system message)")
        return True

    def _save(self, rest: str) -> bool:
        try:
            Path(_named(rest)).write_text(saved(self.conversation, self.session))
        except OSError as error:
            raise ConfigError(f"{rest}: {error.strerror}") from None
        self._tell(f"({len(self.conversation.messages)} messages in {rest})")
        return True

    def _load(self, rest: str) -> bool:
        try:
            path = Path(_named(rest))
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise ConfigError(f"{rest} is larger than {_MAX_FILE_BYTES} bytes")
            self.conversation, self.session.params = loaded(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{rest}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
        self._tell(f"({len(self.conversation.messages)} messages)")
        return True

    def _reset(self, rest: str) -> bool:
        self.conversation.reset()
        self._tell("(forgotten)")
        return True

    def _undo(self, rest: str) -> bool:
        text = self.conversation.undo()
        self._tell("(nothing to take back)" if text is None else f"(taken back: {text.splitlines()[0][:60]})")
        return True

    def _retry(self, rest: str) -> bool:
        text = self.conversation.undo()
        if text is None:
            self._tell("(nothing was asked yet)")
        else:
            self.answer(text)
        return True

    def _model(self, rest: str) -> bool:
        names = asyncio.run(self.session.target.models())
        if rest and rest not in names:
            raise ConfigError(f"no model {rest}; there are {', '.join(names)}")
        self.session.model = rest or self.session.model
        self._tell("\n".join(f"{'*' if name == self.session.model else ' '} {name}" for name in names))
        return True

    def _params(self, rest: str) -> bool:
        for text in rest.split():
            self.session.set_param(text)
        shown = [f"{name}={json.dumps(value)}" for name, value in self.session.params.items()]
        self._tell(" ".join(shown) or "(the server's defaults)")
        return True

    def _show_usage(self, rest: str) -> bool:
        self._tell("(not known)" if self._usage is None else json.dumps(self._usage))
        return True

    def _quit(self, rest: str) -> bool:
        return False


def _named(rest: str) -> str:
    if not rest:
        raise ConfigError("which file?")
    return str(Path(rest).expanduser())


def run(session: Session, system: str, message: str) -> int:
    """A conversation at a terminal; with `message`, or text on standard input, one answer. Returns the exit status."""
    screen = Screen(sys.stdout)
    chat = Chat(session, screen, input, lambda text: print(text, file=sys.stderr))
    chat.conversation.set_system(system)
    if message or not sys.stdin.isatty():
        piped = "" if sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
        text = "\n\n".join(part for part in (message, piped) if part)
        if not text:
            raise ConfigError("nothing to ask: give a MESSAGE, text on standard input, or a terminal")
        return 0 if chat.answer(text) else chat.exit_status
    with contextlib.suppress(ImportError):
        import readline  # line editing; only importing it does that

        readline.set_auto_history(True)
    name = asyncio.run(session.chosen_model())
    print(f"{name} at {session.target.name}. /help lists commands.", file=sys.stderr)
    return chat.run()
