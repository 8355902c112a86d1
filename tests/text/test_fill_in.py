"""Fill in the middle: each model family's own order of prefix, suffix and control tokens, from its public documents."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
import tokenizers

from vsrv.api.prepare import Preparer
from vsrv.api.schema import ModelFacts
from vsrv.errors import UserError
from vsrv.text.fill_in import FORMATS, format_of, joined, stop_ids
from vsrv.text.tokenizer import Tokenizer

PREFIX, SUFFIX = "def f(x):\n    return ", "\n\nprint(f(1))"
# name → the prompt as its source spells it
SPELLED = {
    "qwen2.5-coder": f"<|fim_prefix|>{PREFIX}<|fim_suffix|>{SUFFIX}<|fim_middle|>",
    "starcoder": f"<fim_prefix>{PREFIX}<fim_suffix>{SUFFIX}<fim_middle>",
    "deepseek-coder": f"<｜fim▁begin｜>{PREFIX}<｜fim▁hole｜>{SUFFIX}<｜fim▁end｜>",
    "codestral": f"[SUFFIX]{SUFFIX}[PREFIX]{PREFIX}",
}


def byte_level(folder: Path, special: list[str], bos: str | None = None) -> Tokenizer:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    special = [*([bos] if bos else []), *special]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, show_progress=False, initial_alphabet=alphabet
    )
    made.train_from_iterator([PREFIX, SUFFIX] * 5, trainer)
    if bos:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, made.token_to_id(bos))]
        )
    made.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


def sentencepiece_style(folder: Path, special: list[str]) -> Tokenizer:
    """As CodeLlama's: ▁ for spaces and one in front of a text, <0xNN> for bytes, <s> in front."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    pieces += ["▁", *sorted(set("deftrunpi():x1 ") - {" "}), "de", "def", "▁def", "re"]
    merges = [("d", "e"), ("de", "f"), ("▁", "def"), ("r", "e")]
    model = tokenizers.models.BPE(
        {piece: index for index, piece in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )  # fmt: skip
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    made.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
    )
    made.add_special_tokens(["<s>", "</s>", *special])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    made.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


@pytest.mark.parametrize("name", SPELLED)
@pytest.mark.parametrize("bos", [None, "<s>"])
def test_the_prompt_is_the_one_that_the_source_spells(tmp_path: Path, name: str, bos: str | None) -> None:
    row = next(row for row in FORMATS if row.name == name)
    tokenizer = byte_level(tmp_path, [*row.tokens, *row.stops], bos)
    assert format_of(tokenizer) is row
    ids = joined(tokenizer, row, tokenizer.encode(PREFIX, False), SUFFIX)
    assert ids == tokenizer.encode(SPELLED[name], True)
    assert len(stop_ids(tokenizer, row)) == len(row.stops)
    begun = joined(tokenizer, row, tokenizer.encode(PREFIX, True), SUFFIX)  # ids that have the start already
    assert begun == ids


def test_codellama_puts_no_space_in_front_of_the_suffix(tmp_path: Path) -> None:
    tokens = ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
    tokenizer = sentencepiece_style(tmp_path, tokens)
    row = format_of(tokenizer)
    assert row is not None and row.name == "codellama"
    ids = joined(tokenizer, row, tokenizer.encode("def", False), "ret")
    spelled = [tokenizer.token_string(token) for token in ids]
    # infilling_prompt_tokens: [bos, PRE] + encode(prefix) + [SUF] + encode_infilling(suffix) + [MID]
    assert spelled == ["<s>", "▁<PRE>", "▁def", "▁<SUF>", "re", "t", "▁<MID>"]
    assert stop_ids(tokenizer, row) == (tokenizer.token_to_id("▁<EOT>"),)


def test_a_model_without_such_tokens_has_no_convention(tmp_path: Path) -> None:
    assert format_of(byte_level(tmp_path, ["<|fim_prefix|>", "<|fim_suffix|>"])) is None


def test_a_completion_with_a_suffix(tmp_path: Path) -> None:
    row = FORMATS[0]
    tokenizer = byte_level(tmp_path, [*row.tokens, "<|endoftext|>", "<|file_sep|>"])
    preparer = Preparer(tokenizer, None, ModelFacts(("m",), 200, tokenizer.vocab_size, 20, 0))
    body = b'{"prompt": ["a", "b c"], "suffix": "d", "stop_token_ids": [7], "max_tokens": 5}'
    prepared = preparer.prepare("completions", body)
    expected = [f"<|fim_prefix|>{text}<|fim_suffix|>d<|fim_middle|>" for text in ("a", "b c")]
    assert prepared.prompts == [tokenizer.encode(text, True) for text in expected]
    assert prepared.request is not None
    stops = prepared.request.params.stop_token_ids
    assert stops[0] == 7 and tokenizer.token_to_id("<|file_sep|>") in stops
    plain = preparer.prepare("completions", b'{"prompt": "a", "suffix": ""}')
    assert plain.prompts == [array("I", tokenizer.encode("a", True))]


@pytest.mark.parametrize("name", ["echo", "truncate_prompt_tokens"])
def test_what_does_not_go_with_a_suffix(tmp_path: Path, name: str) -> None:
    tokenizer = byte_level(tmp_path, list(FORMATS[0].tokens))
    preparer = Preparer(tokenizer, None, ModelFacts(("m",), 200, tokenizer.vocab_size, 20, 0))
    value = b"true" if name == "echo" else b"3"
    with pytest.raises(UserError) as refusal:
        preparer.prepare("completions", b'{"prompt": "a", "suffix": "d", "%s": %s}' % (name.encode(), value))
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (400, "invalid_value", name)
