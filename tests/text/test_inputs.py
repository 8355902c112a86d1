"""Texts and pairs in the form that an encoder was trained with, against transformers' fast tokenizer over the same file."""

from __future__ import annotations

import random
from array import array
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from tokenizers import models, pre_tokenizers, processors

from vsrv.text.tokenizer import Cut, Tokenizer

WORDS = "the a dog cat sun ##s ##ing runs sleep red blue green , . what is of".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def word_pieces(folder: Path) -> Tokenizer:
    """As BERT: [CLS] A [SEP] B [SEP], the second text of type 1."""
    made = tokenizers.Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made.add_special_tokens(SPECIAL)
    made.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


def byte_pairs(folder: Path) -> Tokenizer:
    """As RoBERTa: <s> A </s></s> B </s>, all of type 0."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    made.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


def encoded(tokenizer: Tokenizer, first: str, second: str | None, cut: Cut | None) -> tuple[array[int], int]:
    """Alone, or as the last of three pairs with the same first text."""
    if second is None:
        return tokenizer.encode_input(first, True, cut)
    return list(tokenizer.encode_pairs(first, ["the dog " * 9, "", second], cut))[-1]


@pytest.mark.parametrize("build", [word_pieces, byte_pairs])
@pytest.mark.parametrize("side", ["right", "left"])
def test_inputs_are_cut_and_dressed_as_transformers_does(build: Any, side: str, tmp_path: Path) -> None:
    tokenizer = build(tmp_path)
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), truncation_side=side
    )
    chance = random.Random(4)
    for _ in range(150):
        first = " ".join(chance.choices(WORDS, k=chance.randrange(0, 9)))
        second = " ".join(chance.choices(WORDS, k=chance.randrange(1, 9))) if chance.random() < 0.7 else None
        length = chance.randrange(4, 14)
        for cut in (None, Cut(length, side)):
            ids, second_from = encoded(tokenizer, first, second, cut)
            truncating = {} if cut is None else {"truncation": "longest_first", "max_length": length}
            expected = reference(first, second, return_token_type_ids=True, **truncating)
            assert ids.tolist() == expected["input_ids"], (first, second, cut)
            types = [int(index >= second_from) for index in range(len(ids))]
            assert types == expected["token_type_ids"]


def test_without_special_tokens_nothing_is_added(tmp_path: Path) -> None:
    tokenizer = word_pieces(tmp_path)
    assert tokenizer.encode_input("the dog", False, None) == (tokenizer.encode("the dog", False), 2)
    assert tokenizer.encode_input("the dog sleep", False, Cut(2))[0] == tokenizer.encode("the dog", False)


def test_the_first_tokens_of_a_text_are_its_beginning(tmp_path: Path) -> None:
    tokenizer = word_pieces(tmp_path)
    text = "the dogs, what"
    assert [tokenizer.first_tokens(text, most) for most in (1, 2, 3, 4, 9)] == [
        "the",
        "the dog",
        "the dogs",
        "the dogs,",
        text,
    ]
