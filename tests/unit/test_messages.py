"""Frames survive the socket in any cut, and malformed bytes are refused."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsrv.errors import FrameError
from vsrv.frames import FrameReader, encode
from vsrv.messages import (
    Abort,
    Beat,
    Embed,
    Failed,
    FinishReason,
    Frame,
    Generate,
    Hello,
    Loading,
    LogProbs,
    Pooled,
    Ready,
    SamplingParams,
    Step,
    Stop,
    TokenOutput,
)

LOGPROBS = LogProbs(
    1, array("I", [5, 6, 7, 8]), array("f", [-0.5, -0.25, -1.5, -0.125]), array("I", [3, 2**31])
)
FRAMES: list[Frame] = [
    Hello({"model": "m", "hf_overrides": {"a": [1, 2]}}),
    Loading("weights", 0.5, "2 of 4"),
    Ready(512, 1024, 64, 2048, 32, 100, 20, "bfloat16", "cpu", "LlamaForCausalLM", budget=("a", "b")),
    Generate(
        2**63,
        array("I", range(300)),
        SamplingParams(
            max_tokens=5,
            logit_bias=((1, -100.0), (2, 0.5)),
            bad_words=((1, 2), (3,)),
            stop_token_ids=(9,),
            seed=-5,
        ),
        cache_salt="é",
        priority=-3,
    ),
    Embed(2**63 + 1, array("I", range(70)), 40, 256, True, "é", 2),
    Embed(7, array("I", [2**31]), 1),
    Pooled(2**63 + 1, array("f", [0.5, -0.25, 1e-30])),
    Ready(512, 64, 8, 64, 32, 0, 20, "float32", "cpu", "BertModel", ("embed",), ("a",), 384, True, (64, 128)),
    Abort(2**64 - 1),
    Step(
        (
            TokenOutput(1, array("I", [4, 2**31]), FinishReason.STOP, 4, 0, LOGPROBS, LOGPROBS),
            TokenOutput(2, array("I"), FinishReason.ABORT),
        )
    ),
    Step(()),
    Beat(7, 1, 2, 0.25, {"prompt_tokens": 3.0}, (1, 0, 2)),
    Failed(3, "engine_error", "bad"),
    Stop(),
]


@given(st.lists(st.integers(1, 400), max_size=12))
@settings(deadline=None)
def test_round_trip_over_any_cut(cuts: list[int]) -> None:
    data = b"".join(encode(frame) for frame in FRAMES)
    reader, received, position = FrameReader(), [], 0
    for cut in [*cuts, len(data)]:
        received += reader.feed(data[position : position + cut])
        position += cut
    received += reader.feed(data[position:])
    assert received == FRAMES


@pytest.mark.parametrize(
    "data",
    [
        b"\x02\x00\x00\x00\x09\x05",  # another protocol version
        b"\x01\x00\x00\x00\x01\x05",  # length below the header's own
        b"\xff\xff\xff\xff\x01\x05",  # larger than MAX_FRAME_BYTES
        b"\x03\x00\x00\x00\x01\x05\x00",  # Abort of one byte
        b"\x04\x00\x00\x00\x01\x63{}",  # unknown kind
        b"\x04\x00\x00\x00\x01\x02[]",  # Loading that is no object
        b"\x06\x00\x00\x00\x01\x06\x01\x00\x00\x00",  # Step that announces an output and has none
    ],
)
def test_malformed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(data)


@given(st.binary(max_size=200))
def test_random_step_payloads_never_raise_anything_else(payload: bytes) -> None:
    frame = (len(payload) + 2).to_bytes(4, "little") + b"\x01\x06" + payload
    try:
        FrameReader().feed(frame)
    except FrameError:
        return
