"""Ids → text as they arrive: whole characters only, stop strings found across tokens, as little held back as possible."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass

from vsrv.text.stops import matcher_of
from vsrv.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How ids become text. `min_tokens`: stop strings count only in text after so many tokens. `shown`: control tokens that stay."""

    stop: tuple[str, ...] = ()
    include_stop: bool = False
    skip_special_tokens: bool = True
    min_tokens: int = 0
    shown: tuple[str, ...] = ()


class CharacterStream:
    """Tokens in order → characters: a token in the middle of one gives "", the token that completes it gives it."""

    __slots__ = ("_after", "_decoder", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, after: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._after = after
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        text = self._decoder.decode(self._tokenizer.token_bytes(token_id, self._after))
        self._after = token_id
        return text

    def peek(self, token_id: int) -> str:
        """What `push` would give, changing nothing."""
        state = self._decoder.getstate()
        text = self._decoder.decode(self._tokenizer.token_bytes(token_id, self._after))
        self._decoder.setstate(state)
        return text

    def finish(self) -> str:
        return self._decoder.decode(b"", True)


class Detokenizer:
    """One sequence's text. `feed` returns what may be sent; after `stopped` is set, nothing more comes.

    `after` is the last token of the prompt.
    """

    __slots__ = (
        "_characters",
        "_held",
        "_matcher",
        "_options",
        "_special",
        "_state",
        "num_tokens",
        "stopped",
    )

    def __init__(self, tokenizer: Tokenizer, options: TextOptions, after: int | None = None) -> None:
        shown = {tokenizer.special[token] for token in options.shown if token in tokenizer.special}
        self._special = tokenizer.special_ids - shown if options.skip_special_tokens else frozenset()
        self._options = options
        self._characters = CharacterStream(tokenizer, None if after in self._special else after)
        self._held = ""
        self._matcher = matcher_of(options.stop) if options.stop else None
        self._state = 0
        self.num_tokens = 0
        self.stopped: str | None = None

    def feed(self, token_ids: Iterable[int]) -> tuple[str, int]:
        """New ids → (text that may be sent, number of ids used). Fewer are used when a stop string is complete."""
        used = 0
        sent: list[str] = []
        if self.stopped is not None:
            return "", 0
        for token_id in token_ids:
            used += 1
            self.num_tokens += 1
            if token_id in self._special:
                continue
            sent.append(self._take(self._characters.push(token_id)))
            if self.stopped is not None:
                break
        return "".join(sent), used

    def finish(self) -> str:
        """What was held back: the beginning of a stop string that never came, an unfinished character as U+FFFD."""
        if self.stopped is not None:
            return ""
        rest = self._held + self._characters.finish()
        self._held = ""
        return rest

    def _take(self, text: str) -> str:
        """What may be sent of the text so far. A stop string counts if all of it lies behind the first min_tokens tokens."""
        matcher = self._matcher
        if matcher is None or self.num_tokens <= self._options.min_tokens:
            return text
        held = self._held + text
        for end, character in enumerate(text, len(self._held) + 1):
            self._state = matcher.step(self._state, character)
            if matcher.found[self._state] >= 0:
                self.stopped = self._options.stop[matcher.found[self._state]]
                self._held = ""
                return held[: end if self._options.include_stop else end - len(self.stopped)]
        sent = len(held) - matcher.depth[self._state]
        self._held = held[sent:]
        return held[:sent]
