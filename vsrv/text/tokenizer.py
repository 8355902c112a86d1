"""tokenizer.json → ids and back. User text never becomes a control token (rule R18): see `encode_marked`."""

from __future__ import annotations

import copy
import json
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from vsrv.errors import ConfigError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ANGLED = re.compile(r"<.+>")
_SPACE = "\u2581".encode()  # sentencepiece's sign for a space


@dataclass(frozen=True, slots=True)
class Cut:
    """Keep `length` tokens of a longer input, special ones counted; `side` is where the others are cut off."""

    length: int
    side: str = "right"

    def of(self, ids: array[int]) -> array[int]:
        return ids[: self.length] if self.side == "right" else ids[max(0, len(ids) - self.length) :]


class Tokenizer:
    """One model's tokenizer. Thread-safe for encoding; built once in the front and once in the prepare child."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for everything
            if not path.is_file():
                raise ConfigError(
                    f"{folder} has no tokenizer.json; vsrv needs the fast tokenizer's file"
                ) from None
            raise ConfigError(f"cannot read {path}: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        table = json.loads(path.read_text())
        added = table.get("added_tokens") or []
        self.special: dict[str, int] = {t["content"]: t["id"] for t in added if t["special"]}
        self.special_ids = frozenset(self.special.values())
        self._starts = frozenset(spelled[0] for spelled in self.special if spelled)
        # what llguidance takes for control tokens: in a grammar they are tokens, never text
        self.marks: dict[str, int] = {
            t["content"]: t["id"] for t in added if t["special"] or _ANGLED.fullmatch(t["content"])
        }
        self._added = {t["id"]: t["content"].encode() for t in added}
        self._folds = self._tokenizer.normalizer is not None and any(
            t["special"] and t["normalized"] for t in added
        )
        self._unknown = self.token_to_id(str(table["model"].get("unk_token")))
        self._style = _decoder_style(table.get("decoder"))
        self._byte_of = _byte_alphabet()
        self.vocab_size: int = self._tokenizer.get_vocab_size()

    def encode(self, text: str, add_special_tokens: bool) -> array[int]:
        """Text → ids; control tokens spelled in the text are control tokens (a raw prompt is the caller's own)."""
        return array("I", self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def encode_input(self, text: str, add_special_tokens: bool, cut: Cut | None) -> tuple[array[int], int]:
        """A text in the form that an encoder was trained with → ids, and where token type 1 begins: behind them.

        What is too long for `cut` is shortened before special tokens are put around it.
        """
        whole = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        if cut is not None and len(whole.ids) > cut.length:
            added = self._tokenizer.num_special_tokens_to_add(False) if add_special_tokens else 0
            first = self._tokenizer.encode(text, add_special_tokens=False)
            first.truncate(max(0, cut.length - added), 0, cut.side)
            whole = self._tokenizer.post_process(first, None, add_special_tokens)
        return array("I", whole.ids), len(whole.ids)

    def encode_pairs(
        self, text: str, seconds: Iterable[str], cut: Cut | None
    ) -> Iterator[tuple[array[int], int]]:
        """A text with each of others, special tokens around both → ids, and where token type 1 begins, for each pair.

        The first text is read once. Of a pair that is too long for `cut` the longer text gives way, as transformers' `longest_first` does.
        """
        first = self._tokenizer.encode(text, add_special_tokens=False)
        added = self._tokenizer.num_special_tokens_to_add(True)
        for second in seconds:
            one, other = first, self._tokenizer.encode(second, add_special_tokens=False)
            if cut is not None and len(one.ids) + len(other.ids) + added > cut.length:
                rooms = _shares(len(one.ids), len(other.ids), max(0, cut.length - added))
                one = copy.copy(first)
                one.truncate(rooms[0], 0, cut.side)
                other.truncate(rooms[1], 0, cut.side)
            whole = self._tokenizer.post_process(one, other, True)
            types = whole.type_ids
            yield array("I", whole.ids), types.index(1) if 1 in types else len(types)

    def first_tokens(self, text: str, most: int) -> str:
        """The beginning of a text that has no more than `most` tokens."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return text if len(offsets) <= most else text[: offsets[most - 1][1]]

    def encode_marked(self, text: str, mark: str) -> array[int]:
        """Rendered chat → ids. `mark` splits every control token that a user spelled, so that its halves stay plain text;
        without a mark this is plain encoding, with the same merges."""
        if mark not in text:
            return self.encode(text, False)
        ids: array[int] = array("I")
        for piece in text.split(mark):
            ids += self.encode(piece, False)
        return ids

    def mark_special(self, text: str, mark: str) -> str:
        """Put `mark` behind the first character of every control token spelled in `text`."""
        if not self._folds and not any(start in text for start in self._starts):
            return text  # most texts, and a request with many tools has thousands
        for spelled in self.special:
            while len(spelled) > 1 and spelled in text:  # again: occurrences may overlap
                text = text.replace(spelled, spelled[:1] + mark + spelled[1:])
        if self._folds:  # a normalizer makes control tokens of other spellings too
            text = mark.join(self._cut(piece, mark) for piece in text.split(mark))
        return text

    def _cut(self, text: str, mark: str) -> str:
        found = self._tokenizer.encode(text, add_special_tokens=False)
        pieces, done = [], 0
        for token_id, (start, end) in zip(found.ids, found.offsets, strict=True):
            if token_id in self.special_ids and token_id != self._unknown:
                pieces += [text[done:start], mark.join(text[start:end])]
                done = end
        return "".join((*pieces, text[done:]))

    def token_to_id(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def single_tokens(self, texts: Iterable[str]) -> list[int]:
        """The ids of those texts that are tokens of their own."""
        found = (self.token_to_id(text) for text in texts)
        return [token_id for token_id in found if token_id is not None]

    def token_string(self, token_id: int) -> str:
        """The vocabulary's own spelling."""
        return self._tokenizer.id_to_token(token_id) or ""

    def token_bytes(self, token_id: int, after: int | None = None) -> bytes:
        """The bytes that a token stands for inside a text. `after`, the token before it, matters to decoders that join
        words (WordPiece and others that are neither byte-level nor sentencepiece)."""
        added: bytes | None = self._added.get(token_id)
        if added is not None:
            return added.replace(_SPACE, b" ") if self._style == "pieces" else added
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        if self._style == "bytes":
            values = [self._byte_of.get(character) for character in token]
            return token.encode() if None in values else bytes(v for v in values if v is not None)
        if self._style == "pieces":
            match = _BYTE_TOKEN.fullmatch(token)
            return bytes([int(match[1], 16)]) if match else token.replace("\u2581", " ").encode()
        if after is None:
            return self.decode([token_id], False).encode()
        before, both = self.decode([after], False), self.decode([after, token_id], False)
        return both[len(before) :].encode()

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """A whole sequence as the tokenizer's own decoder gives it."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text


def _shares(first: int, second: int, room: int) -> tuple[int, int]:
    """Lengths of a pair that is longer than `room`: the longer one gives way, then both have half, the longer one more if it is odd."""
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def _decoder_style(decoder: Any) -> str:
    """ "bytes": byte-level BPE; "pieces": sentencepiece with ▁ and <0xNN>; "other": ask the library for each token."""
    kinds = [] if decoder is None else [d["type"] for d in decoder.get("decoders", [decoder])]
    if "ByteLevel" in kinds:
        return "bytes"
    if "ByteFallback" in kinds or "Metaspace" in kinds:
        return "pieces"
    return "other"


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes: printable Latin-1 stands for itself, the rest for U+0100 and up."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(value): value for value in own}
    rest = [value for value in range(256) if value not in own]
    table.update({chr(256 + index): value for index, value in enumerate(rest)})
    return table
