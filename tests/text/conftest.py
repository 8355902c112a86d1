"""Two small tokenizers made with the `tokenizers` library, each as vsrv reads it and as transformers reads it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from vsrv.text.tokenizer import Tokenizer

CORPUS = [
    "Hello, the quick brown fox jumps over the lazy dog.",
    "naïve café Ωμέγα привет мир",
    "東京タワー 日本語 한국어 🙂👩‍👩‍👧 emoji",
    "def f(x):\n    return x * 2\n\n0123456789",
]


class Pair(NamedTuple):
    """The same tokenizer.json twice."""

    own: Tokenizer
    reference: transformers.PreTrainedTokenizerFast
    folder: Path


def pair_of(made: tokenizers.Tokenizer, folder: Path) -> Pair:
    made.save(str(folder / "tokenizer.json"))
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), clean_up_tokenization_spaces=False
    )
    return Pair(Tokenizer(folder), reference, folder)


def byte_level_tokenizer() -> tokenizers.Tokenizer:
    """As GPT-2, Qwen and Llama 3: a byte alphabet, merges, control tokens; one added token that is not a control token."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(CORPUS * 3, trainer)
    made.add_tokens(["<think>", "両 端"])
    return made


def pieces_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary.update({f"<0x{value:02X}>": 3 + value for value in range(256)})
    for character in dict.fromkeys("▁" + "".join(CORPUS[:2]) + "<>/s京"):
        if character != " ":
            vocabulary[character] = len(vocabulary)
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("l", "l"), ("he", "ll"), ("▁", "▁"), ("▁▁", "▁▁")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    return vocabulary, merges


def pieces_tokenizer(kind: str) -> tokenizers.Tokenizer:
    """As sentencepiece models are converted: "llama" (normalizer and decoder of Llama 2) or "metaspace" (Mistral's later form)."""
    vocabulary, merges = pieces_vocabulary()
    made = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if kind == "llama":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(spaces)
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.add_tokens([tokenizers.AddedToken("▁▁", normalized=False)])  # as Gemma lists its runs of spaces
    return made


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(byte_level_tokenizer(), tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="session", params=["llama", "metaspace"])
def pieces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(pieces_tokenizer(request.param), tmp_path_factory.mktemp(request.param))
