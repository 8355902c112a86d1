"""What crosses the socket between the front process and the engine process: the byte form of the frames in `messages`.

Frame: `<u32 length> <u8 version> <u8 kind> <payload>`, little-endian; `length` counts version, kind and payload.
Control frames carry one JSON object; `Generate` and `Step` carry a JSON head followed by packed arrays, because they
hold long lists of token ids. Both ends are the same build; the version byte catches a replaced archive.

| kind | frame    | direction      | payload                                                                       |
|------|----------|----------------|-------------------------------------------------------------------------------|
| 1    | Hello    | front → engine | JSON: engine configuration                                                    |
| 2    | Loading  | engine → front | JSON: phase, fraction, detail                                                 |
| 3    | Ready    | engine → front | JSON: limits and facts of the loaded model                                    |
| 4    | Generate | front → engine | u32 head size, JSON head (`params`, ids, tenant …), u32 token ids             |
| 5    | Abort    | front → engine | u64 sequence id                                                               |
| 6    | Step     | engine → front | u32 count, then per sequence: see `_encode_output`                            |
| 7    | Beat     | engine → front | JSON: step counter, queue sizes, cache use, counters                          |
| 8    | Failed   | engine → front | JSON: seq_id, code, message; ends that sequence                               |
| 9    | Stop     | front → engine | empty: finish nothing, exit 0                                                 |
| 10   | Embed    | front → engine | u32 head size, JSON head, u32 token ids                                       |
| 11   | Pooled   | engine → front | u64 sequence id, f32 values                                                   |
"""

from __future__ import annotations

import enum
import json
import struct
import sys
from array import array
from dataclasses import asdict, fields
from typing import Any

from vsrv.errors import FrameError
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

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 256 * 1024 * 1024  # a prompt_logprobs answer of a long prompt is the largest honest frame
_HEADER = struct.Struct("<IBB")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
# seq_id, n ids, finish reason, flags, stop token (or -1), cached tokens (or -1), n of logprob rows, k of logprob rows
_OUTPUT = struct.Struct("<QHBBiiHH")
_HAS_PROMPT_LOGPROBS = 1


class Kind(enum.IntEnum):
    HELLO = 1
    LOADING = 2
    READY = 3
    GENERATE = 4
    ABORT = 5
    STEP = 6
    BEAT = 7
    FAILED = 8
    STOP = 9
    EMBED = 10
    POOLED = 11


_JSON_FRAMES: dict[Kind, type] = {
    Kind.HELLO: Hello,
    Kind.LOADING: Loading,
    Kind.READY: Ready,
    Kind.BEAT: Beat,
    Kind.FAILED: Failed,
}
_JSON_KINDS = {cls: kind for kind, cls in _JSON_FRAMES.items()}


def encode(frame: Frame) -> bytes:
    """Frame → bytes ready for `sendall`. Raises FrameError above MAX_FRAME_BYTES."""
    if isinstance(frame, Step):
        kind, payload = Kind.STEP, _encode_step(frame)
    elif isinstance(frame, Generate):
        kind, payload = Kind.GENERATE, _encode_generate(frame)
    elif isinstance(frame, Embed):
        kind, payload = Kind.EMBED, _encode_embed(frame)
    elif isinstance(frame, Pooled):
        kind, payload = Kind.POOLED, _U64.pack(frame.seq_id) + _packed(frame.values)
    elif isinstance(frame, Abort):
        kind, payload = Kind.ABORT, _U64.pack(frame.seq_id)
    elif isinstance(frame, Stop):
        kind, payload = Kind.STOP, b""
    else:
        kind, payload = _JSON_KINDS[type(frame)], json.dumps(asdict(frame), separators=(",", ":")).encode()
    length = len(payload) + 2
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"{kind.name} frame of {length} bytes is larger than {MAX_FRAME_BYTES}")
    return _HEADER.pack(length, PROTOCOL_VERSION, kind) + payload


