"""The fuzzer's targets hold for their seeds and what is near them, so that tests/fuzz/fuzz.py finds them in working order."""

from __future__ import annotations

import random

import pytest
from targets import DIALECTS, KEYS, TARGETS, preparer, requests

from vsrv.keyfile import parse


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_mutations(name: str) -> None:
    target, dice = TARGETS[name], random.Random(7)
    for seed in target.seeds:
        target.run(seed)
        for _ in range(300):
            data = bytearray(seed)
            for _ in range(dice.randint(1, 4)):
                at = dice.randrange(len(data))
                data[at : at + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
                data = data or bytearray(b"x")
            target.run(bytes(data))


def test_the_seeds_are_taken() -> None:
    """Else mutations would never get beyond the first check."""
    for seed in TARGETS["connection"].seeds:
        assert requests(seed)
    assert parse(KEYS).keys and parse(KEYS).tenants
    for seed in TARGETS["request"].seeds:
        assert preparer().prepare(DIALECTS[seed[0]], seed[1:]).prompts
