"""Tokens → answer, thinking and calls: the same however the tokens are grouped, and every token counted once."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

import pytest
import tokenizers

from vsrv.text.answer import AnswerReader, Read
from vsrv.text.detokenizer import Detokenizer, TextOptions
from vsrv.text.reasoning import FORMATS as REASONING
from vsrv.text.reasoning import ReasoningSplitter
from vsrv.text.tokenizer import Tokenizer
from vsrv.text.tools import FORMATS as TOOLS
from vsrv.text.tools import ToolScanner

TYPES = {"f": {"a": "string"}}
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "京 🙂 <think>"}}\n</tool_call>'


@pytest.fixture(scope="module")
def tokenizer(byte_level: Any, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """With the marks of Qwen3's."""
    made = tokenizers.Tokenizer.from_file(str(byte_level.folder / "tokenizer.json"))
    made.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
    folder = tmp_path_factory.mktemp("marks")
    made.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


@dataclass(frozen=True)
class Case:
    form: str
    output: str
    reasoning: str
    content: str
    arguments: list[str]
    stop: tuple[str, ...] = ()


CASES = [
    Case(
        "qwen3",
        f"<think>\nhm 🙂 né\n</think>\n\nSo: {CALL} ok",
        "hm 🙂 né",
        "So:  ok",
        ['{"a": "京 🙂 <think>"}'],
    ),
    Case("qwen3", f"{CALL}{CALL}", "", "", ['{"a": "京 🙂 <think>"}'] * 2),
    Case("qwen3", "<think>hm</think>plain text", "hm", "plain text", []),
    Case("qwen3", "<think>hm</think>plain STOP text", "hm", "plain ", [], ("STOP",)),
    Case("qwen3", "<think>hm STOP</think>plain", "hm ", "", [], ("STOP", "</thinker>")),
    Case("deepseek_r1", "hm\n\nso</think>yes", "hm\n\nso", "yes", []),
    Case("granite", "Here is my thought process: a Here is my response: b", " a ", " b", []),
]


def read(tokenizer: Tokenizer, case: Case, groups: list[list[int]]) -> tuple[str, str, list[str], int, int]:
    form = REASONING[case.form]
    ends = tokenizer.single_tokens(form.ends)
    tags = frozenset([*tokenizer.single_tokens(form.begins), *ends])
    text = Detokenizer(tokenizer, TextOptions(case.stop))
    scanner = ToolScanner(TOOLS["hermes"], TYPES)
    reader = AnswerReader(text, ReasoningSplitter(form, False), scanner, tags, frozenset(ends))
    reads: list[Read] = []
    for group in groups:
        reads.append(reader.feed(group))
        if reader.stopped is not None:
            break
    reads.append(reader.finish())
    arguments: list[str] = []
    for call in (call for one in reads for call in one.calls):
        if call.name:
            arguments.append("")
        else:
            arguments[-1] += call.arguments
    used, thought = sum(one.num_used for one in reads), sum(one.num_reasoning for one in reads)
    return "".join(r.reasoning for r in reads), "".join(r.content for r in reads), arguments, used, thought


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.form}-{case.output[:20]!r}")
def test_every_grouping_of_tokens_reads_the_same(tokenizer: Tokenizer, case: Case) -> None:
    ids = list(tokenizer.encode(case.output, False))
    one_by_one = read(tokenizer, case, [[token] for token in ids])
    assert one_by_one[:3] == (case.reasoning, case.content, case.arguments)
    assert one_by_one[3] == len(ids) or case.stop
    assert read(tokenizer, case, [ids]) == one_by_one
    chance = random.Random(case.output)
    for _ in range(20):
        cuts = [0, *sorted(chance.randrange(len(ids) + 1) for _ in range(4)), len(ids)]
        assert read(tokenizer, case, [ids[a:b] for a, b in itertools.pairwise(cuts)]) == one_by_one


def test_tokens_of_the_thinking_are_counted_without_the_tags(tokenizer: Tokenizer) -> None:
    case = CASES[2]
    ids = list(tokenizer.encode(case.output, False))
    *_, thought = read(tokenizer, case, [ids])
    assert thought == len(tokenizer.encode("hm", False))
