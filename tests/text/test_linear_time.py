"""What reads a client's text does work that grows with its length and not faster, on input made to hurt (rule R15).

Work is counted where the code can count it; C code (regular expressions, the JSON parser) is compared by processor time
at two sizes: four times the input may take ten times as long at most; a quadratic reader takes sixteen times as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from vsrv.api.fields import parse_object
from vsrv.errors import UserError
from vsrv.text.grammar import _EBNF, _IGNORED_OPTION, _RULE
from vsrv.text.stops import StopMatcher


class Counted(list[dict[str, int]]):
    """The transitions of an automaton, counting how often they are looked at."""

    looks = 0

    def __getitem__(self, index: int) -> dict[str, int]:  # type: ignore[override]
        self.looks += 1
        return super().__getitem__(index)


def looks(stops: tuple[str, ...], text: str) -> int:
    matcher = StopMatcher(stops)
    counted = Counted(matcher._next)
    matcher._next = counted  # type: ignore[assignment]
    state = 0
    for character in text:
        state = matcher.step(state, character)
    return counted.looks


A = "a" * 254
HOSTILE = (A + "z", *(A[: 16 * place] + "b" * (250 - 16 * place) for place in range(1, 15)), "ab" * 127 + "c")


@pytest.mark.parametrize("text", ["a", "ab", "a" * 253 + "c", "aab", "xyz"])
def test_stop_strings_cost_the_same_for_every_character(text: str) -> None:
    for length in (2000, 4000, 8000):
        whole = (text * length)[:length]
        # one look that leads on, and as many that fall back as led on before
        assert looks(HOSTILE, whole) <= 4 * length


def seconds(work: Callable[[], object]) -> float:
    best = 1e9
    for _ in range(5):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


OPEN = b'{"a":' + b"[" * 34
BODIES = {
    "escaped quotes in a string that never ends": lambda n: OPEN + b'"' + b'\\"' * n,
    "quotes": lambda n: OPEN + b'"' * (2 * n + 1),
    "backslashes": lambda n: OPEN + b'"' + b"\\" * (2 * n + 1),
    "brackets": lambda n: b'{"a":' + b"[" * n,
    "a long string": lambda n: OPEN + b'"' + b"x" * n + b'"',
    "a long number": lambda n: b'{"a":' + b"1" * n + b"}",
}


@pytest.mark.parametrize("name", BODIES)
def test_the_nesting_of_a_body_is_found_in_one_pass(name: str) -> None:
    def read(size: int) -> float:
        body = BODIES[name](size)

        def work() -> None:
            with pytest.raises(UserError):
                parse_object(body)

        return seconds(work)

    assert read(400_000) < 10 * max(read(100_000), 1e-3)


@pytest.mark.parametrize("pattern", [_EBNF, _IGNORED_OPTION, _RULE], ids=["ebnf", "option", "rule"])
@pytest.mark.parametrize("unit", ["\n", " ", "a", "a[", "a \n", "\t\n "], ids=repr)
def test_the_kind_of_a_grammar_is_found_in_one_pass(pattern: object, unit: str) -> None:
    def search(size: int) -> float:
        text = (unit * size)[:size]
        return seconds(lambda: pattern.search(text))  # type: ignore[attr-defined]

    assert search(40_000) < 10 * max(search(10_000), 1e-3)
