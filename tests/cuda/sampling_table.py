"""Sampling parameters that every twin of the sampling kernel is held to the specification with."""

from __future__ import annotations

from typing import Any

SAMPLINGS: list[dict[str, Any]] = [
    dict(temperature=0.0),
    dict(temperature=0.0, repetition_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.3),
    dict(temperature=1.0),
    dict(temperature=0.6, top_k=7),
    dict(temperature=1.3, top_p=0.7),
    dict(temperature=0.9, min_p=0.1),
    dict(temperature=1.1, top_k=30, top_p=0.9, min_p=0.01, repetition_penalty=1.1),
    dict(temperature=0.01),
    dict(temperature=1.0, allowed_token_ids=(3, 40, 90), logit_bias=((3, 5.0), (7, 90.0))),
    dict(temperature=0.8, logit_bias=((9, -100.0), (11, 4.0)), bad_words=((11,), (5, 12), (1, 2, 3, 4))),
    dict(temperature=1.0, min_tokens=9, stop_token_ids=(1, 2), eos_token_id=0, top_k=3),
    dict(temperature=1.0, presence_penalty=-1.5, frequency_penalty=2.0, top_p=0.95),
]
