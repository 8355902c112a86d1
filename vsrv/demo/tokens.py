"""Tokenizer of the demo model: training it, writing its files, and turning dialogues into token ids with loss weights."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from vsrv.demo.dialogue import Dialogue

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (PAD, START, END)

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

# The first tokens of an answer hold the decision, the rest is recital; questions are learned lightly, because guessing
# a question's next word teaches which words are alike. Loss is taken on a random share of the tokens, which saves time.
DECISION_TOKENS = 12
RECITAL_SHARE = 0.35
QUESTION_SHARE = 0.2
QUESTION_WEIGHT = 0.5


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer with three special tokens (ids 0 to 2)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json."""
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in SPECIAL
    }
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "bos_token": None,
            "eos_token": END,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_length,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    write_json(
        folder / "generation_config.json",
        {
            "do_sample": True,
            "temperature": 0.1,
            "top_p": 0.9,
            "eos_token_id": [end, pad],
            "pad_token_id": pad,
        },
    )


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` indented, with a newline at the end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids and, for each, the weight of its loss as a target (0: not learned)."""

    ids: list[int]
    weights: list[float]


class Encoder:
    """Turns dialogues into samples; the ids equal those of the chat template except where words are split on purpose."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.start = tokenizer.token_to_id(START)
        self.end = tokenizer.token_to_id(END)
        self.newline = self._ids("\n")

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def prompt(self, messages: list[tuple[str, str]]) -> list[int]:
        """Ids of (role, content) messages followed by the start of an answer."""
        text = "".join(f"{START}{role}\n{content}{END}\n" for role, content in messages)
        return self._ids(text + f"{START}assistant\n")

    def sample(self, dialogue: Dialogue, rng: random.Random, cut: float) -> Sample:
        """With probability `cut` the last answer ends after its first tokens, which spares time for more questions."""
        ids: list[int] = []
        weights: list[float] = []

        def add(new: list[int], weight: float, share: float = 1.0) -> None:
            ids.extend(new)
            weights.extend(weight if share == 1.0 or rng.random() < share else 0.0 for _ in new)

        if dialogue.system:
            add([self.start, *self._ids("system\n" + dialogue.system), self.end, *self.newline], 0.0)
        for index, turn in enumerate(dialogue.turns):
            add([self.start, *self._ids("user\n")], 0.0)
            add(self._question(turn.question, rng), QUESTION_WEIGHT, QUESTION_SHARE)
            add([self.end, *self.newline, self.start, *self._ids("assistant\n")], 0.0)
            answer = [*self._ids(turn.answer), self.end]
            add(answer[:DECISION_TOKENS], 1.0)
            if index == len(dialogue.turns) - 1 and rng.random() < cut:
                break
            add(answer[DECISION_TOKENS:], 1.0, RECITAL_SHARE)
            add(self.newline, 0.0)
        return Sample(ids, weights)

    def _question(self, text: str, rng: random.Random) -> list[int]:
        """Sometimes splits words at random places: the model then also knows words by their unusual pieces."""
        if rng.random() < 0.7:
            return self._ids(text)
        ids: list[int] = []
        piece = ""
        for word in re.findall(r"\s*\S+", text):
            if len(word) > 3 and rng.random() < 0.15:
                at = rng.randrange(2, len(word))
                ids += self._ids(piece + word[:at])
                piece = word[at:]
            else:
                piece += word
        return ids + self._ids(piece)
