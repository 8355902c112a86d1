"""The memory budget, decided before anything large is allocated, and said in words when something does not fit."""

from __future__ import annotations

import os
from dataclasses import dataclass

from vsrv import host
from vsrv.config import EngineConfig
from vsrv.errors import ConfigError
from vsrv.kernels.facts import CacheFacts
from vsrv.models.encoder import EncoderSpec
from vsrv.models.spec import ModelSpec

_CPU_SHARE = 0.30  # of what the host or cgroup leaves after the weights
_CPU_MAX_NUM_SEQS = 64
ENCODER_MAX_NUM_SEQS = 256
# the packed GEMM is at its limit from 256 rows on; more only delays other streams
_CPU_MAX_BATCHED_TOKENS = 512
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Budget:
    """What was decided. `lines` is the table shown at start."""

    num_blocks: int
    block_bytes: int  # K and V of one block over all layers
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    lines: tuple[str, ...]
    weight_bytes: int
    step_bytes: int  # buffers of the largest step


@dataclass(frozen=True, slots=True)
class Room:
    """What a device offers: bytes for weights and everything else, and its own defaults.

    `share` of what the weights leave goes to the KV cache. With `fills` the cache takes all of it (a GPU has no other use for it), after
    `reserve_bytes` and the buffers of a step; else no more than all sequences can use.
    """

    free_bytes: int
    share: float
    max_num_seqs: int
    max_num_batched_tokens: int
    fills: bool = False
    reserve_bytes: int = 0
    workers: str = ""
    max_encoder_tokens: int = (
        1024  # of a step; one that is longer costs others' latency and gains nothing on a CPU
    )


def host_room(num_threads: int) -> Room:
    cores = host.num_cores()
    return Room(
        host.available_bytes(),
        _CPU_SHARE,
        _CPU_MAX_NUM_SEQS,
        _CPU_MAX_BATCHED_TOKENS,
        workers=f"{num_threads} threads" + (f" on {cores} cores" if num_threads > cores else ""),
    )


