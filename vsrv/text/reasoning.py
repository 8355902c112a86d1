"""Thinking in a model's text: split from the answer by the tags around it, a table row for each pair. Any cut gives the same.

Only the beginning of an output can be thinking. Tags are not part of either text, nor are the line breaks beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vsrv.text.marks import unfinished


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """A pair of tags, each perhaps in several spellings, the usual one first.

    `always`: an output is thinking until the end tag, whether or not it or the prompt has the tag that begins it.
    `until_calls`: a mark that opens a tool call ends it too (models forget the end tag there).
    """

    name: str
    begins: tuple[str, ...]
    ends: tuple[str, ...]
    always: bool = False
    until_calls: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        """Everything that must stay in the text although it may be a control token."""
        return (*self.begins, *self.ends)

    def state_after(self, prompt: str) -> bool | None:
        """What a prompt that ends so has left: True if thinking is open, False if it is closed, None if there was none."""
        end = prompt.rstrip()
        if end.endswith(self.begins):
            return True
        return False if end.endswith(self.ends) else None

    def state_within(self, message: str) -> bool | None:
        """The same for an answer that is to go on behind `message`."""
        begun = max(message.rfind(begin) for begin in self.begins)
        ended = max(message.rfind(end) for end in self.ends)
        return None if begun < 0 and ended < 0 else begun > ended


_THINK = (("<think>",), ("</think>",))
FORMATS: Mapping[str, ReasoningFormat] = {
    row.name: row
    for row in (
        ReasoningFormat("qwen3", *_THINK, until_calls=True),
        ReasoningFormat("deepseek_r1", *_THINK, always=True),
        ReasoningFormat("mistral", ("[THINK]",), ("[/THINK]",)),
        ReasoningFormat(
            "granite",
            ("Here is my thought process:", "Here's my thought process:"),
            ("Here is my response:", "Here's my response:"),
        ),
    )
}
ALIASES: Mapping[str, str] = {  # vLLM's names of the same tags
    **dict.fromkeys(("deepseek_v3", "glm45", "holo2", "mimo", "nemotron_v3", "step3p5"), "qwen3"),
    "minimax_m2": "deepseek_r1",
}
_SIGNS = (("mistral", "[THINK]"), ("granite", "Here is my thought process:"), ("qwen3", "</think>"))


def detect_format(template: str) -> str:
    """The format that a chat template knows of, "" if none."""
    return next((name for name, sign in _SIGNS if sign in template), "")


@dataclass(frozen=True, slots=True)
class Split:
    """What a piece of text gave to the thinking and to the answer."""

    reasoning: str
    content: str


class ReasoningSplitter:
    """One choice's text → thinking and answer. `inside`: the prompt has opened the thinking; `calls`: marks that end it too."""

    def __init__(self, form: ReasoningFormat, inside: bool, calls: tuple[str, ...] = ()) -> None:
        self.inside = inside or form.always
        self._undecided = not inside  # a tag that begins the thinking may come
        self._begins = form.begins
        self._ends = (*form.ends, *calls)
        self._calls = frozenset(calls)
        self._end = re.compile("|".join(re.escape(end) for end in self._ends))
        self._buffer = ""
        self._breaks = 0  # line breaks of the thinking that are held back: they may be its last
        self._edge = True  # line breaks are beside a tag

    @property
    def is_open(self) -> bool:
        """Whether more thinking may come."""
        return self.inside or self._undecided

    def feed(self, text: str) -> Split:
        self._buffer += text
        reasoning = ""
        if self._undecided and not self._decide():
            return Split("", "")
        if self.inside:
            reasoning = self._thinking()
        return Split(reasoning, "" if self.inside else self._answer())

    def finish(self) -> Split:
        """The end of the output: what waited for more comes out as what it is by now."""
        rest, self._buffer = self._buffer, ""
        if self.inside:
            return Split("\n" * self._breaks + rest, "")
        return Split("", rest)

    def _decide(self) -> bool:
        """Whether it is known if the output begins with a tag."""
        start = self._buffer.lstrip()
        found = next((begin for begin in self._begins if start.startswith(begin)), None)
        if found is not None:
            self._buffer = start[len(found) :]
            self.inside = True
        elif not start or any(begin.startswith(start) for begin in self._begins):
            return False
        elif not self.inside:
            self._edge = False  # nothing was taken off, so the answer keeps its line breaks
        self._undecided = False
        return True

    def _thinking(self) -> str:
        found = self._end.search(self._buffer)
        if found is None:
            stop = len(self._buffer) - unfinished(self._buffer[-max(map(len, self._ends)) :], self._ends)
            piece, self._buffer = self._buffer[:stop], self._buffer[stop:]
            return self._shown(piece)
        piece = self._shown(self._buffer[: found.start()])
        self._buffer = self._buffer[found.start() if found[0] in self._calls else found.end() :]
        self.inside, self._edge, self._breaks = False, True, 0
        return piece

    def _shown(self, piece: str) -> str:
        """Without the line breaks at the start of the thinking, and those at its end held back."""
        if self._edge:
            piece = piece.lstrip("\n")
        if not piece:
            return ""
        self._edge = False
        bare = piece.rstrip("\n")
        breaks = len(piece) - len(bare)
        if not bare:
            self._breaks += breaks
            return ""
        held, self._breaks = "\n" * self._breaks, breaks
        return held + bare

    def _answer(self) -> str:
        text, self._buffer = self._buffer, ""
        if self._edge:
            text = text.lstrip("\n")
            self._edge = not text
        return text
