"""Tool calls in a model's text: one incremental scanner, a table row for each format.

Text comes in any cut and goes out as the answer's own text and as calls, the same for every cut; whole answers are joined from the
same pieces. What looked like a call and is none comes out as text. No character is read twice, so the time is linear.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vsrv.text.marks import unfinished
from vsrv.text.tool_bodies import Reader, Sink, Tools, Verdict
from vsrv.text.tool_json import JsonCalls, MistralCalls
from vsrv.text.tool_pythonic import PythonicCalls
from vsrv.text.tool_xml import XmlCalls


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of call `index` of one choice.

    The first delta of a call has its id and its name, and no arguments; the later ones have only arguments, which joined are JSON text.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a family of models writes calls.

    `opens` begin a call and are markup; `bare` begin one too but belong to it (and to much else: the name decides). `closes` end a call.
    `tokens` are further marks inside of calls that tokenizers may have as control tokens.
    """

    name: str
    opens: tuple[str, ...]
    reader: Callable[[Sink, Tools, bool], Reader]  # the flag: only a tool that was offered makes it a call
    bare: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    id_of: Callable[[], str] = lambda: f"call_{secrets.token_hex(12)}"

    @property
    def marks(self) -> tuple[str, ...]:
        """Everything that must stay in the text although it may be a control token."""
        return (*self.opens, *self.closes, *self.tokens)


def _nine_letters() -> str:
    """Mistral's templates take ids of exactly nine letters and digits."""
    return "".join(
        secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") for _ in range(9)
    )


FORMATS: Mapping[str, ToolFormat] = {
    row.name: row
    for row in (
        ToolFormat("hermes", ("<tool_call>",), JsonCalls, closes=("</tool_call>",)),
        ToolFormat("llama3_json", ("<|python_tag|>",), JsonCalls, bare=("{",)),
        ToolFormat("pythonic", (), PythonicCalls, bare=("[",)),
        ToolFormat(
            "mistral", ("[TOOL_CALLS]",), MistralCalls, tokens=("[ARGS]", "[CALL_ID]"), id_of=_nine_letters
        ),
        ToolFormat("qwen3_coder", ("<tool_call>",), XmlCalls, bare=("<function=",), closes=("</tool_call>",)),
    )
}
ALIASES: Mapping[str, str] = {  # vLLM's names of the same formats
    "qwen3_json": "hermes",
    "granite4": "hermes",
    "llama4_json": "llama3_json",
    "qwen3_xml": "qwen3_coder",
}
# The first row of which every pattern is in the chat template names the format.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("", ("<arg_key>",)),  # GLM: <tool_call> with a body of its own
    ("", (r"<\|tool_call\|>",)),
    ("qwen3_coder", ("<tool_call>", "<function=", "<parameter=")),
    ("hermes", ("<tool_call>", r"arguments\\?\"")),
    ("mistral", (r"\[TOOL_CALLS\]",)),
    ("llama3_json", (r'\{"name": function name, "parameters":',)),
    ("pythonic", (r"\[func_name1\(",)),
)


def detect_format(template: str) -> str:
    """The format that a chat template tells its model to write, "" if it is none of the table."""
    return next((name for name, signs in _SIGNS if all(re.search(sign, template) for sign in signs)), "")


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a piece of text gave: the answer's own text, and pieces of calls in order."""

    text: str
    calls: tuple[ToolCallDelta, ...]


class ToolScanner:
    """One choice's text → content and calls. `parallel` false lets the first call through and no other."""

    def __init__(self, form: ToolFormat, tools: Tools, parallel: bool = True) -> None:
        self.num_calls = 0
        self._form = form
        self._tools = tools
        self._parallel = parallel
        self._marks = (*form.opens, *form.bare, *form.closes)
        self._any_mark = re.compile("|".join(re.escape(mark) for mark in self._marks))
        self._longest = max(len(mark) for mark in self._marks)
        self._buffer = ""
        self._reader: Reader | None = None
        self._open = False  # a call has begun since the last mark that closes one
        self._muted = False
        self._edge = True  # nothing but white space since the start or since the last call
        self._space: list[str] = []  # that white space: only text that follows makes it content
        self._text: list[str] = []
        self._deltas: list[ToolCallDelta] = []
        self._pieces: list[str] = []  # arguments for the next delta

    def feed(self, text: str) -> Scanned:
        self._buffer += text
        at, more = 0, False
        while not more:
            at, more = self._read_text(at) if self._reader is None else self._read_calls(self._reader, at)
        self._buffer = self._buffer[at:]
        return self._taken()

    def finish(self) -> Scanned:
        """The end of the output: what waited for more comes out as what it is by now."""
        rest, self._buffer = self._buffer, ""
        self.content(rest if self._reader is None else self._reader.finish(rest))
        self._reader = None
        if not self.num_calls:
            self._text += self._space
        self._space = []
        return self._taken()

    @property
    def exceeded(self) -> bool:
        """A second call has begun where one is allowed: what follows is not wanted."""
        return self._muted

    def begin(self, name: str) -> None:
        """A reader found a call."""
        self._muted = self.num_calls > 0 and not self._parallel
        self._edge, self._space, self._open = True, [], True
        self._end_delta()
        if not self._muted:
            self._deltas.append(ToolCallDelta(self.num_calls, self._form.id_of(), name))
            self.num_calls += 1

    def arguments(self, piece: str) -> None:
        """A reader found more of the arguments of the call that it began last."""
        if not self._muted:
            self._pieces.append(piece)

    def content(self, piece: str) -> None:
        """Text of the answer itself."""
        if not piece:
            return
        if self._edge:
            self._space.append(piece)
            if piece.isspace():
                return
            piece, self._space, self._edge = "".join(self._space), [], False
        self._text.append(piece)

    def _read_text(self, at: int) -> tuple[int, bool]:
        """Up to the next mark → (the place read to, whether more text is needed)."""
        text = self._buffer
        match = self._any_mark.search(text, at)
        if match is None:
            tail = text[max(at, len(text) - self._longest) :]
            after = len(text) - unfinished(tail, self._marks)
            self.content(text[at:after])
            return after, True
        self.content(text[at : match.start()])
        mark = match[0]
        if mark in self._form.closes:
            if not self._open:
                self.content(mark)
            elif self._edge:
                self._space = []  # between a call and the mark that closes it
            self._open = False
            return match.end(), False
        is_bare = mark in self._form.bare
        self._reader = self._form.reader(self, self._tools, is_bare)
        if not is_bare:
            self._reader.opened(mark)
        return match.start() if is_bare else match.end(), False

    def _read_calls(self, reader: Reader, at: int) -> tuple[int, bool]:
        at, verdict = reader.read(self._buffer, at)
        if verdict is Verdict.FAIL:
            self.content(reader.refused())
        if verdict is not Verdict.MORE:
            self._reader = None
        return at, verdict is Verdict.MORE

    def _end_delta(self) -> None:
        piece = "".join(self._pieces)
        self._pieces = []
        if piece:
            self._deltas.append(ToolCallDelta(self.num_calls - 1, arguments=piece))

    def _taken(self) -> Scanned:
        self._end_delta()
        scanned = Scanned("".join(self._text), tuple(self._deltas))
        self._text, self._deltas = [], []
        return scanned