def plan_memory(config: EngineConfig, spec: ModelSpec, kernels: CacheFacts, dtype: str, room: Room) -> Budget:
    """Fit the KV cache: an explicit size is taken, else what `room` says of max_num_seqs x max_model_len and what is left.

    Raises ConfigError, with the flags that would work, if not even one sequence of the asked length fits.
    """
    block_size = kernels.block_size
    if config.block_size not in (None, block_size):
        raise ConfigError(
            f"--block-size {config.block_size}: the {kernels.name} kernels have blocks of {block_size} tokens",
            f"--block-size {block_size}",
        )
    if config.kv_cache_dtype not in ("auto", dtype):
        raise ConfigError(
            f"--kv-cache-dtype {config.kv_cache_dtype}: the KV cache has the weights' type, here {dtype}; change --dtype",
            f"--kv-cache-dtype {dtype}",
        )
    k_bytes, v_bytes = kernels.kv_block_bytes(spec.num_kv_heads, spec.head_dim, dtype)
    block_bytes = (k_bytes + v_bytes) * spec.num_layers
    weight_bytes = spec.num_parameters * _DTYPE_BYTES[dtype]
    length = _model_len(config, spec)
    seqs = config.max_num_seqs or room.max_num_seqs
    batched = max(config.max_num_batched_tokens or room.max_num_batched_tokens, 1)
    buffers = step_bytes(spec, kernels.activation_dtype or dtype, seqs, batched)
    _check_weights(config, weight_bytes, dtype, room)
    wanted = seqs * -(-length // block_size)
    left = room.free_bytes - weight_bytes - room.reserve_bytes - (buffers if room.fills else 0)
    num_blocks, source = _num_blocks(config, room, left, block_bytes, wanted)
    fitting = num_blocks * block_size
    if num_blocks * block_bytes > max(left, 0) and source.startswith("--"):
        # what is free on a host is another figure at the next start
        safe = left if room.fills else (left - buffers) * 9 // 10
        raise _too_large(
            num_blocks * block_bytes, max(left, 0), max(safe, 0) // block_bytes, block_bytes, source
        )
    if fitting < length:
        if config.max_model_len is not None or fitting < 2 * block_size:
            raise _too_small(config, length, num_blocks, block_size, block_bytes, source)
        length = fitting
    lines = (
        f"weights        {_gib(weight_bytes):>10}  {spec.num_parameters / 1e6:,.1f} million parameters, {dtype}",
        f"activations    {_gib(buffers):>10}  buffers of a step of {batched:,} tokens",
        f"KV cache       {_gib(num_blocks * block_bytes):>10}  {num_blocks:,} blocks of {block_size} tokens ({source})",
        f"per token      {block_bytes // block_size:>8,} B  so {fitting:,} tokens fit, {fitting / length:,.1f} sequences of full length",
        f"max_model_len  {length:>10,}  tokens in one sequence, prompt and output",
        f"max_num_seqs   {seqs:>10,}  sequences at once, {batched:,} tokens a step, {room.workers}",
    )
    return Budget(num_blocks, block_bytes, length, seqs, batched, lines, weight_bytes, buffers)


def _check_weights(config: EngineConfig, weight_bytes: int, dtype: str, room: Room) -> None:
    if (config.load_format != "dummy" or room.fills) and weight_bytes > room.free_bytes:
        raise ConfigError(
            f"the weights need {_gib(weight_bytes)} and {_gib(room.free_bytes)} are free: use a smaller model or --dtype bfloat16",
            "--dtype bfloat16" if dtype == "float32" and weight_bytes // 2 <= room.free_bytes else "",
        )


def _num_blocks(
    config: EngineConfig, room: Room, left: int, block_bytes: int, wanted: int
) -> tuple[int, str]:
    """(blocks, what decided). left: bytes beside the weights. wanted: blocks that all sequences can use."""
    if config.num_gpu_blocks_override:
        return config.num_gpu_blocks_override, "--num-gpu-blocks-override"
    if config.kv_cache_memory_bytes:
        return config.kv_cache_memory_bytes // block_bytes, "--kv-cache-memory-bytes"
    share = max(0, int(left * room.share)) // block_bytes
    if room.fills or share < wanted:
        return share, f"{room.share:.0%} of what is left"
    return wanted, "all sequences"


def _too_large(asked: int, left: int, most: int, block_bytes: int, flag: str) -> ConfigError:
    """What was asked for is not there; on a CPU the system would end the engine later, when the pages are used."""
    remedy = f"{flag} {most if flag == '--num-gpu-blocks-override' else most * block_bytes}" if most else ""
    return ConfigError(
        f"{flag} asks for {_gib(asked)} of KV cache and {_gib(left)} are left beside the weights: "
        f"{f'use {remedy} or less' if most else 'use a smaller model'}, or leave it out",
        remedy,
    )


def _too_small(
    config: EngineConfig, length: int, num_blocks: int, block_size: int, block_bytes: int, source: str
) -> ConfigError:
    """Not one sequence fits: the error with the flags that would work."""
    fitting, blocks = num_blocks * block_size, -(-length // block_size)
    need = blocks * block_bytes
    larger = (
        f"--num-gpu-blocks-override {blocks}"
        if config.num_gpu_blocks_override
        else f"--kv-cache-memory-bytes {need}"
    )
    shorter = f"--max-model-len {fitting}" if fitting >= 2 else ""
    return ConfigError(
        f"one sequence of {length} tokens needs {_gib(need)} of KV cache and {_gib(num_blocks * block_bytes)} are "
        f"there ({source}): use {' or '.join(filter(None, (shorter, larger)))}",
        shorter or larger,
    )


def plan_encoder_memory(
    config: EngineConfig, spec: EncoderSpec, max_tokens: int, dtype: str, room: Room
) -> Budget:
    """An encoder has weights and the buffers of a step, and no cache. A step takes whole inputs, so it must hold the longest.

    `max_tokens` is what the model was made for. Raises ConfigError naming the flag that does not fit.
    """
    length = config.max_model_len or max_tokens
    if length > spec.max_tokens:
        raise ConfigError(
            f"--max-model-len {length} is above the model's {spec.max_tokens} positions",
            f"--max-model-len {spec.max_tokens}",
        )
    batched = config.max_num_batched_tokens or max(room.max_encoder_tokens, length)
    if batched < length:
        raise ConfigError(
            f"--max-num-batched-tokens {batched} is below the longest input: an encoder needs whole inputs in a step; "
            f"use at least {length}, or --max-model-len {batched}",
            f"--max-num-batched-tokens {length}",
        )
    seqs = config.max_num_seqs or ENCODER_MAX_NUM_SEQS
    weight_bytes = spec.num_parameters * _DTYPE_BYTES[dtype]
    buffers = batched * spec.values_per_token * _DTYPE_BYTES["float32"]
    _check_weights(config, weight_bytes + buffers, dtype, room)
    lines = (
        f"weights        {_gib(weight_bytes):>10}  {spec.num_parameters / 1e6:,.1f} million parameters, {dtype}",
        f"activations    {_gib(buffers):>10}  buffers of a step of {batched:,} tokens",
        f"max_model_len  {length:>10,}  tokens in one input",
        f"max_num_seqs   {seqs:>10,}  inputs at once, {batched:,} tokens a step, {room.workers}",
    )
    return Budget(0, 0, length, seqs, batched, lines, weight_bytes, buffers)


def step_bytes(spec: ModelSpec, dtype: str, seqs: int, tokens: int) -> int:
    """Buffers of the largest step: activations of every token, logits, the sampler's copy of them and token counts of every sequence."""
    widths = sum(spec.buffer_widths.values())
    return tokens * widths * _DTYPE_BYTES[dtype] + 3 * seqs * spec.vocab_size * 4


def _model_len(config: EngineConfig, spec: ModelSpec) -> int:
    longest, why = spec.max_position_embeddings, "max_position_embeddings"
    windows = [window for window in spec.sliding_windows if window] if config.disable_sliding_window else []
    if windows and min(windows) < longest:
        longest, why = min(windows), "--disable-sliding-window: its window has"
    if config.max_model_len is None:
        return longest
    if config.max_model_len > longest:
        raise ConfigError(
            f"--max-model-len {config.max_model_len} is above what the model was made for ({why} {longest})",
            f"--max-model-len {longest}",
        )
    return config.max_model_len


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**28 else f"{num_bytes / 2**20:.1f} MiB"


def lower_priority() -> None:
    """The engine gives way to the front, whose probes and streams share the same cores (niceness 5)."""
    os.nice(5)
