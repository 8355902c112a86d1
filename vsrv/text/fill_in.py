"""Fill in the middle: where prefix and suffix of a text stand among a model's own control tokens, by a table of conventions."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from vsrv.text.tokenizer import Tokenizer

PREFIX, SUFFIX = object(), object()
_ANCHOR = "☺"  # in front of a suffix, so that sentencepiece puts no space there


@dataclass(frozen=True, slots=True)
class FillIn:
    """`order`: control tokens, and PREFIX and SUFFIX where the two texts go. `stops`: tokens that end the middle, where the model has them."""

    name: str
    order: tuple[object, ...]
    stops: tuple[str, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(item for item in self.order if isinstance(item, str))


# A model has a convention if it has all of its tokens; the first such row counts.
FORMATS = (
    # Qwen2.5-Coder's README ("Fill in the middle"), and CodeGemma's model card with the same three
    FillIn(
        "qwen2.5-coder",
        ("<|fim_prefix|>", PREFIX, "<|fim_suffix|>", SUFFIX, "<|fim_middle|>"),
        (
            "<|endoftext|>",
            "<|fim_prefix|>",
            "<|fim_middle|>",
            "<|fim_suffix|>",
            "<|fim_pad|>",
            "<|repo_name|>",
            "<|file_sep|>",
            "<|file_separator|>",
        ),
    ),
    # model card of bigcode/starcoder2; Granite Code has the same
    FillIn(
        "starcoder",
        ("<fim_prefix>", PREFIX, "<fim_suffix>", SUFFIX, "<fim_middle>"),
        ("<|endoftext|>", "<file_sep>"),
    ),
    # facebookresearch/codellama, infilling_prompt_tokens (prefix, suffix, middle)
    FillIn("codellama", ("▁<PRE>", PREFIX, "▁<SUF>", SUFFIX, "▁<MID>"), ("▁<EOT>",)),
    # README of deepseek-ai/DeepSeek-Coder ("Code Insertion")
    FillIn(
        "deepseek-coder",
        ("<｜fim▁begin｜>", PREFIX, "<｜fim▁hole｜>", SUFFIX, "<｜fim▁end｜>"),
        ("<｜end▁of▁sentence｜>",),
    ),
    # mistral-common, encode_fim: the suffix comes first
    FillIn("codestral", ("[SUFFIX]", SUFFIX, "[PREFIX]", PREFIX)),
)


def format_of(tokenizer: Tokenizer) -> FillIn | None:
    """The convention that a tokenizer has the tokens of, or None."""
    for row in FORMATS:
        if all(tokenizer.token_to_id(token) is not None for token in row.tokens):
            return row
    return None


def joined(tokenizer: Tokenizer, row: FillIn, prefix: array[int], suffix: str) -> array[int]:
    """Prompt of a completion between `prefix` (without what the tokenizer puts in front of a text) and `suffix`."""
    start = tokenizer.encode("", True)
    if start and prefix[: len(start)] == start:
        prefix = prefix[len(start) :]
    ids = start[:]
    for item in row.order:
        if item is PREFIX:
            ids += prefix
        elif item is SUFFIX:
            ids += _continued(tokenizer, suffix)
        elif isinstance(item, str):
            token = tokenizer.token_to_id(item)
            assert token is not None  # format_of looked
            ids.append(token)
    return ids


def stop_ids(tokenizer: Tokenizer, row: FillIn) -> tuple[int, ...]:
    found = (tokenizer.token_to_id(token) for token in row.stops)
    return tuple(token for token in found if token is not None)


def _continued(tokenizer: Tokenizer, text: str) -> array[int]:
    """Ids of a text that does not begin one."""
    anchor, both = tokenizer.encode(_ANCHOR, False), tokenizer.encode(_ANCHOR + text, False)
    if both[: len(anchor)] == anchor:
        return both[len(anchor) :]
    return tokenizer.encode(text, False)
