"""One choice's tokens → what a client is told: the answer's text, the thinking before it, pieces of tool calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vsrv.text.detokenizer import Detokenizer
from vsrv.text.reasoning import ReasoningSplitter
from vsrv.text.tools import ToolCallDelta, ToolScanner


@dataclass(frozen=True, slots=True)
class Read:
    """What some tokens gave. `num_used` of them were read before a stop string ended the output; the first `num_thinking`
    of these belong to the thinking or its tags, `num_reasoning` of them to the thinking alone."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCallDelta, ...] = ()
    num_used: int = 0
    num_thinking: int = 0
    num_reasoning: int = 0


class AnswerReader:
    """Detokenizer, then splitter, then scanner, as far as there are any. `tags` are the tokens that are tags of the thinking,
    `ends` those of them that end it; a tag of several tokens counts as thinking."""

    def __init__(
        self,
        text: Detokenizer,
        splitter: ReasoningSplitter | None = None,
        scanner: ToolScanner | None = None,
        tags: frozenset[int] = frozenset(),
        ends: frozenset[int] = frozenset(),
    ) -> None:
        self._text = text
        self._splitter = splitter
        self._scanner = scanner
        self._tags = tags
        self._ends = ends
        self._thinking = splitter is not None

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the output."""
        return self._text.stopped

    @property
    def complete(self) -> bool:
        """Nothing that follows is wanted: see ToolScanner.exceeded."""
        return self._scanner is not None and self._scanner.exceeded

    @property
    def num_calls(self) -> int:
        return 0 if self._scanner is None else self._scanner.num_calls

    def feed(self, token_ids: Sequence[int]) -> Read:
        if not self._thinking:
            text, used = self._text.feed(token_ids)
            return self._read(text, used)
        reads = []
        for token_id in token_ids:
            reads.append(self._thought(token_id))
            if self.stopped is not None:
                break
        return _joined(reads)

    def finish(self) -> Read:
        """No more tokens will come: what was held back."""
        last = self._read(self._text.finish(), 0)
        content, reasoning, calls = last.content, last.reasoning, last.calls
        if self._splitter is not None:
            split = self._splitter.finish()
            reasoning += split.reasoning
            last = self._scanned(split.content)
            content, calls = content + last.content, calls + last.calls
        if self._scanner is not None:
            scanned = self._scanner.finish()
            content, calls = content + scanned.text, calls + scanned.calls
        return Read(content, reasoning, calls)

    def _thought(self, token_id: int) -> Read:
        """One token of an output that may be thinking."""
        assert self._splitter is not None
        before = self._splitter.inside
        text, used = self._text.feed((token_id,))
        read = self._read(text, used)
        inside = before or self._splitter.inside
        if token_id in self._ends or not self._splitter.is_open:
            self._thinking = False
        return replace(
            read, num_thinking=int(inside), num_reasoning=int(before and token_id not in self._tags)
        )

    def _read(self, text: str, used: int) -> Read:
        reasoning = ""
        if self._splitter is not None:
            split = self._splitter.feed(text)
            reasoning, text = split.reasoning, split.content
        return replace(self._scanned(text), reasoning=reasoning, num_used=used)

    def _scanned(self, text: str) -> Read:
        if self._scanner is None:
            return Read(text)
        scanned = self._scanner.feed(text)
        return Read(scanned.text, "", scanned.calls)


def _joined(reads: list[Read]) -> Read:
    return Read(
        "".join(read.content for read in reads),
        "".join(read.reasoning for read in reads),
        tuple(call for read in reads for call in read.calls),
        sum(read.num_used for read in reads),
        sum(read.num_thinking for read in reads),
        sum(read.num_reasoning for read in reads),
    )
