"""Every complete output that a schema's grammar lets through is valid: 100 % of random walks, by jsonschema with its format checks.

schemas.json holds the keywords of Draft 2020-12 one by one, what pydantic and OpenAI's documentation send, and recursion.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import llguidance
import numpy as np
import pytest

import vsrv.demo
from vsrv.messages import GRAMMAR_LIMITS
from vsrv.text import grammar as grammars
from vsrv.text.grammar import JsonStyle

FOLDER = Path(vsrv.demo.__file__).parent
CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "schemas.json").read_text())
END, MAX_TOKENS = 2, 400
LIMITS = llguidance.LLParserLimits(**GRAMMAR_LIMITS)


class Walker:
    """Draws outputs of a grammar token by token, as a random model at temperature 1 would; some steps hurry to the end."""

    def __init__(self) -> None:
        text = (FOLDER / "tokenizer.json").read_text()
        self.vocabulary = llguidance.LLTokenizer(text, eos_token=END)
        pieces = [self.vocabulary.decode_bytes([i]) for i in range(self.vocabulary.vocab_size)]
        self.closing = np.array([i == END or piece[:1] in b'"]},' for i, piece in enumerate(pieces)])
        self.closing &= np.array([len(piece) > 0 or i == END for i, piece in enumerate(pieces)])

    def walk(self, grammar: str, rng: random.Random) -> str | None:
        """A whole output, None if it was not whole after MAX_TOKENS."""
        matcher = llguidance.LLMatcher(self.vocabulary, grammar, log_level=0, limits=LIMITS)
        ids: list[int] = []
        for count in range(MAX_TOKENS):
            bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
            allowed = bits[: len(self.closing)].astype(bool)
            assert not matcher.is_error(), matcher.get_error()
            assert allowed.any()
            hurried = allowed & self.closing
            if hurried.any() and rng.random() < 0.05 + count / MAX_TOKENS:
                allowed = hurried
            token = int(rng.choice(np.flatnonzero(allowed)))
            if token == END:
                break
            assert matcher.consume_token(token)
            ids.append(token)
            if matcher.is_stopped():
                break
        else:
            return None
        return self.vocabulary.decode_bytes(ids).decode()


@pytest.fixture(scope="module")
def walker() -> Walker:
    return Walker()


def test_there_are_enough_schemas() -> None:
    assert len(CASES) >= 60 and len({case["name"] for case in CASES}) == len(CASES)


def check(walker: Walker, schema: Any, seed: int, count: int) -> None:
    validator = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    complete = 0
    for number in range(count):
        style = JsonStyle(compact=number % 2 == 0)
        text = walker.walk(grammars.of_schema(schema, style), random.Random(seed + number))
        if text is not None:
            validator.validate(json.loads(text))
            complete += 1
    assert complete >= count // 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_complete_outputs_are_valid(walker: Walker, case: dict[str, Any]) -> None:
    check(walker, case["schema"], 1, 6)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_many_complete_outputs_are_valid(walker: Walker, case: dict[str, Any]) -> None:
    check(walker, case["schema"], 1000, 400)


def test_the_validator_checks_formats() -> None:
    """Without their packages jsonschema would let them all pass."""
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    names = {
        case["schema"]["format"]
        for case in CASES
        if case["name"].startswith("format ") and case["schema"]["type"] == "string"
    }
    assert len(names) == 10
    for name in names:
        with pytest.raises(jsonschema.exceptions.FormatError):
            checker.check("!", name)
