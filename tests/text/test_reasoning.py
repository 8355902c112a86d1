"""Thinking and answer come apart the same way in every cut.

Outputs: [v] vLLM's tests/reasoning/test_<format>_reasoning_parser.py (tags and which text belongs where; the line breaks beside tags,
which vLLM keeps, are taken off as Qwen3's and DeepSeek's own templates do when they read an answer back), [c] the model cards of
Qwen/Qwen3-0.6B, deepseek-ai/DeepSeek-R1 and mistralai/Magistral-Small-2507.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsrv.text.reasoning import FORMATS, ReasoningSplitter, detect_format


class Sample(NamedTuple):
    form: str
    inside: bool
    output: str
    reasoning: str
    content: str


SAMPLES = [
    Sample("qwen3", False, "<think>This is a reasoning section</think>This is the rest", "This is a reasoning section", "This is the rest"),  # [v]
    Sample("qwen3", False, "<think>\nOkay, so\n\nhm\n</think>\n\nThe answer\n\nis 4.\n", "Okay, so\n\nhm", "The answer\n\nis 4.\n"),  # [c]
    Sample("qwen3", True, "Okay, so</think>\n\nYes", "Okay, so", "Yes"),
    Sample("qwen3", False, "<think>This is a reasoning section</think>", "This is a reasoning section", ""),  # [v]
    Sample("qwen3", False, "<think>This is cut\n", "This is cut\n", ""),
    Sample("qwen3", False, "<think>\n\n</think>\n\nYes", "", "Yes"),  # [c] thinking switched off
    Sample("qwen3", False, "\n A < b, <think>no tag</think>", "", "\n A < b, <think>no tag</think>"),
    Sample("qwen3", False, "<thin", "", "<thin"),
    Sample("qwen3", True, "a </thin\n\n", "a </thin\n\n", ""),
    Sample("qwen3", True, "call it\n<tool_call>\n{}", "call it", "<tool_call>\n{}"),  # [v] <tool_call> ends reasoning
    Sample("deepseek_r1", False, "This is a reasoning section</think>This is the rest", "This is a reasoning section", "This is the rest"),  # [v]
    Sample("deepseek_r1", False, "<think>This is a reasoning section</think>", "This is a reasoning section", ""),  # [v]
    Sample("deepseek_r1", False, "This is content", "This is content", ""),  # [v] no end tag
    Sample("deepseek_r1", True, "This\nThat</think>This is the rest\nThat", "This\nThat", "This is the rest\nThat"),  # [v]
    Sample("mistral", False, "[THINK]This is a reasoning section[/THINK]This is the rest", "This is a reasoning section", "This is the rest"),  # [v]
    Sample("mistral", False, "This is content", "", "This is content"),  # [v]
    Sample("granite", False, "Here is my thought process:This is a reasoning sectionHere is my response:This is the rest",
           "This is a reasoning section", "This is the rest"),  # [v]
    Sample("granite", False, "Here's my thought process:This\nThatHere's my response:This is the rest\nThat", "This\nThat",
           "This is the rest\nThat"),  # [v]
    Sample("granite", False, "Here is my answer", "", "Here is my answer"),
]  # fmt: skip


def split(sample_form: str, inside: bool, pieces: list[str]) -> tuple[str, str]:
    form = FORMATS[sample_form]
    splitter = ReasoningSplitter(form, inside, ("<tool_call>",) if form.until_calls else ())
    found = [*(splitter.feed(piece) for piece in pieces), splitter.finish()]
    return "".join(one.reasoning for one in found), "".join(one.content for one in found)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: f"{s.form}-{s.output[:30]!r}")
def test_every_sample_in_every_cut(sample: Sample) -> None:
    text, expected = sample.output, (sample.reasoning, sample.content)
    assert split(sample.form, sample.inside, [text]) == expected
    assert split(sample.form, sample.inside, list(text)) == expected
    for cut in range(1, len(text)):
        assert split(sample.form, sample.inside, [text[:cut], text[cut:]]) == expected, f"cut at {cut}"


PIECES = st.sampled_from(["<think>", "</think>", "\n", "<", "</", "a", " ", "<tool_call>", "think>"])


@given(
    st.sampled_from(["qwen3", "deepseek_r1"]),
    st.booleans(),
    st.lists(PIECES, max_size=14),
    st.integers(0, 60),
)
def test_any_text_comes_apart_the_same_in_any_cut(
    form: str, inside: bool, parts: list[str], cut: int
) -> None:
    text = "".join(parts)
    whole = split(form, inside, [text])
    assert split(form, inside, list(text)) == split(form, inside, [text[:cut], text[cut:]]) == whole
    letters = str.maketrans("", "", "\n ")  # white space in front of the first tag goes with it
    kept = text.translate(letters)
    assert len(kept) - len("".join(whole).translate(letters)) in (0, 7, 8, 15), (
        "nothing but the tags is taken"
    )


def test_prompts_say_whether_thinking_is_open() -> None:
    """Endings that Qwen3's and QwQ's templates give."""
    form = FORMATS["qwen3"]
    assert form.state_after("<|im_start|>assistant\n<think>\n") is True
    assert form.state_after("<|im_start|>assistant\n<think>\n\n</think>\n\n") is False
    assert (
        form.state_after("<|im_start|>user\nwhat is <think> for?<|im_end|>\n<|im_start|>assistant\n") is None
    )


def test_templates_name_their_format() -> None:
    assert detect_format("{%- if '</think>' in content %}") == "qwen3"
    assert detect_format("[THINK]{{ block.thinking }}[/THINK]") == "mistral"
    assert detect_format("{{ message.content }}") == ""