def decode(kind: int, payload: memoryview) -> Frame:
    """Payload of one frame → frame. Raises FrameError on anything malformed."""
    try:
        if kind == Kind.STEP:
            return _decode_step(payload)
        if kind == Kind.GENERATE:
            return _decode_generate(payload)
        if kind == Kind.EMBED:
            return _decode_embed(payload)
        if kind == Kind.POOLED:
            return Pooled(_U64.unpack_from(payload)[0], _unpacked("f", payload[_U64.size :]))
        if kind == Kind.ABORT:
            return Abort(_U64.unpack(payload)[0])
        if kind == Kind.STOP:
            return Stop()
        cls = _JSON_FRAMES[Kind(kind)]
        frame: Frame = cls(**_tuples(json.loads(bytes(payload))))
        return frame
    except (struct.error, AttributeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise FrameError(f"malformed frame of kind {kind}: {error}") from error


class FrameReader:
    """Bytes in any cut → whole frames, in order. Owned by the one reader of a socket."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame that `data` completes. Raises FrameError; the socket is useless after that."""
        self._buffer += data
        frames: list[Frame] = []
        position = 0
        with memoryview(self._buffer) as view:
            while len(view) - position >= _HEADER.size:
                length, version, kind = _HEADER.unpack_from(view, position)
                if version != PROTOCOL_VERSION:
                    raise FrameError(f"frame of protocol version {version}, expected {PROTOCOL_VERSION}")
                if not 2 <= length <= MAX_FRAME_BYTES:
                    raise FrameError(f"frame length {length} out of range")
                end = position + 4 + length
                if end > len(view):
                    break
                with view[position + _HEADER.size : end] as payload:
                    frames.append(decode(kind, payload))
                position = end
        del self._buffer[:position]
        return frames


def _tuples(head: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples; frozen dataclasses hold nothing else, one level of nesting deep."""
    return {
        key: tuple(tuple(x) if isinstance(x, list) else x for x in value)
        if isinstance(value, list)
        else value
        for key, value in head.items()
    }


def _packed(values: array[Any]) -> bytes:
    if sys.byteorder == "big":
        values = array(values.typecode, values)
        values.byteswap()
    return values.tobytes()


def _unpacked(typecode: str, view: memoryview) -> array[Any]:
    values: array[Any] = array(typecode)
    values.frombytes(view)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _headed(head: dict[str, Any], ids: array[int]) -> bytes:
    """u32 size of the head, the head as JSON, then token ids."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return _U32.pack(len(text)) + text + _packed(ids)


def _head_and_ids(payload: memoryview) -> tuple[dict[str, Any], array[int]]:
    (size,) = _U32.unpack_from(payload)
    return json.loads(bytes(payload[4 : 4 + size])), _unpacked("I", payload[4 + size :])


def _encode_generate(frame: Generate) -> bytes:
    head = {
        "seq_id": frame.seq_id,
        # not asdict: it would copy every list of ids entry by entry, on the event loop and for each choice
        "params": {row.name: getattr(frame.params, row.name) for row in fields(frame.params)},
        "cache_salt": frame.cache_salt,
        "adapter_id": frame.adapter_id,
        "priority": frame.priority,
    }
    return _headed(head, frame.prompt_token_ids)


def _decode_generate(payload: memoryview) -> Generate:
    head, ids = _head_and_ids(payload)
    params = SamplingParams(**_tuples(head.pop("params")))
    return Generate(prompt_token_ids=ids, params=params, **head)


def _encode_embed(frame: Embed) -> bytes:
    head = {
        "seq_id": frame.seq_id,
        "second_from": frame.second_from,
        "dimensions": frame.dimensions,
        "raw": frame.raw,
        "cache_salt": frame.cache_salt,
        "priority": frame.priority,
    }
    return _headed(head, frame.token_ids)


def _decode_embed(payload: memoryview) -> Embed:
    head, ids = _head_and_ids(payload)
    return Embed(token_ids=ids, **head)


def _encode_step(frame: Step) -> bytes:
    parts = [_U32.pack(len(frame.outputs))]
    for output in frame.outputs:
        _encode_output(output, parts)
    return b"".join(parts)


def _encode_output(output: TokenOutput, parts: list[bytes]) -> None:
    """Fixed record, token ids u32[n], logprobs (ids u32, values f32, ranks u32), then the same for the prompt."""
    rows = output.logprobs
    flags = _HAS_PROMPT_LOGPROBS if output.prompt_logprobs is not None else 0
    parts.append(
        _OUTPUT.pack(
            output.seq_id,
            len(output.token_ids),
            output.finish_reason,
            flags,
            -1 if output.stop_token_id is None else output.stop_token_id,
            -1 if output.num_cached_tokens is None else output.num_cached_tokens,
            0 if rows is None else rows.num_positions,
            0 if rows is None else rows.k,
        )
    )
    parts.append(_packed(output.token_ids))
    if rows is not None:
        parts += (_packed(rows.token_ids), _packed(rows.values), _packed(rows.ranks))
    prompt = output.prompt_logprobs
    if prompt is not None:
        parts.append(struct.pack("<II", prompt.num_positions, prompt.k))
        parts += (_packed(prompt.token_ids), _packed(prompt.values), _packed(prompt.ranks))


def _decode_step(payload: memoryview) -> Step:
    (count,) = _U32.unpack_from(payload)
    position = 4
    outputs: list[TokenOutput] = []
    for _ in range(count):
        output, position = _decode_output(payload, position)
        outputs.append(output)
    if position != len(payload):
        raise FrameError("bytes left over after the last output of a step")
    return Step(tuple(outputs))


def _decode_output(payload: memoryview, position: int) -> tuple[TokenOutput, int]:
    seq_id, n, reason, flags, stop, cached, rows, k = _OUTPUT.unpack_from(payload, position)
    position += _OUTPUT.size
    ids = _unpacked("I", _slice(payload, position, 4 * n))
    position += 4 * n
    logprobs = prompt = None
    if rows:
        logprobs, position = _decode_logprobs(payload, position, rows, k)
    if flags & _HAS_PROMPT_LOGPROBS:
        prompt_rows, prompt_k = struct.unpack_from("<II", payload, position)
        prompt, position = _decode_logprobs(payload, position + 8, prompt_rows, prompt_k)
    output = TokenOutput(
        seq_id,
        ids,
        FinishReason(reason),
        None if stop < 0 else stop,
        None if cached < 0 else cached,
        logprobs,
        prompt,
    )
    return output, position


def _decode_logprobs(payload: memoryview, position: int, rows: int, k: int) -> tuple[LogProbs, int]:
    cells = 4 * rows * (k + 1)
    ids = _unpacked("I", _slice(payload, position, cells))
    values = _unpacked("f", _slice(payload, position + cells, cells))
    ranks = _unpacked("I", _slice(payload, position + 2 * cells, 4 * rows))
    return LogProbs(k, ids, values, ranks), position + 2 * cells + 4 * rows


def _slice(payload: memoryview, position: int, size: int) -> memoryview:
    if position + size > len(payload):
        raise FrameError("step frame shorter than its records say")
    return payload[position : position + size]
